"""Small networks, their exact evaluation in rational numbers, and images in memory."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import torch

from pipeline.data.base import BLOCK, DatasetInfo
from pipeline.layers.conv2d import ExportedConv2d
from pipeline.layers.dense import ExportedDense
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.flatten import ExportedFlatten
from pipeline.layers.head import ExportedHead
from pipeline.layers.minmax import ExportedMinMax
from pipeline.layers.network import ExportedNetwork
from pipeline.layers.shift import ExportedShift
from pipeline.types import Batch
from tests.certify.kinds import exact_dot, fractions, plain

CLASSES = 3


def small_network(seed: int, scale: float = 1.0, classes: int = CLASSES) -> ExportedNetwork:
    """shift, padded conv, MinMax, strided conv, flatten, dense, MinMax, head; inputs [1, 4, 4]."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        spread = scale / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1 * scale
        return (spread * rng.standard_normal(shape)).astype(np.float32)

    return ExportedNetwork(
        layers=(
            ExportedShift("shift", (1, 4, 4), 0.3),
            ExportedConv2d("stem", (1, 4, 4), draw(4, 1, 3, 3), draw(4), stride=1, padding=1),
            ExportedMinMax("stem_act", (4, 4, 4)),
            ExportedConv2d("neck", (4, 4, 4), draw(2, 4, 2, 2), draw(2), stride=2, padding=0),
            ExportedFlatten("flatten", (2, 2, 2)),
            ExportedDense("dense", (8,), draw(6, 8), draw(6)),
            ExportedMinMax("dense_act", (6,)),
        ),
        head=ExportedHead(draw(classes, 6), draw(classes)),
        input_shape=(1, 4, 4),
    )


def linear_network(weight: np.ndarray, bias: np.ndarray, shape: tuple[int, int, int]):
    """flatten and a head: logits are linear in the pixels. weight [K, C·H·W], bias [K]."""
    head = ExportedHead(weight.astype(np.float32), bias.astype(np.float32))
    return ExportedNetwork((ExportedFlatten("flatten", shape),), head, shape)


def exact_logits(network: ExportedNetwork, image: np.ndarray) -> list[Fraction]:
    """The real function at the rational point v/255, by plain loops."""
    x = np.array([Fraction(int(v), 255) for v in image.ravel()]).reshape(image.shape)
    for layer in network.layers:
        x = exact_layer(layer, x)
    weight, bias = fractions(network.head.weight), fractions(network.head.bias)
    return [row.dot(x) + b for row, b in zip(weight, bias, strict=True)]


def exact_layer(layer: ExportedLayer, x: np.ndarray) -> np.ndarray:
    """One layer on an array of Fractions."""
    return plain(layer, x, exact_dot)


class ArrayLoader:
    """A BlockLoader over arrays that remembers which blocks it was asked for."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, classes: int = CLASSES) -> None:
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)
        names = tuple(f"class {number}" for number in range(classes))
        shape = tuple(images.shape[1:])
        self.info = DatasetInfo("arrays", len(images), shape, classes, names, True)
        self.num_blocks = -(-len(images) // BLOCK)
        self.asked: list[int] = []

    def blocks(self, indices: Sequence[int]) -> Iterator[Batch]:
        for block in indices:
            self.asked.append(block)
            ids = torch.arange(block * BLOCK, min((block + 1) * BLOCK, len(self.images)))
            yield Batch(self.images[ids], self.labels[ids], ids, torch.zeros(len(ids)).bool())

    def pictures(self, indices: Sequence[int]) -> torch.Tensor:
        return self.images[list(indices)]

    def dataset_sha256(self) -> str:
        return f"{int(self.images.sum()):064x}"

    def close(self) -> None:
        pass


def random_images(seed: int, count: int, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 1, 4, 4] and labels [N]."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    return images, rng.integers(0, classes, count)


def labelled_images(network: ExportedNetwork, seed: int, count: int):
    """Random images with the labels that the network gives nine of ten."""
    from pipeline.certify import certifier

    images, labels = random_images(seed, count, network.head.num_classes)
    verdicts = certifier(network).certify(torch.from_numpy(images), torch.from_numpy(labels))
    keep = np.random.default_rng(seed).random(count) < 0.9
    return images, np.where(keep, verdicts.predict, labels)
