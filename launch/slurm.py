"""Submit a run to SLURM through submitit: one task a GPU, started again until it is finished.

ImageNet on four nodes with eight GPUs each, DeepSpeed-sharded:
    python launch/slurm.py --nodes 4
Another recipe, other values (any key of the config), and where to run it:
    python launch/slurm.py --nodes 2 --config configs/imagenet_liresnet_eps1.yaml --seed 1 \\
        --partition gpu --account lab --time 1-00:00:00 --cluster.cpus_per_task 12
Watch it to its end, now or later with the same command (Ctrl-C leaves the job running):
    python launch/slurm.py --nodes 4 --follow
The batch script, without submitting it; and the same job on this machine, without SLURM:
    python launch/slurm.py --nodes 4 --dry-run
    python launch/slurm.py --nodes 1 --gpus-per-node 2 --config configs/digits.yaml --local

The section `cluster` of the config takes all that can be set. A job that is preempted, reaches its
time limit or loses a node saves, is requeued and goes on; the same command goes on after a scancel.

exit status: 0 submitted or (--follow, --local) finished, 1 refused or given up, 2 wrong arguments,
75 stopped and saved, 130 Ctrl-C
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline import config
from pipeline.launchers import start

RECIPE = Path(__file__).parents[1] / "configs" / "imagenet_liresnet.yaml"
SHORT = ("nodes", "gpus_per_node", "partition", "time", "account", "qos")


def main() -> int:
    """Read the command line and submit; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--KEY VALUE sets any other key of the config, e.g. --training.epochs 5",
        allow_abbrev=False,
    )
    parser.add_argument("--nodes", metavar="N", help="cluster.nodes")
    parser.add_argument("--gpus-per-node", metavar="N", help="cluster.gpus_per_node (8)")
    parser.add_argument("--partition", metavar="NAME", help="cluster.partition")
    parser.add_argument("--time", metavar="TIME", help="cluster.time, of one job (1-00:00:00)")
    parser.add_argument("--account", metavar="NAME", help="cluster.account")
    parser.add_argument("--qos", metavar="NAME", help="cluster.qos")
    parser.add_argument("--config", type=Path, default=RECIPE, help="a YAML file, see configs/")
    parser.add_argument("--follow", action="store_true", help="watch it to its end")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--dry-run", action="store_true", help="only print the batch script")
    where.add_argument("--local", action="store_true", help="run on this machine, without SLURM")
    words, overrides = parser.parse_known_args()
    for key in SHORT:
        if (value := getattr(words, key)) is not None:
            overrides += [f"--cluster.{key}", value]
    try:
        settings = config.load(words.config, overrides)
    except ValueError as error:
        parser.error(str(error))
    try:
        if words.dry_run:
            return start.print_script(settings)
        if words.local:
            return start.run_locally(settings)
        typed = ["python", *(word for word in sys.argv if word != "--follow")]
        return start.submit(settings, typed, watch=words.follow)
    except (ValueError, OSError) as error:  # OSError: a full disk
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
