"""A checkpoint is whole, or named as damaged and passed over for the one before it."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.checkpoint import Checkpoint, files, load_latest, save_checkpoint, store

ROOT = Path(__file__).parents[2]


def checkpoint(step: int, size: int = 50) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    whole = torch.randn(size, generator=generator)
    return Checkpoint(
        step,
        {
            "model": {
                "weight": whole.view(-1, 5),
                "half": whole.bfloat16(),
                "shared": whole[:3],
                "transposed": whole.view(-1, 5).T,
                "scalar": torch.tensor(step, dtype=torch.int64),
            },
            "rng": {"rank0.cpu": torch.arange(9, dtype=torch.uint8)},
        },
        {"epoch": step // 10, "nested": {"list": [0.1, 1e-300]}, "name": "täst"},
    )


def assert_equal(found: Checkpoint | None, saved: Checkpoint) -> None:
    assert found is not None
    assert (found.step, found.state) == (saved.step, saved.state)
    assert found.tensors.keys() == saved.tensors.keys()
    for part, tensors in saved.tensors.items():
        assert found.tensors[part].keys() == tensors.keys()
        for name, tensor in tensors.items():
            again = found.tensors[part][name]
            assert again.dtype == tensor.dtype
            assert torch.equal(again, tensor), f"{part}/{name}"


def no_damage(sentence: str) -> None:
    raise AssertionError(sentence)


def test_it_comes_back_to_the_bit(tmp_path: Path) -> None:
    saved = checkpoint(7)
    path = save_checkpoint(tmp_path, saved, keep=2)
    assert path == tmp_path / "step_000007"
    assert_equal(load_latest(tmp_path, no_damage), saved)


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(1), keep=1)
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_none_yet_is_none(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "nowhere", no_damage) is None
    assert load_latest(tmp_path, no_damage) is None


def test_the_newest_k_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000015", "step_000020"]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "flipped byte": lambda p: flip(p / "model.safetensors", -3),
    "flipped header": lambda p: flip(p / "model.safetensors", 0),
    "truncated": lambda p: os.truncate(p / "rng.safetensors", 20),
    "emptied": lambda p: os.truncate(p / "state.json", 0),
    "missing tensors": lambda p: (p / "model.safetensors").unlink(),
    "missing manifest": lambda p: (p / "manifest.json").unlink(),
    "altered state": lambda p: (p / "state.json").write_text("{}"),
    "altered manifest": lambda p: flip(p / "manifest.json", 60),
    "no manifest at all": lambda p: (p / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_used(tmp_path: Path, damage) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=3)
    damage(save_checkpoint(tmp_path, checkpoint(2), keep=3))
    said: list[str] = []
    assert_equal(load_latest(tmp_path, said.append), checkpoint(1))
    (sentence,) = said
    assert "step_000002" in sentence
    assert "using step_000001 instead" in sentence


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_with_none_left_it_refuses(tmp_path: Path, damage) -> None:
    damage(save_checkpoint(tmp_path, checkpoint(2), keep=3))
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole .*step_000002"):
        load_latest(tmp_path, no_damage)


def rewrite_manifest(folder: Path, **changes: object) -> None:
    from pipeline.checkpoint.manifest import _digest

    body = json.loads((folder / "manifest.json").read_text())
    del body["sha256"]
    body.update(changes)
    body["sha256"] = _digest(body)
    (folder / "manifest.json").write_text(json.dumps(body))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b"])
def test_names_that_lead_out_are_damage(tmp_path: Path, name: str) -> None:
    path = save_checkpoint(tmp_path, checkpoint(2), keep=3)
    entry = {"name": name, "part": "model", "size": 1, "sha256": "0"}
    rewrite_manifest(path, files=[entry])
    with pytest.raises(ValueError, match="no plain file name"):
        load_latest(tmp_path, no_damage)


def test_another_format_says_so(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(2), keep=3)
    rewrite_manifest(path, format="certline checkpoint 9")
    with pytest.raises(ValueError, match="continue the run with the version that began it"):
        load_latest(tmp_path, no_damage)


def test_a_full_disk_leaves_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=2)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"step_000002 could not be written .*No space left"):
        save_checkpoint(tmp_path, checkpoint(2), keep=2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]
    assert_equal(load_latest(tmp_path, no_damage), checkpoint(1))


def test_an_old_one_that_cannot_be_deleted_is_not_called_unwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=1)

    def busy(path: Path, **_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(store.shutil, "rmtree", busy)
    with pytest.raises(OSError, match=r"busy: .*step_000001") as caught:
        save_checkpoint(tmp_path, checkpoint(2), keep=1)
    assert "could not be written" not in str(caught.value)
    monkeypatch.undo()
    assert_equal(load_latest(tmp_path, no_damage), checkpoint(2))
    save_checkpoint(tmp_path, checkpoint(3), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000003"]


def test_damaged_later_ones_do_not_push_out_whole_ones(tmp_path: Path) -> None:
    """After falling back behind damaged checkpoints, a run must not prune what it fell back to."""
    for step in (1, 2, 3):
        path = save_checkpoint(tmp_path, checkpoint(step), keep=3)
        if step > 1:
            flip(path / "model.safetensors", -1)
    save_checkpoint(tmp_path, checkpoint(2), keep=2)  # the run went back to 1 and made step 2 anew
    assert_equal(load_latest(tmp_path, lambda _: None), checkpoint(2))
    flip(tmp_path / "step_000002" / "state.json", 0)
    assert_equal(load_latest(tmp_path, lambda _: None), checkpoint(1))


def test_the_remains_of_a_killed_writer_go(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=2)
    half = tmp_path / ".step_000002.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert_equal(load_latest(tmp_path, no_damage), checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(3), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000001", "step_000003"]


def test_one_set_aside_is_found_when_its_heir_never_came(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(4), keep=2)
    path.rename(tmp_path / ".step_000004.old")
    assert_equal(load_latest(tmp_path, no_damage), checkpoint(4))
    save_checkpoint(tmp_path, checkpoint(4), keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000004"]


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(4), keep=2)
    other = Checkpoint(4, checkpoint(5).tensors, {"epoch": 9})
    save_checkpoint(tmp_path, other, keep=2)
    assert_equal(load_latest(tmp_path, no_damage), other)


WRITER = """
import sys
from pathlib import Path
from tests.checkpoint.test_store import checkpoint
from pipeline.checkpoint import save_checkpoint
step = int(sys.argv[2])
print("writing", flush=True)
while True:
    step += 1
    save_checkpoint(Path(sys.argv[1]), checkpoint(step, size=200_000), keep=2)
"""


def test_sigkill_at_any_moment_leaves_a_whole_one(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    moments = random.Random(seed)
    last = 0
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(last)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.readline()
        while not any(tmp_path.glob("step_*")):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        found = load_latest(tmp_path, no_damage)
        assert found is not None
        assert_equal(found, checkpoint(found.step, size=200_000))
        assert found.step >= last
        last = found.step


def test_ranks_must_see_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, checkpoint(4), keep=2)
    monkeypatch.setattr(store, "gather_objects", lambda step: [step, None])
    with pytest.raises(ValueError, match="storage that all nodes share"):
        load_latest(tmp_path, no_damage)
