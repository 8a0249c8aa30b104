"""Samples a second of tools/ddpm_sample.py and of a plain diffusers loop, taking turns in one run.

    python tools/benchmark_sampler.py --run runs/ddpm_digits
Without guidance, by DDIM, and with our network compiled besides:
    python tools/benchmark_sampler.py --run RUN --guidance 1 --sampler ddim --compile

The plain loop is diffusers' own, in float32 and with two forwards a step under guidance, at 16
images a batch as its examples have it and at ours; factors are over the plain loop at our batch
size. Let nothing else run meanwhile, and read the CPU columns where something does.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

import torch

from pipeline.diffusion.benchmark import measure, table
from pipeline.diffusion.sampler import Settings


def main() -> int:
    """Read the command line and measure; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="of tools/ddpm_train.py")
    add("--steps", type=int, default=50, help="(50)")
    add("--sampler", choices=("dpm++", "ddim"), default="dpm++")
    add("--guidance", type=float, default=1.5, help="(1.5)")
    add("--batch-size", type=int, default=256, help="(256)")
    add("--images", type=int, default=256, help="of a turn (256)")
    add("--rounds", type=int, default=5, help="(5)")
    add("--compile", action="store_true", help="our network compiled, besides")
    usual = "bf16" if torch.cuda.is_available() else "fp32"
    add("--precision", choices=("fp32", "bf16"), default=usual, help=f"of ours ({usual} here)")
    words = parser.parse_args()
    bf16 = words.precision == "bf16"
    settings = Settings(words.steps, words.steps, words.sampler, words.guidance, bf16=bf16)
    try:
        contenders = measure(
            words.run, settings, words.batch_size, words.images, words.rounds, words.compile
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(contenders))
    return 0


if __name__ == "__main__":
    sys.exit(main())
