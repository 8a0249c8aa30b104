"""Tables and figures of the small-network papers, a command each: docs/small_networks_results.md.

What certificates prove, and what the paper's own reading would count:
    python tools/small_networks.py accuracies runs/A runs/B      # CRC 3, 4, 8, 9, 13; CRM 1
CRC, on fully connected networks:
    python tools/small_networks.py success runs/A runs/B --radius 0.5       # Tables 2, 12
    python tools/small_networks.py curvature runs/A runs/B --out fig1.png   # Table 16, Figures 1, 2
    python tools/small_networks.py certificates runs/A --targets runner-up random least  # 5, 15
    python tools/small_networks.py local runs/A --radius 0.5                # Table 6
CRM, on certificates by liplt:
    python tools/small_networks.py pairwise runs/A                          # Table 2
    python tools/small_networks.py radii runs/A --naive --out fig2.png      # Figure 2

DIRs are certificate directories, or runs (the newest checkpoint). Every command prints a table and
writes it with --csv FILE. Nothing here is a certificate: see tools/certify_val.py.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.certify.studies import commands
from pipeline.certify.studies.curvature import TARGETS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, what: str) -> argparse.ArgumentParser:
        one = kinds.add_parser(name, help=what, description=what)
        one.add_argument("directories", nargs="+", type=Path, metavar="DIR")
        one.add_argument("--csv", type=Path, metavar="FILE", help="write the table there too")
        return one

    def add_images(one: argparse.ArgumentParser, count: int | None) -> None:
        one.add_argument("--data", metavar="SPEC", help="other images (the run's)")
        what = "all" if count is None else str(count)
        more = f"N, evenly spread ({what})"
        one.add_argument("--images", type=int, default=count, metavar="N", help=more)

    proved = add("accuracies", "clean and certified accuracy, proved and in the paper's reading")
    proved.add_argument("--epsilon", nargs="+", default=[], metavar="E", help="(the first's)")
    success = add("success", "how often CRC's attack and certificate are exact (Tables 2, 12)")
    add_images(success, None)
    success.add_argument("--radius", type=float, default=0.5, metavar="R", help="ρ (0.5)")
    gap = add("curvature", "K_lb of Hessians against K_ub of Theorem 4 (Table 16, Figures 1, 2)")
    add_images(gap, None)
    gap.add_argument("--fewest", type=int, default=100, metavar="N", help="images a pair (100)")
    gap.add_argument("--out", type=Path, metavar="PNG", help="draw K against γ there")
    radii = add("certificates", "mean radii of CROWN and CRC, or the ReLU quadratic (5, 15)")
    add_images(radii, 150)
    radii.add_argument("--targets", nargs="+", choices=TARGETS, default=["runner-up"])
    local = add("local", "CRC by global and by local curvature (Table 6)")
    add_images(local, 150)
    local.add_argument("--radius", type=float, default=0.5, metavar="R", help="ρ (0.5)")
    add("pairwise", "mean pairwise Lipschitz constants, naive and LipLT (CRM, Table 2)")
    figure = add("radii", "distributions of certified radii (CRM, Figure 2)")
    figure.add_argument("--data", metavar="SPEC", help="other images, for --naive")
    figure.add_argument("--naive", action="store_true", help="beside each, by the naive product")
    figure.add_argument("--epsilon", nargs="+", default=[], metavar="E", help="such as 1.58")
    figure.add_argument("--out", type=Path, metavar="PNG", help="draw the curves there")
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, make the table, print it; the exit status."""
    options = vars(parser().parse_args(arguments))
    command, csv = options.pop("command"), options.pop("csv")
    try:
        print(commands.run(command, csv, options))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
