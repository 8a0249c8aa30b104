"""Several certificates in one plot and one table.

Two runs, at their own radii:
    python tools/compare_certificates.py runs/cifar10_a runs/cifar10_b --out comparison
Certificate directories under names of your own, at other radii:
    python tools/compare_certificates.py A/certificate B/certificate --labels LiResNet CPL \\
        --epsilon 36/255 72/255 0.5 --out comparison
A certificate and randomized smoothing (tools/smooth.py), which proves nothing and is marked:
    python tools/compare_certificates.py runs/digits runs/digits_noise/smoothing-0.25

Writes curves.png (certified accuracy against radius) and its points, comparison.csv and
comparison.tex, and pairs.csv: on the same images, how many only the one or the other certifies.
Nothing is verified here: tools/verify_certificate.py does that.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.certify.reporting.compare import all_epsilons, text_comparison, write_comparison
from pipeline.certify.reporting.compared import read_all
from pipeline.types import Epsilon


def main() -> int:
    """Read the command line, compare, print; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "certificates",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="run, certificate or smoothing directories",
    )
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="one for each (their paths)")
    parser.add_argument(
        "--epsilon", nargs="+", metavar="E", help="such as 36/255 or 0.25 (default: all of theirs)"
    )
    parser.add_argument("--out", type=Path, default=Path("comparison"), metavar="DIR")
    options = parser.parse_args()
    try:
        compared = read_all(options.certificates, options.labels)
        epsilons = [Epsilon.parse(text) for text in options.epsilon or ()] or all_epsilons(compared)
        write_comparison(compared, epsilons, options.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text_comparison(compared, epsilons))
    print(f"\nplot and tables: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
