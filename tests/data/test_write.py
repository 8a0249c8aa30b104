"""Writing and reading back .beton files; what goes wrong leaves nothing behind."""

import errno
import hashlib
import json
import multiprocessing
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.betons import write
from pipeline.data.betons.estimate import estimate
from pipeline.data.betons.format import FIELD, HEADER, read_beton
from pipeline.data.betons.storage import PRESETS, Preset, storage_of
from pipeline.data.betons.writer import BetonWriter
from pipeline.data.content import ContentHash
from pipeline.data.pixels import exact_photo, train_photo
from pipeline.data.sources import open_source
from tests.data.test_sources import make_folder, png, save_npz
from tests.shared_data import shared_file

PHOTOS = {f"train/{name}/{i}.png": png(40 + i, 60, seed=i) for name in "ab" for i in range(3)}


def test_grey_digits_keep_one_channel_and_every_pixel(tmp_path: Path) -> None:
    card = write.write_beton("digits", "val", storage_of("exact"), tmp_path / "d.beton")
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
    assert sum(card["images_per_class"]) == card["num_samples"] == 360


def test_exact_photographs_are_stored_as_pixels(tmp_path: Path) -> None:
    spec = f"folder:{make_folder(tmp_path / 'photos', PHOTOS)}"
    card = write.write_beton(spec, "train", storage_of("exact", 28), tmp_path / "p.beton")
    written, source = read_beton(tmp_path / "p.beton"), open_source(spec, "train")
    assert written.is_exact
    for index in range(6):
        assert np.array_equal(written.image(index), exact_photo(source.image(index), 28))
    assert card["image_shape"] == [3, 28, 28]


def test_photographs_for_training_are_jpegs_of_the_resized_picture(tmp_path: Path) -> None:
    spec = f"folder:{make_folder(tmp_path / 'photos', PHOTOS)}"
    card = write.write_beton(spec, "train", storage_of("train", 28), tmp_path / "p.beton")
    written, source = read_beton(tmp_path / "p.beton"), open_source(spec, "train")
    assert not written.is_exact
    assert card["dataset_sha256"] is None
    sizes = [train_photo(source.image(index), 28).shape[:2] for index in range(6)]
    assert list(zip(written.heights, written.widths, strict=True)) == sizes
    with pytest.raises(ValueError, match=r"stored as JPEG.*--preset exact"):
        written.image(0)


@pytest.mark.parametrize("preset", ["exact", "train"])
def test_the_bytes_do_not_depend_on_the_workers(
    tmp_path: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "worker_count", lambda asked: asked)  # more than there are cores
    files = {f"{name}/{i}.png": png(40 + i, 60, seed=i) for name in "ab" for i in range(20)}
    spec = f"folder:{make_folder(tmp_path / 'photos', files)}"
    digests = set()
    for workers in (1, 2, 7):
        out = tmp_path / f"{workers}.beton"
        write.write_beton(spec, "train", storage_of(preset, 28), out, workers=workers)
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_images_of_many_pages(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 330, 340, 3), dtype=np.uint8)
    card = write.write_beton(
        save_npz(tmp_path, image=images, label=np.arange(24) % 7),
        "train", storage_of("exact"), tmp_path / "big.beton",
    )  # fmt: skip
    written = read_beton(tmp_path / "big.beton")
    assert all(np.array_equal(written.image(i), images[i]) for i in range(24))
    assert written.labels.tolist() == [i % 7 for i in range(24)]
    assert card["image_shape"] == [3, 330, 340]


def test_the_estimate_is_near(tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": png(60, 90, seed=i) for name in "ab" for i in range(30)}
    spec = f"folder:{make_folder(tmp_path / 'photos', files)}"
    source = open_source(spec, "train")
    for preset in PRESETS:
        out, storage = tmp_path / f"{preset}.beton", storage_of(preset)
        samples = write.StoredSource(source, storage)
        expected = estimate(samples, write._layout(source, samples, storage), 1)
        write.write_beton(spec, "train", storage, out)
        assert out.stat().st_size <= expected.bytes <= 1.2 * out.stat().st_size
        assert 0 < expected.seconds < 60


def test_ffcv_reads_what_is_written(tmp_path: Path) -> None:
    """The tables, by FFCV's own reader; its loader is tried in test_ffcv_loader.py."""
    pytest.importorskip("ffcv")
    from ffcv.fields import IntField, NDArrayField, RGBImageField
    from ffcv.reader import Reader

    spec = f"folder:{make_folder(tmp_path / 'photos', PHOTOS)}"
    write.write_beton(spec, "train", storage_of("train", 28), tmp_path / "jpg.beton")
    write.write_beton(spec, "train", storage_of("exact", 28), tmp_path / "raw.beton")
    write.write_beton("digits", "val", storage_of("exact"), tmp_path / "grey.beton")
    for name, mode in (("jpg", 0), ("raw", 1), ("grey", None)):
        reader, ours = (
            Reader(str(tmp_path / f"{name}.beton")),
            read_beton(tmp_path / f"{name}.beton"),
        )
        assert reader.num_samples == len(ours)
        assert list(reader.handlers) == ["image", "label"]
        image, label = reader.handlers.values()
        assert isinstance(label, IntField)
        assert reader.metadata["f1"].tolist() == ours.labels.tolist()
        places = reader.metadata["f0"] if mode is None else reader.metadata["f0"]["data_ptr"]
        table = reader.alloc_table
        assert table["sample_id"].tolist() == list(range(len(ours)))
        assert table["ptr"].tolist() == places.tolist()
        pages = table["ptr"] // reader.page_size
        assert pages.min() > 0
        last = (table["ptr"] + table["size"] - 1) // reader.page_size
        assert np.array_equal(pages, last), "nothing crosses a page"
        assert (tmp_path / f"{name}.beton").stat().st_size == (
            reader.header["alloc_table_ptr"] + table.nbytes
        )
        if mode is None:
            assert isinstance(image, NDArrayField)
            assert (image.shape, image.dtype) == ((8, 8, 1), np.dtype("u1"))
        else:
            assert isinstance(image, RGBImageField)
            assert (reader.metadata["f0"]["mode"] == mode).all()


def test_ffcv_decodes_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    from ffcv.libffcv import imdecode  # noqa: F401  (FFCV and its libraries can be loaded)

    from pipeline.config import DataConfig
    from pipeline.data.loader import open_train_loader
    from pipeline.distributed import World

    spec = f"npz:{shared_file('tiny_imagenet_64_jpeg_10k_2k.npz')}"
    with np.load(shared_file("tiny_imagenet_64_jpeg_10k_2k.npz")) as archive:
        stop = archive["val_offsets"][40]
        spec = save_npz(
            tmp_path,
            train_bytes=archive["val_bytes"][:stop],
            train_offsets=archive["val_offsets"][:41],
            y_train=archive["y_val"][:40],
        )
    write.write_beton(spec, "train", storage_of("train"), tmp_path / "t.beton")
    source, world = open_source(spec, "train"), World(0, 1, 0)
    data = DataConfig(train=str(tmp_path / "t.beton"), backend="ffcv", workers=1)
    loader = open_train_loader(data, 64, 20, 0, world)
    try:
        for batch in loader.epoch(0):
            for image, label, index in zip(
                batch.images, batch.labels, batch.sample_ids, strict=True
            ):
                expected = source.image(int(index))
                assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
                assert label == source.labels[index]
    finally:
        loader.close()


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "beton" in path.name)


def test_a_damaged_picture_ends_it_with_its_name(tmp_path: Path) -> None:
    files = {**PHOTOS, "train/b/9.png": png()[:50]}
    spec = f"folder:{make_folder(tmp_path / 'photos', files)}"
    with pytest.raises(ValueError, match=r"b/9\.png cannot be read"):
        write.write_beton(spec, "train", storage_of("exact", 28), tmp_path / "p.beton", workers=2)
    assert left_behind(tmp_path) == []


def test_a_picture_that_goes_bad_while_workers_run_ends_it(
    tmp_path: Path,
) -> None:
    files = {**PHOTOS, "train/b/9.png": png()[:50]}
    spec = f"folder:{make_folder(tmp_path / 'photos', files)}"
    with pytest.raises(ValueError, match=r"b/9\.png cannot be read"):
        write.write_beton(spec, "train", storage_of("train", 28), tmp_path / "p.beton", workers=2)
    assert left_behind(tmp_path) == []


def write_to(place: str, entered: "multiprocessing.synchronize.Event") -> None:
    """What another process does: begin to write, and be long about it."""
    with write._partial(Path(place)):
        entered.set()
        multiprocessing.Event().wait(60)


def test_two_writers_of_one_file_exclude_each_other(tmp_path: Path) -> None:
    out, context = tmp_path / "d.beton", multiprocessing.get_context("spawn")
    entered = context.Event()
    other = context.Process(target=write_to, args=(str(out), entered))
    other.start()
    try:
        assert entered.wait(60)
        with pytest.raises(ValueError, match="is being written by another process"):
            write.write_beton("digits", "val", storage_of("exact"), out)
        assert left_behind(tmp_path) == ["d.beton.partial"]
    finally:
        other.kill()
        other.join()
    write.write_beton(
        "digits", "val", storage_of("exact"), out
    )  # a killed writer's file is taken over
    assert left_behind(tmp_path) == ["d.beton", "d.beton.json"]


def test_a_disk_that_fills_up_while_writing_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = BetonWriter._put

    def on_full_disk(writer: BetonWriter, data: bytes) -> tuple[int, int]:
        if writer._end > 3_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(writer, data)

    monkeypatch.setattr(BetonWriter, "_put", on_full_disk)
    spec = save_npz(tmp_path, image=np.zeros((70, 128, 128, 3), np.uint8), label=np.zeros(70, int))
    with pytest.raises(ValueError, match=r"x\.beton cannot be written: No space left"):
        write.write_beton(spec, "train", storage_of("exact"), tmp_path / "x.beton", workers=2)
    assert left_behind(tmp_path) == []


def test_a_full_disk_is_refused_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(ValueError, match=r"only 1 MB are free .* make room"):
        write.write_beton("digits", "val", storage_of("exact"), tmp_path / "d.beton")
    assert left_behind(tmp_path) == []


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "d.beton"
    out.write_bytes(b"precious")
    with pytest.raises(ValueError, match="exists: give --force"):
        write.write_beton("digits", "val", storage_of("exact"), out)
    assert out.read_bytes() == b"precious"
    write.write_beton("digits", "val", storage_of("exact"), out, force=True)
    assert len(read_beton(out)) == 360


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "d.beton"
    write.write_beton("digits", "val", storage_of("exact"), path)
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


def test_a_damaged_head_never_crashes(digits: Path, tmp_path: Path) -> None:
    """Random bytes in the header, the fields and the records: a ValueError or a picture."""
    rng = np.random.default_rng(0)
    broken = Path(shutil.copy(digits, tmp_path / "b.beton"))
    head = digits.read_bytes()[: HEADER.itemsize + 2 * FIELD.itemsize + 16 * 360]
    refused = 0
    for _ in range(300):
        changed = bytearray(head)
        for place in rng.integers(0, rng.choice([24, 60, len(head)]), 3):
            changed[place] = rng.integers(256)
        with broken.open("r+b") as file:
            file.write(changed)
        try:
            beton = read_beton(broken)
            for index in range(len(beton)):
                assert beton.image(index).dtype == np.uint8
        except ValueError as error:
            assert "b.beton" in str(error)
            refused += 1
    assert 150 < refused < 300


def test_arrays_of_another_type_are_refused(digits: Path, tmp_path: Path) -> None:
    changed = bytearray(digits.read_bytes())
    place = changed.index(b'[["", "|u1"]]')
    changed[place : place + 13] = b'[["", "|i1"]]'
    (tmp_path / "i.beton").write_bytes(changed)
    with pytest.raises(ValueError, match="arrays that are not uint8"):
        read_beton(tmp_path / "i.beton")


def test_a_size_that_is_not_the_images_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 pixels a side and are stored untouched"):
        write.write_beton("digits", "val", storage_of("exact", 32), tmp_path / "d.beton")
    write.write_beton("digits", "val", storage_of("exact", 8), tmp_path / "d.beton")


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
    card = write.write_beton(spec, "val", storage_of("exact"), tmp_path / "v.beton")
    written, source = read_beton(tmp_path / "v.beton"), open_source(spec, "val")
    assert card["num_samples"] == 30
    for index in range(0, 30, 7):
        assert np.array_equal(written.image(index), exact_photo(source.image(index), 224))
