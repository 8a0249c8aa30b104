"""Hand on a certified network: weights as safetensors, its certificate.json, and a model card.

python tools/export_model.py runs/NAME/certificate --out published/NAME
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.certify.publication import publish


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, copy, write the card."""
    parser = argparse.ArgumentParser(
        prog="export_model.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, help="the certificate directory")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    options = parser.parse_args(arguments)
    try:
        print(publish(options.directory, options.out))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
