"""Write a .beton file, the format that training, validation and certification read.

examples:
  python tools/write_beton.py --source imagenet:/data/imagenet --split train --preset train --out train.beton
  python tools/write_beton.py --source imagenet:/data/imagenet --split val --preset exact --out val.beton
  python tools/write_beton.py --source folder:photos.tar --split train --preset proportion --out photos.beton
  python tools/write_beton.py --source cifar10:cifar-10-python.tar.gz --split train --preset train --out cifar.beton
  python tools/write_beton.py --source beton:generated_64.beton --split train --preset train --resize --out g.beton
  python tools/write_beton.py --check train.beton

presets, for photographs; data of one small size are stored untouched:
  exact       what is certified: uint8 pixels, shorter side 256, middle 224 x 224 (scaled with --size)
  train       for random crops: shorter side 256, JPEG of quality 90
  raw         for random crops: the same as pixels, seven times as large, fastest to read
  proportion  for random resized crops (FFCV's usual file): longest side at most 500, half of the
              pictures JPEG of quality 90, half pixels

Size and time are estimated first. A killed command goes on at its last finished shard when it is
repeated. FILE.beton.json, the data card, tells counts, sizes, duplicates, what was skipped, and the
checksum that --check compares.
"""  # noqa: E501

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.data.betons.card import check_beton
from pipeline.data.betons.storage import PRESETS, storage_of
from pipeline.data.betons.write import write_beton
from pipeline.data.sources import forms_help


def main() -> int:
    """Read the arguments and write, or check."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nsources, archives read in place:\n{forms_help()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--source", help="where the pictures are")
    add("--split", choices=("train", "val"))
    add("--preset", choices=PRESETS)
    add("--out", type=Path, metavar="FILE.beton")
    add("--size", type=int, help="side of the images that photographs become (224)")
    add("--longest", type=int, help="longest side of stored photographs, instead of --size")
    add("--compressed", type=float, metavar="SHARE", help="of the pictures, as JPEG")
    add("--quality", type=int, help="of JPEGs (90)")
    add("--resize", action="store_true", help="small images too, as photographs are")
    add("--workers", type=int, default=0, help="threads (all cores)")
    add("--on-error", choices=("stop", "skip"), default="stop", help="at an unreadable picture")
    add("--force", action="store_true", help="replace an existing file")
    add("--check", type=Path, metavar="FILE.beton", help="compare a file with its data card")
    words = parser.parse_args()
    required = ("source", "split", "preset", "out")
    missing = [f"--{name}" for name in required if getattr(words, name) is None]
    if missing and words.check is None:
        parser.error(f"{', '.join(missing)}: missing (or --check FILE.beton)")
    try:
        if words.check is not None:
            card = check_beton(words.check)
            print(f"{words.check}: whole and as its data card says, {card['num_samples']:,} images")
            return 0
        storage = storage_of(
            words.preset, words.size, words.longest, words.compressed, words.quality
        )
        card = write_beton(
            words.source, words.split, storage, words.out, words.workers, words.on_error,
            words.force, words.resize,
        )  # fmt: skip
    except ValueError as error:
        print(
            "; ".join([f"write_beton: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("write_beton: interrupted; the same command goes on", file=sys.stderr)
        return 130
    left_out = f", {len(card['skipped'])} skipped" if card["skipped"] else ""
    twice = card["duplicates"]["pictures"]
    print(
        f"{words.out}: {card['num_samples']:,} images in {len(card['class_names'])} classes"
        f"{left_out}{f', {twice} of them duplicates' if twice else ''}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
