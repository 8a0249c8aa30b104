"""Certify a classifier by randomized smoothing (Cohen et al. 2019), to compare with.

PROBABILISTIC: each radius is wrong with probability up to alpha. It is no certificate as the others
of this project are; tools/verify_certificate.py has nothing to verify in it.

Train a base classifier with the same noise, then smooth it; its run ends with its own certificate:
    python launch/train.py --config configs/digits_noise.yaml
    python tools/smooth.py --run runs/digits_noise --sigma 0.25
Every 20th image, at other radii, in two processes:
    torchrun --nproc-per-node 2 tools/smooth.py --run runs/NAME --sigma 0.25 --every 20 \\
        --epsilon 0.25 0.5 1.0
Both kinds in one plot, with their costs:
    python tools/compare_certificates.py runs/digits runs/digits_noise/smoothing-0.25 --out both

Writes smoothing.json and images.tsv (the columns of Cohen et al.: idx label predict radius correct
time; predict is -1 where it abstains). The same rows come out of any number of processes; a command
that was killed goes on where it was when it is repeated.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.certify.smoothing.smoothed import Settings
from pipeline.certify.smoothing.whole_set import smooth
from pipeline.outcome import FINISHED, Outcome, exit_status
from pipeline.training.stop_request import stop_requests


def main() -> int:
    """Read the command line and smooth; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = Settings(sigma=1.0)
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="run or certificate directory")
    add("--sigma", type=float, required=True, help="deviation of the noise, of values v/255")
    add("--samples", type=int, default=usual.samples, metavar="N", help="default: 100,000")
    add("--selection", type=int, default=usual.selection, metavar="N0", help="default: 100")
    add("--alpha", type=float, default=usual.alpha, help="default: 0.001")
    add("--seed", type=int, default=usual.seed, help="of the noise")
    add("--data", metavar="SPEC", help="default: as the certificate says")
    add("--images", type=int, metavar="COUNT", help="at most so many")
    add("--every", type=int, default=1, metavar="K", help="only each K-th image")
    add("--epsilon", nargs="+", metavar="E", help="default: the certificate's")
    add("--threads", type=int, help="images at a time in a process (default: its cores)")
    add("--out", type=Path, metavar="DIR", help="default: RUN/smoothing-SIGMA")
    add("--force", action="store_true", help="replace a pass with other options")
    options = parser.parse_args()

    def work() -> Outcome:
        settings = Settings(
            options.sigma, options.samples, options.selection, options.alpha, options.seed
        )
        with stop_requests() as stop:
            smooth(
                options.run,
                options.out or options.run / f"smoothing-{options.sigma:g}",
                settings,
                data=options.data,
                epsilons=options.epsilon,
                images=options.images,
                every=options.every,
                threads=options.threads,
                force=options.force,
                leave_if_asked=stop.leave_if_asked,
            )
        return FINISHED

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
