"""Check a certificate without trusting the program that wrote it.

    python tools/verify_certificate.py CERTIFICATE_DIR [--data val.beton]

Exit status: 0 verified, 1 refused (the last line names the first thing that is wrong), 2 usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.verify import verify_certificate
from pipeline.verify.bar import Bar

SCOPE = """\
checked
  certificate.json     strict JSON, every key and its type, a known format and statement
  file hashes          sha256 of weights, config and table
  weights and layers   kinds known, shapes chain, every tensor used once and finite
  layer bounds         every norm proved again, by Gram iteration with all rounding accounted for,
                       on tori whose validity is worked out here (certification uses Cholesky);
                       with an axis that is not wrapped (--tight), by a factorisation of its own
  Lipschitz bound      not below the exact rational product of the layer bounds
  head distances       every constant K not below the Lipschitz bound times the distance of the
                       rows, or (method liplt) not below what LipLT makes of products proved again;
                       (method curvature) every constant C proved again
  rows                 one for each image, in order; radius <= (margin - delta) / K exactly
                       (not where the method is curvature); radius_float <= radius
  totals               clean accuracy, and VRA by both radii, > epsilon as a fraction
  with --data          sha256 of pixels and labels; labels; logits computed anew; delta not below
                       our own bound of the rounding; every radius against all classes; every image
                       counted at an epsilon proved by our own numbers alone, in statement R and,
                       with our own bound of the rounding in the ball, in statement F

trusted
  this program, Python, NumPy, mpmath and IEEE float64 (matrix products are probed)
  without --data       the margins, deltas and labels, that no other class is nearer, radius_float;
                       where the method is curvature, every radius
  never checked        vra_unsound and lipschitz_unsound (not bounds, and said not to be), times,
                       versions, the config beyond its hash, the report, its pictures, attack.json

--data takes an exact .beton, or an .npz with image/label, x_test/y_test, x_val/y_val or
x_train/y_train; the split is found by its hash.
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, check, print the verdict."""
    parser = argparse.ArgumentParser(
        prog="verify_certificate.py",
        description=__doc__,
        epilog=SCOPE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, help="the certificate directory")
    parser.add_argument("--data", type=Path, help="the certified images (.beton or .npz)")
    options = parser.parse_args(arguments)
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is not a directory")
    if options.data is not None and not options.data.is_file():
        parser.error(f"--data {options.data} is not a file")
    bar = Bar()
    try:
        verdict = verify_certificate(options.directory, options.data, bar)
    finally:
        bar.close()
    print(verdict)
    return 0 if verdict.verified else 1


if __name__ == "__main__":
    sys.exit(main())
