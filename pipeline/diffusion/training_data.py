"""What a generator was trained on, written into its run directory when it starts.

Notable: samples can be drawn, and say what they come from, where the training data is not.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.data.base import BlockLoader

FILE = "training_data.json"


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

    @classmethod
    def of(cls, loader: BlockLoader) -> TrainingData:
        """Read all of it once."""
        info = loader.info
        return cls(
            info.spec,
            info.num_samples,
            list(info.image_shape),
            list(info.class_names),
            loader.dataset_sha256(),
        )

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
