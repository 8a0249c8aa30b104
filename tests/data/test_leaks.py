"""Validation images stay out of training, whatever they are called and however written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DataConfig, GeneratedConfig
from pipeline.data import generated, marks
from pipeline.data.betons.storage import storage_of
from pipeline.data.betons.write import write_beton
from pipeline.data.generated import open_generated
from pipeline.data.loader import open_block_loader
from pipeline.data.sources import open_source
from pipeline.diffusion.npz import write_npz
from pipeline.diffusion.training_data import TrainingData
from tests.data import betons

LEARNT = r"generator was trained on the set of data\.val"


def npz(path: Path, seed: int, count: int = 12) -> str:
    """Both parts of a data set: 8 px, three classes."""
    draw = betons.pictures(2 * count, 8, 8, 3, seed)
    labels = np.arange(count) % 3
    np.savez(
        path, x_train=np.stack(draw[:count]), y_train=labels,
        x_test=np.stack(draw[count:]), y_test=labels, class_names=np.array(["ape", "bee", "cat"]),
    )  # fmt: skip
    return f"npz:{path}"


def beton(spec: str, split: str, out: Path, **changes) -> str:
    storage = storage_of("exact", size=changes.get("size"))
    write_beton(spec, split, storage, out, workers=1, resize="size" in changes)  # type: ignore[arg-type]
    return str(out)


def samples(out: Path, trained_on: str, size: int = 8, old: bool = False, **data) -> str:
    """Samples of a generator that was trained on a data set, with their data card."""
    loader = open_block_loader(trained_on, "train", size, DataConfig(workers=1, **data))
    facts = TrainingData.of(loader).on_card()
    loader.close()
    if old:
        facts = {key: facts[key] for key in ("spec", "num_samples", "dataset_sha256")}
    draw = npz(out.with_name("draw.npz"), 99)
    write_npz(open_source(draw, "train"), "ddpm:x", out, {"training_data": facts})
    return f"npz:{out}"


def opened(path: str | list[str], **data) -> str:
    return open_generated(DataConfig(generated=GeneratedConfig(path=path), **data), 8).sha256


@pytest.fixture
def source(tmp_path: Path) -> str:
    return npz(tmp_path / "data.npz", 1)


@pytest.fixture
def val(source: str, tmp_path: Path) -> str:
    return beton(source, "val", tmp_path / "val.beton")


def test_a_generator_of_the_training_part_passes(
    source: str, val: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where both parts lie in one archive."""
    drawn = samples(tmp_path / "g.npz", source)
    for validation in (val, source):
        opened(drawn, train=source, val=validation)
    assert "was not checked" not in capsys.readouterr().out


@pytest.mark.parametrize("old", [False, True])
def test_a_generator_of_the_validation_images_is_refused(
    old: bool, val: str, source: str, tmp_path: Path
) -> None:
    """Whether they are a file with a card, without one, or a source."""
    drawn = samples(tmp_path / "g.npz", val, old=old)
    with pytest.raises(ValueError, match=LEARNT):
        opened(drawn, val=val)
    with pytest.raises(ValueError, match=LEARNT):
        opened(drawn, val=source)
    card = Path(f"{val}.json")
    card.rename(tmp_path / "away.json")
    with pytest.raises(ValueError, match=LEARNT):
        opened(drawn, val=val)
    whole = tmp_path / "whole.npz"  # the same pictures, whichever part is asked for
    np.savez(whole, image=np.stack(betons.pictures(6, 8, 8, 3, 3)), label=np.arange(6) % 3)
    with pytest.raises(ValueError, match=LEARNT):
        opened(samples(tmp_path / "h.npz", f"npz:{whole}", old=old), val=f"npz:{whole}")


def test_another_size_and_some_of_the_classes_are_known(
    source: str, val: str, tmp_path: Path
) -> None:
    large = beton(source, "val", tmp_path / "large.beton", size=16)
    again = beton(f"beton:{val}", "train", tmp_path / "again.beton", size=16)
    some = ["ape", "cat"]
    for number, drawn in enumerate(
        (
            samples(tmp_path / "a.npz", large, size=16),
            samples(tmp_path / "b.npz", again, size=16),
            samples(tmp_path / "c.npz", val, classes=some),
        )
    ):
        with pytest.raises(ValueError, match=LEARNT):
            opened(drawn, val=val)
        if number != 1:
            with pytest.raises(ValueError, match=LEARNT):
                opened(drawn, val=source)


def test_what_a_generator_learnt_outlives_its_npz(val: str, tmp_path: Path) -> None:
    drawn = samples(tmp_path / "g.npz", val)
    first = beton(drawn, "train", tmp_path / "first.beton")
    (tmp_path / "again").mkdir()
    second = beton(f"beton:{first}", "train", tmp_path / "again" / "second.beton", size=8)
    for path in (first, second, f"beton:{tmp_path / 'again'}", [first]):
        with pytest.raises(ValueError, match=LEARNT):
            opened(path, val=val)


def test_the_validation_images_in_another_guise_are_refused(val: str, tmp_path: Path) -> None:
    whole = tmp_path / "test.npz"
    np.savez(whole, image=np.stack(betons.pictures(6, 8, 8, 3, 3)), label=np.arange(6) % 3)
    written = beton(f"npz:{whole}", "val", tmp_path / "other.beton")
    with pytest.raises(ValueError, match=r"test\.npz is the set of data\.val .*other\.beton"):
        opened(f"npz:{whole}", val=written)
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(val, folder / "x.beton")
    for spec in (f"beton:{folder}", str(folder)):
        with pytest.raises(ValueError, match=r"is the set of data\.val .*val\.beton"):
            opened(spec, val=val)
        with pytest.raises(ValueError, match=r"is the set of data\.val beton:"):
            opened(spec, val=f"beton:{folder}")


def test_samples_of_an_unknown_generator_are_taken_and_it_is_said(
    val: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = npz(tmp_path / "theirs.npz", 5)
    opened(drawn, val=val)
    said = capsys.readouterr().out
    assert f"{drawn}: no data card says" in said and f"data.val {val} was not checked" in said
    opened(drawn)
    assert "was not checked" not in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"data\.val: .*vall\.beton does not exist: did you mean"):
        opened(drawn, val=val.replace("val.beton", "vall.beton"))


def test_a_file_without_card_is_hashed_once(
    val: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bare.beton"
    shutil.copy(beton(npz(tmp_path / "x.npz", 7), "train", tmp_path / "x.beton"), path)
    calls: list[str] = []
    read = marks.content_sha256
    monkeypatch.setattr(
        marks, "content_sha256", lambda *given: calls.append(given[1]) or read(*given)
    )
    first = opened(str(path), val=val)
    assert opened(str(path), val=val) == first
    assert first == json.loads((tmp_path / "x.beton.json").read_text())["dataset_sha256"]
    assert calls == ["hash bare.beton"]


def test_a_large_npz_is_better_a_beton(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = npz(tmp_path / "x.npz", 7)
    opened(drawn)
    assert "of memory" not in capsys.readouterr().out
    monkeypatch.setattr(generated, "LARGE_NPZ", 1000)
    opened(drawn)
    assert "GB of memory of every process: write it as a .beton" in capsys.readouterr().out
