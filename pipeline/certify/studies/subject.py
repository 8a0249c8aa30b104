"""What a study looks at: a network from a certificate or a run, and images of its data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline import config as configs
from pipeline.certify.certificate import load_network, read_certificate
from pipeline.certify.images import check_images
from pipeline.certify.stages import dense_stages_of
from pipeline.checkpoint import load_chosen, load_model
from pipeline.config import DataConfig
from pipeline.data.loader import open_block_loader
from pipeline.data.spread import images_at, spread
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.plain import VALUE, PlainNetwork
from pipeline.models import model_of
from pipeline.progress import say


@dataclass(frozen=True)
class Subject:
    """A network and its validation set, or images spread evenly over it."""

    name: str
    network: ExportedNetwork
    images: Tensor
    """[n, C, H, W] uint8."""
    labels: Tensor
    """[n] int64."""

    @property
    def center(self) -> Tensor:
        """[n, D] float64, fl(v/255)."""
        return self.images.double().flatten(1) / 255


def open_subject(directory: Path, data: str | None = None, count: int | None = None) -> Subject:
    """The network of a certificate directory or of a run's newest checkpoint.

    Args:
        directory: either.
        data: dataset spec; by default the certificate's or the run's `data.val`.
        count: so many images, spread evenly over the set; all by default.

    Raises:
        ValueError: there is neither, or the data set does not fit the network.
    """
    if (directory / "certificate.json").exists():
        certificate = read_certificate(directory)
        network = load_network(directory)
        spec = data or certificate.dataset["spec"]
        reading = DataConfig(classes=certificate.dataset.get("classes"))
    elif (directory / "config.yaml").exists():
        config = configs.load(directory / "config.yaml")
        network = _trained(config, directory)
        if data is None and config.data.val is None:
            raise ValueError(f"{directory} names no validation set: give --data SPEC")
        spec, reading = str(data or config.data.val), config.data
    else:
        raise ValueError(f"{directory} is neither a certificate directory nor a run")
    loader = open_block_loader(spec, "val", network.input_shape[1], reading)
    try:
        check_images(network, loader.info)
        total = loader.info.num_samples
        return Subject(str(directory), network, *images_at(loader, spread(count or total, total)))
    finally:
        loader.close()


def _trained(config: configs.RunConfig, directory: Path) -> ExportedNetwork:
    """The newest checkpoint's network."""
    chosen = load_chosen(directory / "checkpoints", "newest", say)
    model = model_of(config.model)
    load_model(chosen.tensors, model)
    say(f"{directory} as it was after step {chosen.step}")
    return model.export()


def plain_network(network: ExportedNetwork, dtype: torch.dtype = torch.float64) -> PlainNetwork:
    """A fully connected network as arrays.

    Raises:
        ValueError: a convolution, another activation, or as `dense_stages_of`.
    """
    stages = dense_stages_of(network)
    layers = [network.layers[number] for number in stages.numbers]
    functions = [network.layers[number + 1].attributes()["function"] for number in stages.numbers]
    for function in functions:
        if function not in VALUE:
            raise ValueError(
                f"the network's activation is {function}, and this table is for "
                f"{', '.join(VALUE)}: leave the network out"
            )
    return PlainNetwork(
        [torch.from_numpy(each.weight) for each in stages.maps],
        [torch.from_numpy(layer.tensors()[f"{layer.name}.bias"]).double() for layer in layers],
        functions,
        torch.from_numpy(stages.rows),
        torch.from_numpy(network.head.bias).double(),
    ).to(dtype)
