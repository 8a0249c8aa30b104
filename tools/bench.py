"""What things cost, measured on this machine.

Certification of images beside plain float64 inference of as many, bounds apart:
    python tools/bench.py certify runs/NAME/certificate --images 256 --rounds 5
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.certify.benchmark import measure_certification, record, table


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and measure; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    certify = what.add_parser("certify", help="certification beside plain float64 inference")
    certify.add_argument("directory", type=Path, help="a certificate directory")
    certify.add_argument("--images", type=int, default=256, help="random ones, a round (256)")
    certify.add_argument("--rounds", type=int, default=5, help="(5)")
    certify.add_argument("--out", type=Path, metavar="FILE.json", help="every number")
    options = parser.parse_args(arguments)
    try:
        costs = measure_certification(options.directory, options.images, options.rounds)
        if options.out is not None:
            options.out.write_text(json.dumps(record(costs), indent=2) + "\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
