"""Images a second of our loaders, and of torch's DataLoader with PIL, taking turns in one run.

A folder of photographs against the .beton files written from it:
    python tools/benchmark_loader.py --folder photos/train --betons train.beton raw.beton
With random resized crops of FFCV's usual file, at several numbers of workers, and as JSON:
    python tools/benchmark_loader.py --folder photos/train --betons proportion.beton \\
        --workers 1 2 8 --out loaders.json
Cropped at random from a shorter side of 256, as LiResNet trains:
    python tools/benchmark_loader.py --betons train.beton --crop random
The price of mixing generated images into every batch, half and half:
    python tools/benchmark_loader.py --betons cifar.beton --generated generated.beton --size 32 \\
        --crop random --batch-size 512

Workers are processes for PIL and threads for ours. Every round gives each loader a slice of batches
in another order; medians and ranges are over rounds. Images are uint8, cropped and flipped. Let
nothing else run meanwhile, and read the second column where something does: images per CPU second.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.data.benchmark import Settings, measure, record, table


def main() -> int:
    """Read the command line and measure; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--betons", type=Path, nargs="+", default=[], metavar="FILE.beton")
    parser.add_argument(
        "--generated", type=Path, metavar="FILE.beton", help="mixed in 1:1, besides"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="pictures, for PIL")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--size", type=int, default=224, help="side of the images (224)")
    parser.add_argument("--crop", choices=("resized", "random"), default="resized")
    parser.add_argument("--batch-size", type=int, default=64, help="(64)")
    parser.add_argument("--batches", type=int, default=20, help="of a slice (20)")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="every number")
    words = vars(parser.parse_args())
    out = words.pop("out")
    if not words["betons"] and words["folder"] is None:
        parser.error("nothing to measure: give --betons, --folder or both")
    settings = Settings(**words)
    try:
        contenders = measure(settings)
        if out is not None:
            out.write_text(json.dumps(record(settings, contenders), indent=2) + "\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(contenders))
    return 0


if __name__ == "__main__":
    sys.exit(main())
