"""A checkpoint is whole, or named as damaged and passed over for the one before it."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import Fragment, Saver, files, load_latest, store
from pipeline.checkpoint.files import FileRecord
from pipeline.checkpoint.manifest import _digest
from tests.checkpoint.saving import (
    ALONE,
    STATE,
    assert_saved,
    flip,
    names,
    no_damage,
    rewrite_manifest,
    save,
    some_tensors,
)


def test_it_comes_back_to_the_bit(tmp_path: Path) -> None:
    assert save(tmp_path, 7) == tmp_path / "step_000007"
    assert_saved(load_latest(tmp_path, no_damage), 7)


def test_its_files_are_safetensors_and_json(tmp_path: Path) -> None:
    tensors = some_tensors(1)
    piece = Fragment(torch.arange(4.0), 2, (2, 3))
    path = save(tmp_path, 1, {**tensors, "optimizer": {"w/exp_avg": piece}})
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    by_library = load_file(path / "model.safetensors")
    assert by_library.keys() == tensors["model"].keys()
    for name, tensor in tensors["model"].items():
        assert torch.equal(by_library[name], tensor) and by_library[name].dtype == tensor.dtype
    with safe_open(path / "optimizer-00001-of-00001.safetensors", "pt") as file:
        assert json.loads(file.metadata()["fragments"]) == {"w/exp_avg": [2, [2, 3]]}
        assert torch.equal(file.get_tensor("w/exp_avg"), piece.values)


def test_format_1_is_read(tmp_path: Path) -> None:
    """As the version before wrote it: a file a part, by the library."""
    folder, records = tmp_path / "step_000005", []
    folder.mkdir()
    for part, tensors in some_tensors(5).items():
        own = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        save_file(own, folder / f"{part}.safetensors")
    (folder / "state.json").write_text(json.dumps(STATE))
    for name in names(folder):
        data = (folder / name).read_bytes()
        record = FileRecord(
            name, name.partition(".")[0], len(data), files.hashlib.sha256(data).hexdigest()
        )
        records.append(vars(record))
    body = {"format": "certline checkpoint 1", "step": 5, "files": records}
    (folder / "manifest.json").write_text(json.dumps(body | {"sha256": _digest(body)}))
    assert_saved(load_latest(tmp_path, no_damage), 5)


def test_none_yet_is_none(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "nowhere", no_damage) is None
    assert load_latest(tmp_path, no_damage) is None


DAMAGES = {
    "flipped byte": (lambda p: flip(p / "model.safetensors", -3), "model.safetensors was altered"),
    "flipped header": (lambda p: flip(p / "model.safetensors", 0), "model.safetensors was altered"),
    "truncated": (lambda p: os.truncate(p / "rng.safetensors", 20), "rng.safetensors is cut short"),
    "longer": (lambda p: os.truncate(p / "rng.safetensors", 2000), "has 2000 bytes instead of"),
    "emptied": (lambda p: os.truncate(p / "state.json", 0), "state.json is cut short: 0 bytes"),
    "missing": (lambda p: (p / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "manifest.json is missing"),
    "altered state": (lambda p: flip(p / "state.json", 5), "state.json was altered"),
    "altered manifest": (lambda p: flip(p / "manifest.json", 60), "manifest"),
    "empty manifest": (lambda p: (p / "manifest.json").write_text("[]"), "is not a manifest"),
}


@pytest.mark.parametrize(("damage", "what"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_used(tmp_path: Path, damage, what) -> None:
    save(tmp_path, 1)
    damage(save(tmp_path, 2))
    said: list[str] = []
    assert_saved(load_latest(tmp_path, said.append), 1)
    (sentence,) = said
    assert "step_000002: " in sentence and what in sentence
    assert "using step_000001 instead" in sentence


@pytest.mark.parametrize(("damage", "what"), DAMAGES.values(), ids=DAMAGES)
def test_with_none_left_it_refuses(tmp_path: Path, damage, what) -> None:
    damage(save(tmp_path, 2))
    with pytest.raises(ValueError, match=rf"no checkpoint in .* is whole .*step_000002.*{what}"):
        load_latest(tmp_path, no_damage)


def test_many_damaged_files_are_counted(tmp_path: Path) -> None:
    path = save(tmp_path, 2, {part: {"w": torch.ones(2)} for part in "abcde"})
    for part in "abcde":
        (path / f"{part}.safetensors").unlink()
    with pytest.raises(ValueError, match=r"c.safetensors is missing; and 2 more\)"):
        load_latest(tmp_path, no_damage)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b"])
def test_names_that_lead_out_are_damage(tmp_path: Path, name: str) -> None:
    entry = {"name": name, "part": "model", "size": 1, "sha256": "0"}
    rewrite_manifest(save(tmp_path, 2), files=[entry])
    with pytest.raises(ValueError, match="no plain file name"):
        load_latest(tmp_path, no_damage)


def test_another_format_says_so(tmp_path: Path) -> None:
    rewrite_manifest(save(tmp_path, 2), format="certline checkpoint 9")
    with pytest.raises(ValueError, match="continue the run with the version that began it"):
        load_latest(tmp_path, no_damage)


def test_a_full_disk_leaves_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"step_000002 could not be written .*No space left"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert names(tmp_path) == ["step_000001"]
    assert_saved(load_latest(tmp_path, no_damage), 1)


def test_an_old_one_that_cannot_be_deleted_is_deleted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def busy(path: str, *_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(os, "unlink", busy)  # what rmtree calls
    save(tmp_path, 2, keep=1)
    assert names(tmp_path) == [".step_000001.tmp", "step_000002"]
    monkeypatch.undo()
    assert_saved(load_latest(tmp_path, no_damage), 2)
    save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["step_000003"]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the file server refuse to read files of a name."""

    def refuse(name: str) -> None:
        def gone(path: Path, mode: str = "r", *words: Any, **options: Any) -> Any:
            if path.name == name and "r" in mode:
                raise OSError(errno.ESTALE, "Stale file handle", str(path))
            return opened(path, mode, *words, **options)

        opened = Path.open
        monkeypatch.setattr(Path, "open", gone)

    return refuse


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "model.safetensors"])
def test_a_file_server_that_is_away_is_no_damage(
    tmp_path: Path, away: Callable[[str], None], name: str
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    away(name)
    with pytest.raises(OSError, match="Stale file handle") as caught:
        load_latest(tmp_path, no_damage)
    assert caught.value.errno == errno.ESTALE


def test_nothing_is_deleted_whose_worth_cannot_be_read(
    tmp_path: Path, away: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, state={"validation": {"vra_estimate": 0.9}}, keep=1, keep_best=1)
    away("state.json")
    save(tmp_path, 2, state={"validation": {"vra_estimate": 0.1}}, keep=1, keep_best=1)
    assert names(tmp_path) == ["step_000001", "step_000002"]
    monkeypatch.undo()
    save(tmp_path, 3, state={"validation": {"vra_estimate": 0.1}}, keep=1, keep_best=1)
    assert names(tmp_path) == ["step_000001", "step_000003"]


def test_damaged_later_ones_do_not_push_out_whole_ones(tmp_path: Path) -> None:
    """After falling back behind damaged checkpoints, a run must not prune what it fell back to."""
    for step in (1, 2, 3):
        path = save(tmp_path, step)
        if step > 1:
            flip(path / "model.safetensors", -1)
    save(tmp_path, 2, keep=2)  # the run went back to 1 and made step 2 anew
    assert_saved(load_latest(tmp_path, lambda _: None), 2)
    flip(tmp_path / "step_000002" / "state.json", 0)
    assert_saved(load_latest(tmp_path, lambda _: None), 1)


def test_the_remains_of_a_killed_writer_go(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".step_000002.tmp", ".step_000002.0123abcd.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    assert_saved(load_latest(tmp_path, no_damage), 1)
    save(tmp_path, 3)
    assert names(tmp_path) == ["step_000001", "step_000003"]


def test_one_set_aside_is_found_when_its_heir_never_came(tmp_path: Path) -> None:
    save(tmp_path, 4).rename(tmp_path / ".step_000004.old")
    assert_saved(load_latest(tmp_path, no_damage), 4)
    save(tmp_path, 4)
    assert names(tmp_path) == ["step_000004"]


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 4)
    save(tmp_path, 4, some_tensors(5), {"epoch": 9})
    assert_saved(load_latest(tmp_path, no_damage), 4, some_tensors(5), {"epoch": 9})


def test_one_that_woke_up_late_writes_into_no_new_save(tmp_path: Path) -> None:
    """Two saves of one step never share a directory, nor overwrite a file."""
    first, second = (store.begin(tmp_path / name, 7) for name in ("a", "b"))
    assert first.name != second.name
    files.write_file(first, "x", "model", [b"1"])
    with pytest.raises(FileExistsError):
        files.write_file(first, "x", "model", [b"2"])


def test_one_save_at_a_time(tmp_path: Path) -> None:
    saver = Saver(tmp_path, ALONE)
    saver.begin(1, some_tensors(1), STATE)
    with pytest.raises(AssertionError, match="one save at a time"):
        saver.begin(2, some_tensors(2), STATE)
    saver.finish()
    assert not saver.is_open and not saver.busy
    saver.advance()  # nothing is open: nothing happens
    assert names(tmp_path) == ["step_000001"]
