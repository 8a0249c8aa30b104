"""Draw a number of several runs against the step, in one picture.

    python tools/plot_curves.py depth.png runs/cpl_depth_100 runs/cpl_depth_1000
    python tools/plot_curves.py norms.png runs/a runs/b --key gradient_norm --title "Gradients"
    python tools/plot_curves.py calm.png runs/a runs/b --top 1

Reads metrics.jsonl, also of runs that are still going. Exit status: 0, or 2 for a wrong argument.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.sweep.curves import draw_curves


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, draw; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    parser.add_argument("--key", default="loss", help="of metrics.jsonl (loss)")
    parser.add_argument("--title", default="")
    parser.add_argument("--top", type=float, metavar="Y", help="cut off what lies above")
    words = parser.parse_args(arguments)
    try:
        words.picture.write_bytes(draw_curves(words.runs, words.key, words.title, words.top))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
