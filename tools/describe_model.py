"""What a network is made of: layers, shapes, parameters, FLOPs, memory; on request time and bound.

python tools/describe_model.py cpl_s
python tools/describe_model.py liresnet --image-size 224 --num-classes 1000 width=588 depth=12
python tools/describe_model.py "cpl*"             the names that match, with their sizes
python tools/describe_model.py cpl depth=2 --time --bound
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

import torch
import yaml

from pipeline.certify.bounds import prove_bounds
from pipeline.lipschitz.compose import product_upper
from pipeline.models import build_model, list_models
from pipeline.models.description import describe, seconds_an_image, table


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, count, print."""
    parser = argparse.ArgumentParser(
        prog="describe_model.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="of a model, or a pattern such as 'cpl*'")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="the model's options")
    parser.add_argument("--num-classes", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--in-channels", type=int, default=3)
    parser.add_argument("--time", action="store_true", help="measure the time an image here")
    parser.add_argument("--bound", action="store_true", help="prove the bound as initialised")
    chosen = parser.parse_args(arguments)
    images = (chosen.num_classes, chosen.image_size, chosen.in_channels)
    try:
        options = dict(_option(word) for word in chosen.options)
        if "*" in chosen.name or "?" in chosen.name:
            for name in list_models(chosen.name):
                facts = describe(name, *images, **options)
                print(f"{name:20} {facts.parameters / 1e6:8.2f} M {facts.flops / 1e9:9.2f} GFLOP")
            return 0
        facts = describe(chosen.name, *images, **options)
        print(table(facts))
        print(f"Lipschitz estimates: {facts.estimate_flops / 1e6:.2f} MFLOP a training step")
        print(f"certificate: {facts.refusal or 'possible'}")
        if chosen.time or chosen.bound:
            torch.manual_seed(0)
            model = build_model(chosen.name, *images, **options)
        if chosen.time:
            image = torch.rand(1, *model.input_shape)
            milliseconds = 1e3 * seconds_an_image(model, image)
            threads = torch.get_num_threads()
            print(f"time: {milliseconds:.2f} ms an image on the CPU, {threads} threads")
        if chosen.bound:
            bounds = prove_bounds(model.export())
            bound = product_upper(bound.value for bound in bounds)
            print(f"certified bound of the trunk as initialised: {bound:.7g}")
    except ValueError as error:
        parser.error(str(error))
    return 0


def _option(word: str) -> tuple[str, object]:
    """`key=value` as in a config.

    Raises:
        ValueError: there is no "=".
    """
    key, equals, value = word.partition("=")
    if not equals:
        raise ValueError(f"{word!r} is not an option: write KEY=VALUE, such as depth=12")
    if key in ("name", "num_classes", "image_size", "in_channels"):
        raise ValueError(f"{key} is not among the options of a model: see --help for its place")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"the value in {word!r} is no YAML: is a bracket or quote open?") from None


if __name__ == "__main__":
    sys.exit(main())
