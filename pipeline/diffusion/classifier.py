"""A classifier of ours as a judge of images: its features, its confidence.

Notable: features are what its head takes. No network is downloaded: a Fréchet distance of these
features compares generators with each other, and not with FIDs of the literature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline import config as configs
from pipeline.checkpoint import load_chosen, load_model
from pipeline.config import RunConfig
from pipeline.models import model_of
from pipeline.progress import say


class Judge:
    """The classifier of a run, from its newest checkpoint. Made on every rank together.

    Args:
        run: its run directory.
        device: where it computes.

    Raises:
        ValueError: it is no run of a classifier, or has no checkpoint.
    """

    def __init__(self, run: Path, device: torch.device) -> None:
        self.config = config_of(run)
        network: nn.Module = model_of(self.config.model)
        chosen = load_chosen(run / "checkpoints", "newest", say)
        load_model(chosen.tensors, network)
        self.name = f"{run} after step {chosen.step}"
        self.weights_sha256 = weights_sha256(network)
        self._run = run
        self._network = network.to(device).eval()
        self._device = device

    def check(self, image_shape: Sequence[int], class_names: Sequence[str]) -> None:
        """As `check_classifier`, of this one."""
        check_classifier(self._run, image_shape, class_names)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """[B, C, H, W] uint8 -> [B, K] float32."""
        logits: Tensor = self._network(self._prepared(images)).logits
        return logits.float()

    def confidence(self, images: Tensor, labels: Tensor) -> Tensor:
        """The softmax probability of each label, [B] float32 on the CPU."""
        probabilities = self.logits(images).softmax(1).cpu()
        return probabilities.gather(1, labels[:, None])[:, 0]

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the head takes: [B, C, H, W] uint8 -> [B, d] float64."""
        taken: list[Tensor] = []
        head = self._network.get_submodule("head")
        handle = head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
        try:
            self._network(self._prepared(images))
        finally:
            handle.remove()
        return taken[0].flatten(1).double()

    def _prepared(self, images: Tensor) -> Tensor:
        return images.to(self._device).float() / 255


def config_of(run: Path) -> RunConfig:
    """Of a classifier's run.

    Raises:
        ValueError: it is no run of a classifier.
    """
    if not (run / "config.yaml").is_file():
        raise ValueError(f"classifier {run} is no run directory: give that of a classifier")
    config = configs.load(run / "config.yaml")
    if config.task.startswith("ddpm"):
        raise ValueError(f"classifier {run} is the run of a generator: give a classifier's")
    return config


def check_classifier(run: Path, image_shape: Sequence[int], class_names: Sequence[str]) -> None:
    """Make sure that a classifier judges such images; its weights are not read.

    Names of classes are compared where its certificate has them: the same name at another place is
    another order. Names that it does not have at all may be other words for the same.

    Args:
        image_shape: [C, H, W].
        class_names: of the generator's training set, in order.

    Raises:
        ValueError: it is no classifier's run, or takes other images, or other classes.
    """
    model = config_of(run).model
    takes = (model.in_channels, model.image_size, model.image_size)
    if takes != tuple(image_shape) or model.num_classes != len(class_names):
        raise ValueError(
            f"classifier {run} tells {model.num_classes} classes of images of "
            f"{'x'.join(map(str, takes))}, and the generator draws {len(class_names)} of "
            f"{'x'.join(map(str, image_shape))}: give one of the same data"
        )
    theirs = _certified_names(run)
    for number, name in enumerate(class_names):
        if name in theirs and theirs[number] != name:
            raise ValueError(
                f"classifier {run} calls class {number} {theirs[number]!r}, and the generator "
                f"calls it {name!r}: give one of the same classes in the same order"
            )


def weights_sha256(network: nn.Module) -> str:
    """Over names and values of all weights."""
    sha256 = hashlib.sha256(b"certline weights 1\n")
    for name, value in sorted(network.state_dict().items()):
        sha256.update(f"{name} {list(value.shape)}\n".encode())
        sha256.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()


def _certified_names(run: Path) -> list[str]:
    """Of the classes in a run's certificate; empty where it has none."""
    try:
        tree = json.loads((run / "certificate" / "certificate.json").read_text())
        return [str(name) for name in tree["class_names"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
