"""A classifier of ours as a judge of images: its features, its confidence.

Notable: features are what its head takes. No network is downloaded: a Fréchet distance of these
features compares generators with each other, and not with FIDs of the literature.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline import config as configs
from pipeline.checkpoint import load_chosen
from pipeline.config import RunConfig
from pipeline.models import build_model
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
        if not (run / "config.yaml").is_file():
            raise ValueError(f"classifier {run} is no run directory: give that of a classifier")
        self.config: RunConfig = configs.load(run / "config.yaml")
        if self.config.task.startswith("ddpm"):
            raise ValueError(f"classifier {run} is the run of a generator: give a classifier's")
        model = self.config.model
        network: nn.Module = build_model(
            model.name,
            model.num_classes,
            model.image_size,
            in_channels=model.in_channels,
            **model.options,
        )
        chosen = load_chosen(run / "checkpoints", "newest", say)
        network.load_state_dict(chosen.tensors.part("model"))
        self.name = f"{run} after step {chosen.step}"
        self._network = network.to(device).eval()
        self._device = device

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Make sure that it judges such images.

        Raises:
            ValueError: it takes others.
        """
        model = self.config.model
        takes = (model.in_channels, model.image_size, model.image_size)
        if takes != image_shape or model.num_classes != num_classes:
            raise ValueError(
                f"classifier {self.config.directory} tells {model.num_classes} classes of images "
                f"of {'x'.join(map(str, takes))}, and the generator draws {num_classes} of "
                f"{'x'.join(map(str, image_shape))}: give one of the same data"
            )

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
