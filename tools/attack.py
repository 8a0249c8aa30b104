"""Attack a certificate; none of its certified images may fall.

    python tools/attack.py CERTIFICATE_DIR [--data val.beton] [--images 1000]
    python tools/attack.py CERTIFICATE_DIR --curve 0.1 0.2 0.4 0.8      # the papers' PGD-10 curve

l2-PGD with restarts, APGD-CE and APGD-T (Croce and Hein 2020) at the certificate's radii and on
every certified image at its own, and a search for places steeper than the certified constants.
Writes attack.json and a section of report.html. Exit status: 0 nothing refutes the certificate, 1
something does (the last line says what), 2 a wrong argument or wrong data.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.certify.attacks.assault import Settings
from pipeline.certify.attacks.campaign import attack_certificate
from pipeline.certify.attacks.report import refuted, text_summary


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, attack, print; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = Settings()
    parser.add_argument("directory", type=Path, help="the certificate directory")
    parser.add_argument("--data", metavar="SPEC", help="the certified images (default: as it says)")
    parser.add_argument("--images", type=int, metavar="N", help="only N, evenly spread (all)")
    parser.add_argument("--epsilon", nargs="+", metavar="E", help="default: the certificate's")
    parser.add_argument("--curve", nargs="+", type=float, default=(), metavar="E")
    parser.add_argument("--steps", type=int, default=usual.steps, help="of each search")
    parser.add_argument("--restarts", type=int, default=usual.restarts, help="of PGD")
    parser.add_argument("--unboxed", action="store_true", help="also points outside of [0, 1]")
    parser.add_argument("--seed", type=int, default=usual.seed)
    options = parser.parse_args(arguments)
    if min(options.steps, options.restarts) < 1:
        parser.error("--steps and --restarts must be at least 1")
    settings = Settings(
        steps=options.steps,
        restarts=options.restarts,
        boxed=not options.unboxed,
        seed=options.seed,
    )
    try:
        result = attack_certificate(
            options.directory,
            options.data,
            options.images,
            options.epsilon,
            options.curve,
            settings,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text_summary(result))
    sentence = refuted(result)
    print(f"REFUTED: {sentence}." if sentence else "nothing refutes the certificate")
    return 1 if sentence else 0


if __name__ == "__main__":
    sys.exit(main())
