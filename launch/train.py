"""Train and certify what a config describes.

On one process:
    python launch/train.py --config configs/digits.yaml
On all GPUs of a machine:
    accelerate launch launch/train.py --config configs/imagenet_liresnet.yaml
With other values than the file's (any key of the config):
    python launch/train.py --config configs/digits.yaml --name wide --model.width 32 --seed 1
Trying a recipe, in runs/NAME.trial and without certification:
    python launch/train.py --config configs/digits.yaml --max-steps 20

The same command again goes on where the run stopped. Ctrl-C finishes the step and saves, and so do
SIGTERM and SIGUSR2. Exit status: 0 finished, 1 refused, 75 left early or lost another process (try
again), 130 Ctrl-C, anything else a crash.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline import config, run
from pipeline.outcome import exit_status


def main() -> int:
    """Read the command line and run; the exit status."""
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
        settings = config.load(arguments.config, overrides)
    except ValueError as error:
        parser.error(str(error))
    return exit_status(lambda: run.main(settings, arguments.max_steps))


if __name__ == "__main__":
    sys.exit(main())
