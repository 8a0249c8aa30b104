"""Write a .beton file, the format that training, validation and certification read.

examples:
  python tools/write_beton.py --source digits --split val --preset exact --out digits_val.beton
  python tools/write_beton.py --source folder:/data/imagenet --split train --preset train --out train.beton
  python tools/write_beton.py --source folder:photos.tar --split val --preset exact --size 224 --out val.beton
  python tools/write_beton.py --source npz:cifar10.npz --split train --preset train --out cifar_train.beton

sources:
  digits        scikit-learn's handwriting, 8x8, 1437 + 360 images
  folder:PATH   a folder or an uncompressed tar of class folders, under train/ and val/ or not
  npz:PATH      x_train/y_train/..., train_bytes/train_offsets/..., or image/label

presets:
  exact   uint8 pixels as PIL gives them: what is certified. Photographs: shorter side 256,
          middle 224 x 224 (scaled with --size). Data of one small size is untouched.
  train   room for random crops. Photographs: shorter side 256, JPEG quality 90. Data of one
          small size is untouched.
"""  # noqa: E501

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Read the arguments and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="digits, folder:PATH or npz:PATH")
    parser.add_argument("--split", required=True, choices=("train", "val"))
    parser.add_argument("--preset", required=True, choices=("train", "exact"))
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.beton")
    parser.add_argument("--size", type=int, help="side of photographs (224)")
    parser.add_argument("--workers", type=int, default=0, help="threads (all cores)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    words = parser.parse_args()

    from pipeline.data.betons.write import write_beton

    try:
        card = write_beton(
            words.source, words.split, words.preset, words.out, words.size, words.workers,
            words.force,
        )  # fmt: skip
    except ValueError as error:
        print(f"write_beton: {error}", file=sys.stderr)
        return 1
    print(f"{words.out}: {card['num_samples']:,} images in {len(card['class_names'])} classes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
