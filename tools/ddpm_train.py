"""Train a generator: a class-conditional DDPM, on the training set only.

On one process:
    python tools/ddpm_train.py --config configs/ddpm_digits.yaml
On all GPUs of a machine, and on SLURM:
    accelerate launch --multi_gpu --num_processes 8 tools/ddpm_train.py --config configs/ddpm_cifar10.yaml
    python launch/slurm.py --nodes 1 --config configs/ddpm_cifar10.yaml
With other values than the file's (any key of the config), or only the first steps of it:
    python tools/ddpm_train.py --config configs/ddpm_digits.yaml --name wide --model.channels 32
    python tools/ddpm_train.py --config configs/ddpm_digits.yaml --max-steps 20

The same command again goes on where the run stopped, with the same bits. TensorBoard shows grids of
samples, and the Frechet distance to the training images if diffusion.monitor.classifier names a run.
The exit status is as in launch/train.py. Next: tools/ddpm_sample.py.
"""  # noqa: E501

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline import config, run
from pipeline.outcome import exit_status


def main() -> int:
    """Read the command line and train; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--KEY VALUE sets any other key of the config, e.g. --training.epochs 5",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, required=True, help="a YAML file, see configs/")
    parser.add_argument("--max-steps", type=int, metavar="N", help="try the first N steps")
    arguments, overrides = parser.parse_known_args()
    try:
        settings = config.load(arguments.config, [*overrides, "--task", "ddpm_train"])
    except ValueError as error:
        parser.error(str(error))
    return exit_status(lambda: run.main(settings, arguments.max_steps))


if __name__ == "__main__":
    sys.exit(main())
