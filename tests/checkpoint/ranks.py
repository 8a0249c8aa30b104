"""Checks that several real processes make together; `test_ranks.py` starts them.

Run as a module under torch.distributed.run, with a folder of one's own as argument. Each check
asserts on every rank; a name is printed by rank 0 when all have passed it.
"""

import errno
import os
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeline import distributed
from pipeline.checkpoint import Fragment, Saver, load_chosen, load_latest, loading, saver
from pipeline.checkpoint.share import write_share
from pipeline.distributed import World, barrier, gather_objects
from tests.checkpoint.saving import STATE, assert_saved, flip, names, no_damage

VALUES = torch.arange(1000.0)


def mine(world: World, step: int) -> dict[str, dict[str, torch.Tensor | Fragment]]:
    """This rank's fragment of the step's weight; rank 0 has a buffer too."""
    width = -(-len(VALUES) // world.size)
    start = world.rank * width
    values = VALUES[start : start + width] + step
    parts: dict[str, dict[str, torch.Tensor | Fragment]]
    parts = {"model": {"weight": Fragment(values, start, (10, 100))}, "optimizer": {}}
    if world.is_main:
        parts["model"]["buffer"] = torch.tensor([float(step)])
    return parts


def whole(step: int) -> dict[str, dict[str, torch.Tensor]]:
    """What the ranks' parts are together."""
    return {
        "model": {"weight": (VALUES + step).view(10, 100), "buffer": torch.tensor([float(step)])}
    }


def save(root: Path, world: World, *steps: int) -> None:
    """Save steps, one after the other."""
    writer = Saver(root, world, keep=5)
    for step in steps:
        writer.finish()
        writer.begin(step, mine(world, step), STATE)
    writer.finish()
    barrier()


def agreed(value: object) -> None:
    """It is the same on all ranks."""
    everywhere = gather_objects(value)
    assert everywhere == [value] * len(everywhere), everywhere


def there_and_back(root: Path, world: World) -> None:
    """Every rank reads the shares of all."""
    save(root, world, 1, 2)
    assert_saved(load_latest(root, no_damage), 2, whole(2))
    found = load_chosen(root, "1", no_damage)
    assert (
        found.tensors.piece("model", "weight", 300, 700).tolist() == (VALUES[300:700] + 1).tolist()
    )
    shards = [name for name in names(root / "step_000002") if "-of-" in name]
    assert len(shards) == world.size


def damage_is_one_verdict(root: Path, world: World) -> None:
    """Whichever file is damaged and whoever verifies it: all skip it, in the same words."""
    save(root, world, 1)
    for name in [f"model-{n + 1:05d}-of-{world.size:05d}.safetensors" for n in range(world.size)]:
        for damage in (lambda p: flip(p, -1), lambda p: os.truncate(p, 100), lambda p: p.unlink()):
            save(root, world, 2)
            if world.is_main:
                damage(root / "step_000002" / name)
            barrier()
            said: list[str] = []
            assert_saved(load_latest(root, said.append), 1, whole(1))
            assert f"step_000002: {name} " in said[0] and "using step_000001" in said[0]
            agreed(said)
    if world.is_main:
        flip(root / "step_000001" / "manifest.json", 60)
    barrier()
    try:
        load_latest(root, no_damage)
    except ValueError as error:
        assert "is whole" in str(error) and "step_000001" in str(error)
        agreed(str(error))
    else:
        raise AssertionError("a damaged one was used")


@contextmanager
def small_files(limit: int):
    """No file of this process can be longer than so many bytes; writing more is an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def a_full_disk_is_an_error_of_all(root: Path, world: World) -> None:
    """The last rank cannot write; the sentence is the same everywhere, nothing is left behind."""
    save(root, world, 1)
    last = world.rank == world.size - 1
    with small_files(500 if last else resource.RLIM_INFINITY):
        try:
            save(root, world, 2)
        except OSError as error:
            assert error.errno == errno.EFBIG
            assert "step_000002 could not be written (File too large)" in str(error)
            agreed(str(error))
        else:
            raise AssertionError("it was saved")
    barrier()
    assert names(root) == ["step_000001"]
    barrier()  # the next save begins with another folder
    save(root, world, 2)
    assert_saved(load_latest(root, no_damage), 2, whole(2))


def rank_0_cannot_begin(root: Path, world: World) -> None:
    """No folder, no save; nobody waits for anybody."""
    if world.is_main:
        root.write_text("in the way")
    barrier()
    try:
        save(root, world, 1)
    except OSError as error:
        assert "step_000001 could not be written" in str(error)
        agreed(str(error))
    else:
        raise AssertionError("it was saved")


def a_slow_rank_is_waited_for(root: Path, world: World) -> None:
    """Busy is what this rank's thread is; the commit comes when the slowest has written."""

    def slow(*arguments):
        time.sleep(0.3 * world.rank)
        return write_share(*arguments)

    saver.write_share = slow
    try:
        writer = Saver(root, world)
        writer.begin(3, mine(world, 3), STATE)
        agreed(writer.is_open)
        polls = 0
        while True:
            busy = sum(gather_objects(writer.busy))
            if not busy and writer.is_open:
                writer.advance()
            elif not busy:
                break
            polls += 1
            time.sleep(0.01)
        assert polls > 3
        barrier()
        assert_saved(load_latest(root, no_damage), 3, whole(3))
    finally:
        saver.write_share = write_share


def storage_must_be_shared(root: Path, world: World) -> None:
    """A run directory on each node's own disk is refused in one sentence."""
    save(root, world, 1)
    elsewhere = root if world.is_main else root / "own disk"
    loading.PATIENCE = 0.5
    try:
        load_latest(elsewhere, no_damage)
    except ValueError as error:
        assert "rank 0: step_000001, rank 1: none" in str(error).replace(str(elsewhere), "")
        assert "storage that all nodes share" in str(error)
    else:
        raise AssertionError("it was used")


def one_rank_sees_it_late(root: Path, world: World) -> None:
    """A network file system may show a new name later on one node: that is waited for."""
    save(root, world, 1)
    candidates, looks = loading.candidates, 0

    def late(folder: Path):
        nonlocal looks
        looks += 1
        return [] if world.rank == 1 and looks == 1 else candidates(folder)

    loading.candidates = late
    loading.PATIENCE = 30.0
    try:
        assert_saved(load_latest(root, no_damage), 1, whole(1))
    finally:
        loading.candidates = candidates


CHECKS = [
    there_and_back,
    damage_is_one_verdict,
    a_full_disk_is_an_error_of_all,
    rank_0_cannot_begin,
    a_slow_rank_is_waited_for,
    storage_must_be_shared,
    one_rank_sees_it_late,
]


def save_for_ever(root: Path, world: World, step: int) -> None:
    """What is killed: one save after the other, of 1.6 MB."""
    print(f"rank {world.rank} is writing", flush=True)
    writer = Saver(root, world, keep=2)
    while True:
        step += 1
        writer.finish()
        writer.begin(step, big(world, step), STATE)


def big(world: World, step: int) -> dict[str, dict[str, Fragment]]:
    """This rank's half of a longer tensor, all values the step."""
    half = torch.full((200_000,), float(step))
    return {"model": {"w": Fragment(half, 200_000 * world.rank, (400_000,))}}


def main() -> None:
    """All checks, or `save_for_ever`; a check that fails ends the process."""
    world, root = distributed.start(), Path(sys.argv[1])
    if len(sys.argv) > 2:
        save_for_ever(root, world, int(sys.argv[2]))
    for check in CHECKS:
        check(root / check.__name__, world)
        barrier()
        if world.is_main:
            print(check.__name__, flush=True)
    distributed.stop()


if __name__ == "__main__":
    main()
