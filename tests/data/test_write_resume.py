"""A writer that was killed, or met a bad picture, goes on; its file is the same to the byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.betons import shards, writer
from pipeline.data.betons.card import check_beton
from pipeline.data.betons.format import read_beton
from pipeline.data.betons.storage import PRESETS, Preset, storage_of
from pipeline.data.betons.write import write_beton
from tests.data.test_sources import make_folder, png


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD", 8)


def photos(folder: Path, count: int = 40, bad: tuple[int, ...] = ()) -> str:
    files = {
        f"{'ab'[i % 2]}/{i:03d}.png": png(40 + i % 7, 60, seed=i)[: 50 if i in bad else None]
        for i in range(count)
    }
    return f"folder:{make_folder(folder, files)}"


class Killed(BaseException):
    """What no handler of errors may take for an error."""


@pytest.mark.parametrize("preset", PRESETS)
def test_killed_at_any_picture_the_bytes_are_the_same(
    preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, storage = photos(tmp_path / "photos"), storage_of(preset)
    whole = write_beton(spec, "train", storage, tmp_path / "whole.beton")
    put, wrote = writer.BetonWriter._put, []

    def dying(self: writer.BetonWriter, data: bytes) -> tuple[int, int]:
        wrote.append(len(data))
        if len(wrote) == after:
            raise Killed
        return put(self, data)

    for after in (5, 9, 24, 25, 40):
        out = tmp_path / f"{after}.beton"
        with monkeypatch.context() as patch:
            patch.setattr(writer.BetonWriter, "_put", dying)
            wrote.clear()
            with pytest.raises(Killed):
                write_beton(spec, "train", storage, out)
            assert not out.exists()
            wrote.clear()
            patch.setattr(
                writer.BetonWriter, "_put", lambda self, data: (wrote.append(1), put(self, data))[1]
            )
            card = write_beton(spec, "train", storage, out)
        assert len(wrote) == 40 - (after - 1) // 8 * 8  # finished shards are not written again
        assert out.read_bytes() == (tmp_path / "whole.beton").read_bytes()
        assert card == whole
        assert not list(tmp_path.glob(f"{after}.beton.p*"))


def test_another_source_or_setting_begins_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = photos(tmp_path / "photos", bad=(21,))
    out = tmp_path / "x.beton"
    with pytest.raises(ValueError, match=r"021\.png cannot be read") as error:
        write_beton(bad, "train", storage_of("train", 28), out)
    assert error.value.__notes__ == ["what is written is kept; the same command goes on from there"]
    with pytest.raises(ValueError, match=r"021\.png"):
        write_beton(bad, "train", storage_of("train", 28), out)
    assert "going on after 24 of 40 images" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"021\.png"):
        write_beton(bad, "train", storage_of("train", 29), out)
    assert "going on" not in capsys.readouterr().out
    mended = photos(tmp_path / "photos")
    write_beton(mended, "train", storage_of("train", 28), out)
    write_beton(mended, "train", storage_of("train", 28), tmp_path / "y.beton")
    assert out.read_bytes() == (tmp_path / "y.beton").read_bytes()


def test_records_of_a_partial_file_that_is_gone_are_not_believed(tmp_path: Path) -> None:
    spec, out = photos(tmp_path / "photos", bad=(21,)), tmp_path / "x.beton"
    with pytest.raises(ValueError, match=r"021\.png"):
        write_beton(spec, "train", storage_of("raw", 28), out)
    (tmp_path / "x.beton.partial").unlink()
    card = write_beton(spec, "train", storage_of("raw", 28), out, on_error="skip")
    assert check_beton(out) == card


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_damaged_record_costs_its_shard_and_those_after_it(damaged: int, tmp_path: Path) -> None:
    spec, out = photos(tmp_path / "photos", bad=(21,)), tmp_path / "x.beton"
    with pytest.raises(ValueError, match=r"021\.png"):
        write_beton(spec, "train", storage_of("raw", 28), out)
    part = tmp_path / "x.beton.parts" / f"{damaged:06d}.npz"
    part.write_bytes(part.read_bytes()[:100])
    write_beton(spec, "train", storage_of("raw", 28), out, on_error="skip")
    write_beton(spec, "train", storage_of("raw", 28), tmp_path / "y.beton", on_error="skip")
    assert out.read_bytes() == (tmp_path / "y.beton").read_bytes()


def test_skipped_pictures_are_counted_and_named(tmp_path: Path) -> None:
    spec, out = photos(tmp_path / "photos", bad=(0, 9, 39)), tmp_path / "x.beton"
    card = write_beton(spec, "train", storage_of("raw", 28), out, on_error="skip")
    assert [Path(entry["picture"]).name for entry in card["skipped"]] == [
        "000.png", "009.png", "039.png",
    ]  # fmt: skip
    assert all(entry["reason"] for entry in card["skipped"])
    assert card["num_samples"] == 37 and sum(card["images_per_class"]) == 37
    good = photos(tmp_path / "good")
    for index in (0, 9, 39):
        (tmp_path / "good" / "ab"[index % 2] / f"{index:03d}.png").unlink()
    other = write_beton(good, "train", storage_of("raw", 28), tmp_path / "y.beton")
    assert card["dataset_sha256"] == other["dataset_sha256"]


def test_a_source_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    spec = photos(tmp_path / "photos", 4, bad=(0, 1, 2, 3))
    with pytest.raises(ValueError, match="none of the pictures looked at can be read"):
        write_beton(spec, "train", storage_of("train"), tmp_path / "x.beton", on_error="skip")
    assert not list(tmp_path.glob("x.*"))


def test_duplicates_are_found_and_their_labels_compared(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    images[5] = images[2]
    images[7] = images[2]
    images[11] = images[0]
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 2, 1, 0, 1, 0])
    np.savez(tmp_path / "x.npz", image=images, label=labels)
    card = write_beton(
        f"npz:{tmp_path / 'x.npz'}", "train", storage_of("raw"), tmp_path / "x.beton"
    )
    assert card["duplicates"] == {
        "pictures": 3,
        "with_several_labels": 0,
        "groups": [
            ["x.npz:train/0", "x.npz:train/11"],
            ["x.npz:train/2", "x.npz:train/5", "x.npz:train/7"],
        ],
    }
    np.savez(tmp_path / "x.npz", image=images, label=np.arange(12) % 5)
    card = write_beton(
        f"npz:{tmp_path / 'x.npz'}", "train", storage_of("raw"), tmp_path / "y.beton"
    )
    assert card["duplicates"]["with_several_labels"] == 2


def test_a_changed_file_fails_the_check(tmp_path: Path) -> None:
    write_beton("digits", "val", storage_of("exact"), tmp_path / "d.beton")
    check_beton(tmp_path / "d.beton")
    content = bytearray((tmp_path / "d.beton").read_bytes())
    content[-30_000] ^= 1
    (tmp_path / "d.beton").write_bytes(content)
    with pytest.raises(ValueError, match="not the file that its data card speaks of"):
        check_beton(tmp_path / "d.beton")
    (tmp_path / "d.beton.json").unlink()
    with pytest.raises(ValueError, match=r"has no data card d\.beton\.json"):
        check_beton(tmp_path / "d.beton")


def test_proportion_stores_about_the_share_as_jpeg_and_limits_the_longest_side(
    tmp_path: Path,
) -> None:
    files = {f"{'ab'[i % 2]}/{i}.png": png(20, 90 if i % 3 else 40, seed=i) for i in range(60)}
    spec = f"folder:{make_folder(tmp_path / 'photos', files)}"
    storage = storage_of("proportion", longest=50)
    card = write_beton(spec, "train", storage, tmp_path / "p.beton")
    written = read_beton(tmp_path / "p.beton")
    assert 15 < card["stored_as_jpeg"] == (~written.is_raw).sum() < 45
    assert set(written.widths.tolist()) == {50, 40}  # what is smaller is left as it is
    assert card["source_sizes"]["width"] == {"least": 40, "median": 90, "most": 90}
    assert card["stored_sizes"]["height"] == {"least": 11, "median": 11, "most": 20}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"preset": "exact", "quality": 80}, "--preset exact stores what is certified"),
        ({"preset": "proportion", "size": 64}, "--size 64 means nothing to --preset proportion"),
        ({"preset": "train", "compressed": 1.5}, r"--compressed 1\.5 must be a share"),
        ({"preset": "train", "quality": 0}, "--quality 0 must be from 1 to 100"),
        ({"preset": "raw", "size": -3}, "--size -3 must be from 1"),
    ],
)
def test_settings_that_make_no_sense(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        storage_of(**words)  # type: ignore[arg-type]


def test_the_command_killed_and_repeated(tmp_path: Path) -> None:
    """A real process, killed with what cannot be caught, as soon as a shard is finished."""
    spec, out = photos(tmp_path / "photos", 3 * shards.SHARD // 2), tmp_path / "x.beton"
    words = [
        sys.executable, "tools/write_beton.py", "--source", spec, "--split", "train",
        "--preset", "train", "--size", "64", "--workers", "1", "--out",
    ]  # fmt: skip
    process = subprocess.Popen([*words, out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / "x.beton.parts" / "000000.npz"
    while process.poll() is None and not part.exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert part.exists() and not out.exists()
    done = subprocess.run([*words, out], capture_output=True, text=True, check=True)
    assert f"going on after {shards.SHARD:,}" in done.stdout
    subprocess.run([*words, tmp_path / "y.beton"], capture_output=True, check=True)
    assert out.read_bytes() == (tmp_path / "y.beton").read_bytes()
    cards = [json.loads((tmp_path / f"{name}.beton.json").read_text()) for name in "xy"]
    assert cards[0] == cards[1]
