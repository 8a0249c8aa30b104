"""Reading the data: betons written here byte by byte and by FFCV, npz layouts, damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.verify.beton import BetonImages
from pipeline.verify.datasets import ArrayImages, content_hash, open_images
from pipeline.verify.refusal import Refusal


def silent(done: int, total: int) -> None:
    pass


def hand_written_beton(path: Path, images: list[np.ndarray], labels: list[int]) -> None:
    """After FFCV's format, version 2; grey images as NDArrayField, colour as raw RGBImageField."""
    grey = images[0].shape[2] == 1
    image_type = np.dtype("<u8") if grey else np.dtype(
        [("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("ptr", "<u8")])  # fmt: skip
    metadata = np.zeros(len(images), np.dtype([("", image_type), ("", "<i8")], align=True))
    start = 24 + 2 * 1041 + metadata.nbytes
    pixels = b""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = start + len(pixels)
        height, width = image.shape[:2]
        metadata[number] = (place if grey else (1, width, height, place), label)
        pixels += image.tobytes()
    arguments = np.zeros(1024, np.uint8)
    if grey:
        shape = np.zeros(33, "<u8")
        text = json.dumps([["", "|u1"]]).encode()
        shape[:3], shape[32] = images[0].shape, len(text)
        arguments[: 33 * 8] = shape.view(np.uint8)
        arguments[33 * 8 :][: len(text)] = np.frombuffer(text, np.uint8)
    fields = b"".join(
        bytes([kind]) + name.ljust(16, b"\0") + filling
        for kind, name, filling in (
            (4 if grey else 2, b"image", arguments.tobytes()),
            (1, b"label", bytes(1024)),
        )
    )
    header = np.array(
        [(2, 2, 1 << 21, len(images), start + len(pixels))], "<u2,<u2,<u4,<u8,<u8"
    ).tobytes()
    path.write_bytes(header + fields + metadata.tobytes() + pixels)


def some_images(channels: int, count: int = 7) -> tuple[list[np.ndarray], list[int]]:
    random = np.random.default_rng(channels)
    shapes = [(5, 6, channels)] * count if channels == 1 else [(4 + n, 6, 3) for n in range(count)]
    return [random.integers(0, 256, shape, dtype=np.uint8) for shape in shapes], list(range(count))


@pytest.mark.parametrize("channels", [1, 3])
def test_beton_by_hand(tmp_path: Path, channels: int) -> None:
    images, labels = some_images(channels)
    hand_written_beton(tmp_path / "a.beton", images, labels)
    read = BetonImages(tmp_path / "a.beton")
    assert len(read) == len(images)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(read.image(number), image)
        assert read.label(number) == labels[number]


@pytest.mark.parametrize("channels", [1, 3])
def test_beton_of_ffcv(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("ffcv")
    from ffcv.fields import IntField, NDArrayField, RGBImageField
    from ffcv.writer import DatasetWriter

    images, labels = some_images(channels)
    field = NDArrayField(np.dtype("u1"), images[0].shape) if channels == 1 else RGBImageField("raw")
    writer = DatasetWriter(
        str(tmp_path / "a.beton"), {"image": field, "label": IntField()}, num_workers=1
    )
    writer.from_indexed_dataset(list(zip(images, labels, strict=True)))
    read = BetonImages(tmp_path / "a.beton")
    for number, image in enumerate(images):
        np.testing.assert_array_equal(read.image(number), image)
        assert read.label(number) == labels[number]


@pytest.mark.parametrize("keep", [0, 10, 24, 600, 2100, 2110, 2300, -1, -40])
def test_truncated_beton_is_refused(tmp_path: Path, keep: int) -> None:
    images, labels = some_images(3)
    hand_written_beton(tmp_path / "a.beton", images, labels)
    content = (tmp_path / "a.beton").read_bytes()
    (tmp_path / "a.beton").write_bytes(content[:keep])
    with pytest.raises(Refusal, match=r"a\.beton"):
        open_images(tmp_path / "a.beton", "0" * 64, 7, None, silent)


def test_jpeg_beton_is_refused(tmp_path: Path) -> None:
    images, labels = some_images(3)
    hand_written_beton(tmp_path / "a.beton", images, labels)
    content = bytearray((tmp_path / "a.beton").read_bytes())
    content[24 + 2 * 1041] = 0  # mode of the first image
    (tmp_path / "a.beton").write_bytes(content)
    with pytest.raises(Refusal, match="JPEG"):
        BetonImages(tmp_path / "a.beton")


def test_npz_finds_the_split_by_its_hash(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    train, test = (random.integers(0, 256, (n, 4, 4), dtype=np.uint8) for n in (6, 3))
    np.savez(
        tmp_path / "a.npz", x_train=train, y_train=np.arange(6), x_test=test, y_test=np.arange(3)
    )
    for images, labels in ((train, np.arange(6)), (test, np.arange(3))):
        digest = content_hash(ArrayImages(images[..., None], labels), silent)
        found = open_images(tmp_path / "a.npz", digest, len(images), None, silent)
        np.testing.assert_array_equal(found.image(1)[..., 0], images[1])
    with pytest.raises(Refusal, match="another data set"):
        open_images(tmp_path / "a.npz", "0" * 64, 6, None, silent)


def test_npz_that_must_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    cases: list[tuple[dict[str, object], str]] = [
        ({"pictures": np.zeros((2, 4, 4), np.uint8)}, "none of the pairs"),
        ({"image": np.zeros((2, 4, 4)), "label": np.arange(2)}, "not uint8"),
        ({"image": np.zeros((2, 4, 4), np.uint8), "label": np.arange(3)}, "one integer for each"),
        ({"image": np.array([object()]), "label": np.arange(1)}, "cannot be read"),
    ]
    for arrays, sentence in cases:
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with pytest.raises(Refusal, match=sentence):
            open_images(path, "0" * 64, 2, None, silent)
    path.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(Refusal, match="cannot be read"):
        open_images(path, "0" * 64, 2, None, silent)
    with pytest.raises(Refusal, match="neither"):
        open_images(tmp_path / "a.tar", "0" * 64, 2, None, silent)
