"""Checks of saving that two training processes make together; `test_checkpointing_ranks.py`
starts them under torch.distributed.run, with a folder as argument."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

from pipeline import distributed
from pipeline.checkpoint import saver
from pipeline.distributed import World, barrier, gather_objects
from pipeline.training import checkpointing
from pipeline.training.callbacks import Callback, StepRecord
from tests.training.test_checkpointing import Run, steps
from tests.training.toy import Recorder, ToyLoader, toy_loop


def minutes_are_rank_0s(root: Path, world: World) -> None:
    """Rank 1's clock gallops and counts for nothing; rank 0's makes both save the same step."""
    seconds = 50.0 if world.is_main else 5000.0
    now = 0.0

    class Clock(Callback):
        def on_micro_batch(self, batch: object, losses: object) -> None:
            nonlocal now
            now += seconds

        def on_step_end(self, record: StepRecord) -> None:
            run.checkpointing.finish()

    checkpointing.time = SimpleNamespace(monotonic=lambda: now)  # type: ignore[assignment]
    try:
        run = Run(root)
        run.checkpointing = checkpointing.Checkpointing(
            root, run.engine, {}, ToyLoader(world), {}, keep=50, every_minutes=2
        )
        toy_loop(run.engine, [Clock(), run.checkpointing], epochs=2).run()
    finally:
        checkpointing.time = time
    barrier()
    assert steps(root) == [3, 4, 7, 8]


def all_hear_that_one_is_busy(root: Path, world: World) -> None:
    """Only rank 1 takes long; every rank sees the same count and commits in the same step."""
    write = saver.write_share

    def slow(*arguments):
        time.sleep(1.0 if world.rank == 1 else 0.0)
        return write(*arguments)

    saver.write_share = slow
    try:
        run, recorder = Run(root, every=1, max_steps=3), Recorder()
        toy_loop(run.engine, [run.memory, recorder, run.checkpointing], **run.plan).run()
    finally:
        saver.write_share = write
    counts = [record.busy for record in recorder.records]
    assert gather_objects(counts) == [counts] * 2
    assert steps(root) == [1, 2, 3]


def only_rank_0_writes_what_all_hold(root: Path, world: World) -> None:
    """Under DDP there is one copy in memory and on disk."""
    run = Run(root, max_steps=6)
    state = run.engine.state()
    assert bool(state["model"]) == world.is_main
    run.go()
    barrier()
    files = sorted(path.name for path in (root / "step_000006").iterdir())
    assert files == [
        "manifest.json", "model.safetensors", "optimizer.safetensors", "rng.safetensors",
        "state.json", "threatening.safetensors",
    ]  # fmt: skip


def restored_from_one_process(root: Path, world: World) -> None:
    """Both go on from what one process wrote (the test did), to its next epoch's end."""
    run = Run(root, max_steps=8)
    assert run.checkpointing.restore() == 6
    toy_loop(run.engine, [run.memory, run.checkpointing], **run.plan).run(6)
    barrier()
    assert steps(root) == [4, 6, 8]


CHECKS = [
    minutes_are_rank_0s,
    all_hear_that_one_is_busy,
    only_rank_0_writes_what_all_hold,
    restored_from_one_process,
]


def main() -> None:
    """All checks; one that fails ends the process."""
    world, root = distributed.start(), Path(sys.argv[1])
    for check in CHECKS:
        check(root / check.__name__, world)
        barrier()
        if world.is_main:
            print(check.__name__, flush=True)
    distributed.stop()


if __name__ == "__main__":
    main()
