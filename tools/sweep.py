"""Run a config over several seeds and a grid of values; tables of mean ± standard deviation.

Three seeds of a recipe:
    python tools/sweep.py configs/digits.yaml --seeds 0 1 2
A grid (every combination, each with every seed), and other values for all runs:
    python tools/sweep.py configs/digits.yaml --seeds 0 1 2 --name widths \\
        --grid model.width=8,16,32 --grid epsilon.target=36/255,72/255 --training.epochs 20
Keys that go in step, a colon between their values (LiResNet, Appendix F):
    python tools/sweep.py CONFIG --seeds 0 1 2 \\
        --grid data.classes.first,model.num_classes=100:100,200:200,300:300
On all GPUs of a machine, or a run on each of eight (the GPUs are divided among the jobs):
    python tools/sweep.py CONFIG --seeds 0 1 2 --launcher "accelerate launch --num_processes 8"
    python tools/sweep.py CONFIG --seeds 0 1 2 3 4 5 6 7 --jobs 8
The same time for every network (steps by a measured step, kept in budget.json), and an attack:
    OMP_NUM_THREADS=1 python tools/sweep.py CONFIG --seeds 0 1 2 --budget 100 --pgd 1000 \\
        --grid model.block=linear,cpl,soc
What would be run:
    python tools/sweep.py CONFIG --seeds 0 1 2 --grid optimizer.lr=1e-3,1e-2 --dry-run

Every run is a process of its own in OUTPUT/NAME.sweep/, with its log in logs/; one that fails is
named and the others go on. results.csv is written anew whenever a run finishes, summary.csv, .md,
.tex and (where one number is swept) .png at the end. Ctrl-C makes the runs save. The same command
again skips what is finished and goes on with the rest; more seeds or values may be added.

exit status: 0 all runs are finished, 1 one failed, 2 wrong arguments, 130 interrupted
"""

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline import sweep as sweeps

TRAIN = Path(__file__).parents[1] / "launch" / "train.py"
INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended


def arguments() -> argparse.ArgumentParser:
    """Of the command line, without the keys of the config."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--KEY VALUE sets any other key of the config for all runs, as launch/train.py does",
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file, see configs/")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, metavar="S")
    parser.add_argument("--grid", nargs="+", action="extend", default=[], metavar="KEY=A,B")
    parser.add_argument("--budget", type=float, metavar="S", help="seconds a run, not epochs")
    parser.add_argument("--pgd", type=int, default=0, metavar="N", help="attack N images (0)")
    parser.add_argument("--launcher", default="", help='e.g. "accelerate launch" (none)')
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (1)")
    parser.add_argument("--dry-run", action="store_true", help="check, and print the commands")
    return parser


def main() -> int:
    """Read the command line and run; the exit status."""
    parser = arguments()
    words, overrides = parser.parse_known_args()
    try:
        axes = [sweeps.parse_axis(word) for word in words.grid]
        if words.budget is not None:
            sweep = sweeps.plan(words.config, overrides, axes, words.seeds, [sweeps.LENGTH])
            axes = sweeps.divide(sweep, words.budget, print, keep=not words.dry_run)
        sweep = sweeps.plan(words.config, overrides, axes, words.seeds)
        program = [*sweeps.launcher(words.launcher), str(TRAIN)]
        if words.jobs < 1:
            raise ValueError(f"--jobs {words.jobs} must be at least 1")
    except ValueError as error:
        parser.error(str(error))
    except sweeps.NonFiniteError as error:  # in the measured steps of --budget
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted while measuring: the same command goes on with what is left")
        return INTERRUPTED
    if words.dry_run:
        for run in sweep.runs:
            print("finished  " if sweeps.is_finished(run) else "to be run ", end="")
            print(shlex.join(sweeps.command_of(run, program, words.config)))
        return 0
    try:
        outcome = sweeps.conduct(sweep, program, words.jobs)
        if outcome.finished and (words.budget is not None or words.pgd):
            print(f"\n{sweeps.write_comparison(sweep, words.pgd)}")
    except (ValueError, OSError) as error:  # OSError: a full disk
        print(f"error: {error}", file=sys.stderr)
        return 1
    if outcome.interrupted:
        return INTERRUPTED
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
