"""Writing and reading back .beton files; what goes wrong leaves nothing behind."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import write
from pipeline.data.beton import read_beton
from pipeline.data.content import ContentHash
from pipeline.data.pixels import exact_photo, train_photo
from pipeline.data.sources import open_source
from tests.data.test_sources import make_folder, png, save_npz
from tests.shared_data import shared_file

pytest.importorskip("ffcv")

PHOTOS = {f"train/{name}/{i}.png": png(40 + i, 60, seed=i) for name in "ab" for i in range(3)}


def test_grey_digits_keep_one_channel_and_every_pixel(tmp_path: Path) -> None:
    card = write.write_beton("digits", "val", "exact", tmp_path / "d.beton")
    written, source = read_beton(tmp_path / "d.beton"), open_source("digits", "val")
    content = ContentHash()
    for index in range(360):
        assert np.array_equal(written.image(index), source.image(index))
        assert written.label(index) == source.labels[index]
        content.update(int(source.labels[index]), source.image(index))
    assert written.channels == 1
    assert written.class_names == tuple("0123456789")
    assert card == json.loads((tmp_path / "d.beton.json").read_text())
    assert card["dataset_sha256"] == content.hexdigest()
    assert card["image_shape"] == [1, 8, 8]
    assert sum(card["images_per_class"].values()) == card["num_samples"] == 360


def test_exact_photographs_are_stored_as_pixels(tmp_path: Path) -> None:
    spec = f"folder:{make_folder(tmp_path / 'photos', PHOTOS)}"
    card = write.write_beton(spec, "train", "exact", tmp_path / "p.beton", size=28)
    written, source = read_beton(tmp_path / "p.beton"), open_source(spec, "train")
    assert written.is_exact
    for index in range(6):
        assert np.array_equal(written.image(index), exact_photo(source.image(index), 28))
    assert card["image_shape"] == [3, 28, 28]


def test_photographs_for_training_are_jpegs_of_the_resized_picture(tmp_path: Path) -> None:
    spec = f"folder:{make_folder(tmp_path / 'photos', PHOTOS)}"
    card = write.write_beton(spec, "train", "train", tmp_path / "p.beton", size=28)
    written, source = read_beton(tmp_path / "p.beton"), open_source(spec, "train")
    assert not written.is_exact
    assert card["dataset_sha256"] is None
    sizes = [train_photo(source.image(index), 28).shape[:2] for index in range(6)]
    assert list(zip(written.heights, written.widths, strict=True)) == sizes
    with pytest.raises(ValueError, match=r"stored as JPEG.*--preset exact"):
        written.image(0)


def test_the_content_does_not_depend_on_the_workers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 4, 4, 3), dtype=np.uint8)
    spec = save_npz(tmp_path, image=images, label=np.arange(300) % 7)
    cards = [
        write.write_beton(spec, "train", "exact", tmp_path / f"{n}.beton", workers=n)
        for n in (1, 3)
    ]
    assert cards[0] == cards[1]
    for number in (1, 3):
        written = read_beton(tmp_path / f"{number}.beton")
        assert all(np.array_equal(written.image(i), images[i]) for i in range(300))


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "beton" in path.name)


def test_a_damaged_picture_ends_it_with_its_name(tmp_path: Path) -> None:
    files = {**PHOTOS, "train/b/9.png": png()[:50]}
    spec = f"folder:{make_folder(tmp_path / 'photos', files)}"
    with pytest.raises(ValueError, match=r"b/9\.png cannot be read"):
        write.write_beton(spec, "train", "exact", tmp_path / "p.beton", size=28, workers=2)
    assert left_behind(tmp_path) == []


def test_a_picture_that_goes_bad_while_workers_run_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "SAMPLED_FOR_ESTIMATE", 1)  # the estimate does not meet it
    files = {**PHOTOS, "train/b/9.png": png()[:50]}
    spec = f"folder:{make_folder(tmp_path / 'photos', files)}"
    with pytest.raises(ValueError, match=r"b/9\.png cannot be read"):
        write.write_beton(spec, "train", "train", tmp_path / "p.beton", size=28, workers=2)
    assert left_behind(tmp_path) == []


class Dying:
    """Samples that kill the process which reads the last of them."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if index == 99:
            import os

            os._exit(9)
        return np.zeros((2, 2, 3), np.uint8), 0


def test_a_killed_worker_ends_it(tmp_path: Path) -> None:
    from pipeline.data.ffcv_writer import write_samples

    with pytest.raises(ValueError, match=r"ended with status 9.*fewer --workers"):
        write_samples(tmp_path / "x.beton", Dying(), None, 2)


def test_a_full_disk_is_refused_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(ValueError, match=r"only 1 MB are free .* make room"):
        write.write_beton("digits", "val", "exact", tmp_path / "d.beton")
    assert left_behind(tmp_path) == []


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "d.beton"
    out.write_bytes(b"precious")
    with pytest.raises(ValueError, match="exists: give --force"):
        write.write_beton("digits", "val", "exact", out)
    assert out.read_bytes() == b"precious"
    write.write_beton("digits", "val", "exact", out, force=True)
    assert len(read_beton(out)) == 360


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "d.beton"
    write.write_beton("digits", "val", "exact", path)
    return path


@pytest.mark.parametrize("kept", [0, 10, 24, 3000, 0.5, 0.999])
def test_a_shortened_file_is_refused(digits: Path, tmp_path: Path, kept: float) -> None:
    data = digits.read_bytes()
    short = tmp_path / "short.beton"
    short.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match="incomplete: write it again"):
        read_beton(short)


def test_a_file_whose_writer_was_killed_is_refused(digits: Path, tmp_path: Path) -> None:
    data = bytearray(digits.read_bytes())
    data[16:24] = bytes(8)  # the place of the table is written last
    half = tmp_path / "half.beton"
    half.write_bytes(data)
    with pytest.raises(ValueError, match="incomplete"):
        read_beton(half)


def test_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "x.beton"
    other.write_bytes(b"PK\x03\x04" + bytes(5000))
    with pytest.raises(ValueError, match=r"not a \.beton file"):
        read_beton(other)
    with pytest.raises(ValueError, match="does not exist: write it"):
        read_beton(tmp_path / "none.beton")


def test_without_a_card_the_classes_are_numbers(digits: Path, tmp_path: Path) -> None:
    shutil.copy(digits, tmp_path / "bare.beton")
    assert read_beton(tmp_path / "bare.beton").class_names == tuple("0123456789")
    (tmp_path / "bare.beton.json").write_text('{"class_names": ["a"]}')
    with pytest.raises(ValueError, match="has the label 9"):
        read_beton(tmp_path / "bare.beton")


def test_real_photographs(tmp_path: Path) -> None:
    spec = f"folder:{shared_file('unit_mini.tar')}"
    card = write.write_beton(spec, "val", "exact", tmp_path / "v.beton")
    written, source = read_beton(tmp_path / "v.beton"), open_source(spec, "val")
    assert card["num_samples"] == 30
    for index in range(0, 30, 7):
        assert np.array_equal(written.image(index), exact_photo(source.image(index), 224))
