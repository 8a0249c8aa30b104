"""Saving beside training: what is saved, when it is committed; training does not notice."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pipeline.checkpoint import load_chosen, saver
from pipeline.training.callbacks import Callback, EpochRecord, StepRecord
from pipeline.training.checkpointing import Checkpointing
from tests.checkpoint.saving import names, no_damage
from tests.training.test_checkpointing import Run, steps
from tests.training.toy import SAMPLES, Recorder, ToyLoader, toy_engine, toy_loop


class Watcher(Recorder):
    """Keeps every step's record and state; comes before the callback that saves."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.states: dict[int, dict[str, Tensor]] = {}
        self.on_disk: dict[int, list[int]] = {}

    def on_step_end(self, record: StepRecord) -> None:
        super().on_step_end(record)
        self.states[record.step] = flat(self.run)
        self.on_disk[record.step] = steps(self.run.root)


def flat(run: Run) -> dict[str, Tensor]:
    """Everything that a run saves, copied."""
    parts = {**run.engine.state(), "threatening": run.memory.tensors()}
    return {f"{part}/{n}": t.clone() for part, ts in parts.items() for n, t in ts.items()}


def go(run: Run, *callbacks: Callback) -> None:
    toy_loop(run.engine, [run.memory, *callbacks], **run.plan).run()


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes each rank's writing take so many seconds longer."""
    write = saver.write_share

    def slow(seconds: float) -> None:
        def later(*arguments):
            time.sleep(seconds)
            return write(*arguments)

        monkeypatch.setattr(saver, "write_share", later)

    return slow


@pytest.mark.parametrize("seconds", [0.0, 0.15])
def test_every_checkpoint_is_its_step_to_the_bit(tmp_path: Path, slowly, seconds: float) -> None:
    """The copy is taken before the next update, however long the writing takes."""
    slowly(seconds)
    run = Run(tmp_path, every=1, epochs=2)
    watcher = Watcher(run)
    go(run, watcher, run.checkpointing)
    assert steps(tmp_path) == list(range(1, 9))
    for step, state in watcher.states.items():
        tensors = load_chosen(tmp_path, str(step), no_damage).tensors
        for label, expected in state.items():
            part, _, name = label.partition("/")
            if part != "threatening" or step % 4:  # an epoch's end comes after its last step
                assert torch.equal(tensors.whole(part, name), expected), f"{step}: {label}"


def test_training_does_not_notice(tmp_path: Path, slowly) -> None:
    slowly(0.1)
    saving, plain = Run(tmp_path, every=2), Run(tmp_path / "unused")
    go(saving, saving.checkpointing)
    go(plain)
    with_it, without = flat(saving), flat(plain)
    assert [name for name in without if not torch.equal(without[name], with_it[name])] == []


def test_it_is_committed_in_a_step_in_which_nobody_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun after step 2, held until step 5; its name is there before the next save."""
    write, let_go = saver.write_share, threading.Event()

    def held(*arguments):
        assert let_go.wait(60)
        return write(*arguments)

    class Asking(Callback):
        steps = 0

        def due(self) -> bool:
            return self.steps == 1

        def on_step_end(self, record: StepRecord) -> None:
            self.steps = record.step
            if record.step == 5:
                let_go.set()
            if record.step > 5:
                time.sleep(0.3)  # a step that is long enough to write a toy

    monkeypatch.setattr(saver, "write_share", held)
    run = Run(tmp_path, samples=300)
    watcher = Watcher(run)
    loop = toy_loop(run.engine, [run.memory, watcher, Asking(), run.checkpointing], max_steps=10)
    loop.loader = ToyLoader(run.engine.world, samples=300)  # 18 steps an epoch
    loop.run()
    assert [record.due for record in watcher.records] == [False, True] + 8 * [False]
    assert [record.busy for record in watcher.records[:5]] == [0, 0, 1, 1, 1]
    assert all(watcher.on_disk[step] == [] for step in range(1, 6))
    assert watcher.on_disk[10] == [2]
    assert steps(tmp_path) == [2, 10]


def test_saves_are_committed_in_order(
    tmp_path: Path, slowly, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(0.1)
    commit, committed = saver.commit, []

    def noted(folder: Path, step: int, records) -> Path:
        committed.append((step, steps(tmp_path)))
        return commit(folder, step, records)

    monkeypatch.setattr(saver, "commit", noted)
    Run(tmp_path, every=1, epochs=1).go()
    assert committed == [(step, list(range(1, step))) for step in range(1, 5)]


def test_left_by_an_exception_the_open_save_is_lost_and_nothing_else(
    tmp_path: Path, slowly
) -> None:
    run = Run(tmp_path, every=2)
    go(run, run.checkpointing)

    class Failing(Callback):
        def on_step_end(self, record: StepRecord) -> None:
            if record.step == 3:
                raise KeyError("something else")

    slowly(0.5)
    other = Run(tmp_path / "b", every=2)
    other.checkpointing.save(1)
    other.checkpointing.finish()
    with pytest.raises(KeyError):
        go(other, other.checkpointing, Failing())
    assert steps(tmp_path / "b") == [1]
    assert len(names(tmp_path / "b")) == 2, "and what was begun, beside"
    again = Run(tmp_path / "b", every=2, max_steps=5)
    again.go()
    assert steps(tmp_path / "b") == [1, 2, 4, 5]
    assert all(name.startswith("step_") for name in names(tmp_path / "b"))


def test_minutes_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 50 seconds, saves after two minutes: counted from the start and from each save."""
    now = 1000.0

    class Clock(Callback):
        def on_micro_batch(self, batch: object, losses: object) -> None:
            nonlocal now
            now += 50.0

        def on_step_end(self, record: StepRecord) -> None:
            run.checkpointing.finish()  # a save that is open puts off the next

    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("pipeline.training.checkpointing.time", clock)
    run = Run(tmp_path)
    run.checkpointing = Checkpointing(
        tmp_path, run.engine, {}, ToyLoader(run.engine.world), {}, keep=50, every_minutes=2
    )
    go(run, Clock(), run.checkpointing)
    # 3 (150 s), the epoch's end 4; 7, 8; …
    assert steps(tmp_path) == [3, 4, 7, 8, 11, 12, 15, 16, 19, 20]


def test_no_minutes_no_clock(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.checkpointing.due() is False


def test_the_validation_of_the_epoch_is_in_its_checkpoint(tmp_path: Path) -> None:
    """Values 0.3, 0.8, 0.5, …: the best stays beside the newest, after a restart too."""
    values = [0.3, 0.8, 0.5, 0.4, 0.2]

    class Validation(Callback):
        def on_epoch_end(self, record: EpochRecord) -> None:
            record.numbers["validation"] = {"vra_estimate": values[record.epoch]}

    def part_of_it(max_steps: int) -> None:
        run = Run(tmp_path, max_steps=max_steps)
        run.checkpointing = Checkpointing(
            tmp_path, run.engine, {"threatening": run.memory}, ToyLoader(run.engine.world), {},
            every_steps=3, keep=1, keep_best=1,
        )  # fmt: skip
        loop = toy_loop(run.engine, [run.memory, Validation(), run.checkpointing], **run.plan)
        loop.run(run.checkpointing.restore())

    part_of_it(11)
    assert steps(tmp_path) == [8, 11]
    part_of_it(20)
    assert steps(tmp_path) == [8, 20]
    best = load_chosen(tmp_path, "best", no_damage)
    assert best.step == 8 and best.state["validation"] == {"vra_estimate": 0.8}
    assert best.state["num_samples"] == SAMPLES
    toy_engine().load_state(best.tensors)
