"""Certify every image of a validation set with a trained network.

On one process, on the run's own data and at its own radii:
    python tools/certify_val.py --run runs/digits
On two processes, or on all GPUs of a machine:
    accelerate launch --multi_gpu --num_processes 2 tools/certify_val.py --run runs/digits
Other images and radii (l2, in the space of the stored image, values v/255):
    python tools/certify_val.py --run runs/NAME --data val.beton --epsilon 36/255 72/255 1.0
The best of the kept checkpoints by the estimate of VRA in training, or that of a step:
    python tools/certify_val.py --run runs/NAME --checkpoint best --out DIR
    python tools/certify_val.py --run runs/NAME --checkpoint 5000 --out DIR
The network of a certificate, without its run:
    python tools/certify_val.py --run runs/NAME/certificate --data other.beton --out other

With norm bounds within 0.1 percent of the norms, which costs more:
    python tools/certify_val.py --run runs/NAME --tight --out DIR

A command that was killed or interrupted goes on where it was when it is repeated. The result is a
certificate directory (report.html is for reading) that tools/verify_certificate.py checks. The exit
status is as in launch/train.py.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline import run
from pipeline.certify import certify_again
from pipeline.outcome import FINISHED, Outcome, exit_status


def main() -> int:
    """Read the command line and certify; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="run or certificate directory"
    )
    parser.add_argument(
        "--data", metavar="SPEC", help="an exact .beton, or a source as in write_beton.py --help"
    )
    parser.add_argument(
        "--epsilon",
        nargs="+",
        metavar="E",
        help="such as 36/255 or 0.25 (default: the run's)",
    )
    parser.add_argument(
        "--checkpoint", metavar="WHICH", help="newest, best or a step (default: newest)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/certificate")
    parser.add_argument("--force", action="store_true", help="replace another certificate there")
    parser.add_argument(
        "--tight", action="store_true", help="norm bounds within 0.1 percent of the norms; slower"
    )
    options = parser.parse_args()

    def certify() -> Outcome:
        if (options.run / "certificate.json").is_file():
            if options.checkpoint is not None:
                raise ValueError(f"--checkpoint: {options.run} is a certificate of one network")
            out = options.out or options.run
            certify_again(
                options.run,
                out,
                options.data,
                options.epsilon,
                options.force,
                options.tight or None,
            )
        else:
            which = options.checkpoint or "newest"
            run.certify_run(
                options.run,
                options.data,
                options.epsilon,
                options.out,
                options.force,
                which,
                options.tight,
            )
        return FINISHED

    return exit_status(certify)


if __name__ == "__main__":
    sys.exit(main())
