"""beton:PATH, and small images that are resized when they are written."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DataConfig, GeneratedConfig
from pipeline.data.betons.format import read_beton
from pipeline.data.betons.storage import storage_of
from pipeline.data.betons.write import write_beton
from pipeline.data.generated import open_generated
from pipeline.data.pixels import exact_photo, train_photo
from pipeline.data.sources import open_source
from tests.data import betons


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two .beton files of 8 px, of three classes, with data cards."""
    for seed in range(2):
        images = np.stack(betons.pictures(6, 8, 8, 3, seed))
        names = np.array(["ape", "bee", "cat"])
        np.savez(tmp_path / "x.npz", image=images, label=np.arange(6) % 3, class_names=names)
        out = tmp_path / "shards" / f"part_{seed}.beton"
        write_beton(f"npz:{tmp_path / 'x.npz'}", "train", storage_of("exact"), out, workers=1)
    return tmp_path / "shards"


def test_a_folder_of_files_is_one_source(folder: Path) -> None:
    source = open_source(f"beton:{folder}", "train")
    parts = [read_beton(folder / f"part_{number}.beton") for number in range(2)]
    assert len(source) == 12 and source.class_names == ("ape", "bee", "cat")
    assert not source.photographs
    for index in range(12):
        assert np.array_equal(source.image(index), parts[index // 6].image(index % 6))
    assert source.describe(7) == "part_1.beton/1"
    one = open_source(f"beton:{folder / 'part_1.beton'}", "train")
    assert np.array_equal(one.image(2), source.image(8))
    assert len({source.identity, one.identity}) == 2
    some = open_source(f"beton:{folder}/part_[0-9].beton", "train")
    assert some.identity == source.identity


@pytest.mark.parametrize("preset", ["raw", "exact"])
def test_small_images_are_resized_like_photographs(preset: str, folder: Path) -> None:
    out = folder.parent / "large.beton"
    spec, storage = f"beton:{folder}", storage_of(preset, size=28)
    with pytest.raises(ValueError, match="8 pixels a side and are stored untouched"):
        write_beton(spec, "train", storage, out, workers=1)
    card = write_beton(spec, "train", storage, out, workers=1, resize=True)
    written, source = read_beton(out), open_source(spec, "train")
    resized = train_photo if preset == "raw" else exact_photo
    for index in range(12):
        assert np.array_equal(written.image(index), resized(source.image(index), 28))
    assert written.labels.tolist() == source.labels.tolist()
    cards = [json.loads((folder / f"part_{n}.beton.json").read_text()) for n in range(2)]
    assert [each["dataset_sha256"] for each in card["written_from"]] == [
        each["dataset_sha256"] for each in cards
    ]


def test_large_grey_images_stay_as_they_are(tmp_path: Path) -> None:
    """Presets resize photographs, and these are RGB."""
    images = np.stack(betons.pictures(4, 80, 80, 1))
    np.savez(tmp_path / "grey.npz", image=images, label=np.arange(4) % 2)
    first, again = tmp_path / "grey.beton", tmp_path / "again.beton"
    write_beton(f"npz:{tmp_path / 'grey.npz'}", "train", storage_of("exact"), first, workers=1)
    write_beton(f"beton:{first}", "train", storage_of("exact"), again, workers=1)
    written = read_beton(again)
    assert all(np.array_equal(written.image(index), images[index]) for index in range(4))


def test_what_a_generator_learnt_is_known_of_images_written_again(folder: Path) -> None:
    """Validation images do not get into training by being resized."""
    path = folder / "part_0.beton.json"
    card = json.loads(path.read_text())
    val = folder / "part_1.beton"
    seen = json.loads((folder / "part_1.beton.json").read_text())["dataset_sha256"]
    path.write_text(json.dumps({**card, "training_data": {"dataset_sha256": seen}}))
    out = folder.parent / "again.beton"
    storage = storage_of("exact", size=28)
    write_beton(f"beton:{folder / 'part_0.beton'}", "train", storage, out, workers=1, resize=True)
    data = DataConfig(val=str(val), generated=GeneratedConfig(path=str(out)))
    with pytest.raises(ValueError, match=r"generator was trained on the set of data\.val"):
        open_generated(data, 28)
    copied = folder.parent / "copied.beton"
    write_beton(f"beton:{val}", "train", storage, copied, workers=1, resize=True)
    data = DataConfig(val=str(val), generated=GeneratedConfig(path=str(copied)))
    with pytest.raises(ValueError, match=r"copied\.beton is the set of data\.val"):
        open_generated(data, 28)


def test_what_cannot_be_written_again(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"empty: no \.beton file is there"):
        open_source(f"beton:{empty}", "train")
    with pytest.raises(ValueError, match=r"x\.beton does not exist"):
        open_source("beton:x.beton", "train")
    jpegs = betons.write(tmp_path / "j.beton", betons.smooth_pictures([(9, 9)]), [0], "jpg")
    with pytest.raises(ValueError, match=r"j\.beton holds JPEG images, .* write from what"):
        open_source(f"beton:{jpegs}", "train")
    betons.write(folder / "z.beton", betons.pictures(3, 8, 8, 3), [0, 1, 2])
    with pytest.raises(ValueError, match=r"z\.beton has other classes or channels than .*part_0"):
        open_source(f"beton:{folder}", "train")
    with pytest.raises(ValueError, match="--resize takes RGB images"):
        write_beton("digits", "train", storage_of("raw"), tmp_path / "g.beton", resize=True)
