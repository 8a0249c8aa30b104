"""What a generator was trained on, written into its run directory when it starts.

Notable: samples can be drawn, and say what they come from, where the training data is not. The
note has all that tells the data from others (`pipeline.data.marks`), of the whole set where the
generator learnt some of its classes: mixed training refuses samples if that is its validation set.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.data.base import BlockLoader
from pipeline.data.marks import marks_of
from pipeline.data.sources import Split

FILE = "training_data.json"
SPLIT: Split = "train"
"""The part of a source that generators learn."""


@dataclass(frozen=True)
class TrainingData:
    """Facts of a data set."""

    spec: str
    num_samples: int
    image_shape: list[int]
    """[C, H, W]."""
    class_names: list[str]
    dataset_sha256: str
    """The content hash of all pixels and labels (`pipeline.data.content`)."""
    split: str = SPLIT
    known_as: dict[str, list[str]] | None = None
    """The marks of the whole set, by their kind; None in a run of an older version."""

    @classmethod
    def of(cls, loader: BlockLoader) -> TrainingData:
        """Read all of it once."""
        info = loader.info
        known_as: dict[str, list[str]] = {}
        for kind, value in sorted(marks_of(info.spec, SPLIT)):
            known_as.setdefault(kind, []).append(value)
        return cls(
            info.spec,
            info.num_samples,
            list(info.image_shape),
            list(info.class_names),
            loader.dataset_sha256(),
            known_as=known_as,
        )

    def on_card(self) -> dict[str, Any]:
        """What data cards of samples say of it."""
        facts: dict[str, Any] = {
            "spec": self.spec,
            "split": self.split,
            "num_samples": self.num_samples,
            "dataset_sha256": self.dataset_sha256,
        }
        return facts if self.known_as is None else facts | {"known_as": self.known_as}

    @classmethod
    def read(cls, run: Path) -> TrainingData:
        """From a run directory.

        Raises:
            ValueError: it holds no generator.
        """
        path = run / FILE
        if not path.is_file():
            raise ValueError(
                f"{run} holds no generator ({FILE} is missing): train one with tools/ddpm_train.py"
            )
        return cls(**json.loads(path.read_text()))

    @classmethod
    def note(cls, loader: BlockLoader, run: Path) -> None:
        """Write it into a run directory; whole or not at all.

        Where checkpoints are there, what was written before them stays: reading a large data set
        takes minutes, and a resume makes sure itself that it has as many images as before.
        """
        if (run / FILE).is_file() and any(run.glob("checkpoints/step_*")):
            return
        facts = cls.of(loader)
        beside = run / f".{FILE}.tmp"
        beside.write_text(json.dumps(asdict(facts), indent=1, ensure_ascii=False) + "\n")
        beside.replace(run / FILE)
