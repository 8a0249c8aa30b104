"""Saving and restoring a run through files: positions, memories, refusals."""

from pathlib import Path

import pytest
import torch

from pipeline.training.callbacks import Callback
from pipeline.training.checkpointing import Checkpointing
from pipeline.training.threatening import ThreateningClasses
from tests.training.toy import (
    SAMPLES,
    STEPS_PER_EPOCH,
    ToyLoader,
    toy_engine,
    toy_loop,
)


class Run:
    """A toy run with a checkpoint folder."""

    def __init__(
        self, root: Path, every: int = 0, samples: int = SAMPLES, records=(), **plan
    ) -> None:
        self.engine = toy_engine()
        self.memory = ThreateningClasses(samples, self.engine.device)
        loader = ToyLoader(self.engine.world, samples=samples)
        self.checkpointing = Checkpointing(
            root,
            self.engine,
            {"threatening": self.memory},
            loader,
            {"name": "toy"},
            every,
            keep=50,
            records=records,
        )
        self.plan = plan
        self.root = root

    def go(self) -> dict[str, torch.Tensor]:
        """Restore, train, and give everything that is saved."""
        callbacks = [self.memory, self.checkpointing]
        loop = toy_loop(self.engine, callbacks, **self.plan)
        loop.run(self.checkpointing.restore())
        parts = {**self.engine.state(), "threatening": self.memory.tensors()}
        return {f"{part}/{n}": t.clone() for part, ts in parts.items() for n, t in ts.items()}


def steps(root: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in root.glob("step_*"))


def test_when_it_saves(tmp_path: Path) -> None:
    Run(tmp_path / "a").go()
    assert steps(tmp_path / "a") == [4, 8, 12, 16, 20]
    Run(tmp_path / "b", every=3).go()
    assert steps(tmp_path / "b") == [3, 4, 6, 8, 9, 12, 15, 16, 18, 20]
    Run(tmp_path / "c", max_steps=6).go()
    assert steps(tmp_path / "c") == [4, 6]


def test_records_are_on_the_disk_before_the_checkpoint_that_implies_them(
    tmp_path: Path,
) -> None:
    seen: list[list[int]] = []

    class Record(Callback):
        def sync(self) -> None:
            seen.append(steps(tmp_path / "run"))

    run = Run(tmp_path / "run", max_steps=6, records=[Record()])
    run.go()
    assert seen == [[], [4]]


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_stopped_and_restored_ends_with_the_same_bits(stop: int, tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", epochs=2).go()
    Run(tmp_path / "parts", epochs=2, max_steps=stop).go()
    parts = Run(tmp_path / "parts", epochs=2).go()
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_the_state_says_where_the_run_is(tmp_path: Path) -> None:
    from pipeline.checkpoint import load_latest

    Run(tmp_path, max_steps=STEPS_PER_EPOCH + 1).go()
    checkpoint = load_latest(tmp_path, print)
    assert checkpoint is not None and checkpoint.step == 5
    assert checkpoint.state == {
        "epoch": 1, "step_in_epoch": 1, "num_samples": SAMPLES, "world_size": 1,
        "validation": None, "config": {"name": "toy"},
    }  # fmt: skip
    for part in ("model", "optimizer", "threatening", "rng"):
        assert checkpoint.tensors.names(part)


def test_other_training_data_is_refused(tmp_path: Path) -> None:
    Run(tmp_path, max_steps=1).go()
    with pytest.raises(ValueError, match=r"data.train toy has 69 images, and had 70"):
        Run(tmp_path, samples=69).checkpointing.restore()


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background of which step it happens is chance; the sentence and the rest are not."""
    Run(tmp_path, max_steps=2).go()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.checkpoint.saver.write_share", full)
    with pytest.raises(OSError, match=r"step_000004 could not be written .*No space left"):
        Run(tmp_path).go()
    assert [path.name for path in tmp_path.iterdir()] == ["step_000002"]
