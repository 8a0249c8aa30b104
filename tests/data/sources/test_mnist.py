import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.sources import open_source
from tests.data.sources.layouts import make_folder, make_tar, make_zip, under
from tests.shared_data import shared_file


def idx(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 256, (count, 28, 28), dtype=np.uint8),
        rng.integers(0, 10, count, dtype=np.uint8),
    )


TRAIN, TEST = digits(9, 0), digits(4, 1)


def files(dot: str = "-", gz: bool = False) -> dict[str, bytes]:
    arrays = {
        f"train-images{dot}idx3-ubyte": TRAIN[0], f"train-labels{dot}idx1-ubyte": TRAIN[1],
        f"t10k-images{dot}idx3-ubyte": TEST[0], f"t10k-labels{dot}idx1-ubyte": TEST[1],
    }  # fmt: skip
    if gz:
        return {f"{name}.gz": gzip.compress(idx(array)) for name, array in arrays.items()}
    return {name: idx(array) for name, array in arrays.items()}


def check(spec: str) -> None:
    for split, (images, labels) in (("train", TRAIN), ("val", TEST)):
        source = open_source(spec, split)  # type: ignore[arg-type]
        assert source.labels.tolist() == labels.tolist()
        assert len(source) == len(images)
        for index, image in enumerate(images):
            assert np.array_equal(source.image(index), image[..., None])


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("inside", ["", "raw/", "MNIST/raw/"])
def test_every_spelling_and_place(tmp_path: Path, dot: str, gz: bool, inside: str) -> None:
    make_folder(tmp_path, {inside + name: data for name, data in files(dot, gz).items()})
    check(f"mnist:{tmp_path}")


def test_archives(tmp_path: Path) -> None:
    check(f"mnist:{make_tar(tmp_path / 'a.tar', files(gz=True))}")
    # As Kaggle has them: a folder of the same name beside each file.
    kaggle = {**files("."), **{f"{n}/{n}": b"other" for n in files()}}
    check(f"mnist:{make_zip(tmp_path / 'a.zip', kaggle)}")


def test_the_spec_says_which_of_the_two_it_is(tmp_path: Path) -> None:
    fashion = (b"\0" * 4 + idx(TEST[0])[4:], idx(TEST[1])[:-1])
    home = make_folder(tmp_path, under("FashionMNIST/raw", files()))
    make_folder(home, dict(zip((f"MNIST/raw/{name}" for name in files()), fashion, strict=False)))
    check(f"fashion_mnist:{home}")
    names = open_source(f"fashion_mnist:{home}", "val").class_names
    assert (names[0], names[9], len(names)) == ("T-shirt/top", "Ankle boot", 10)
    with pytest.raises(ValueError, match="train-images-idx3-ubyte cannot be read"):
        open_source(f"mnist:{home}", "train")
    for path in (home / "FashionMNIST", home / "FashionMNIST" / "raw"):
        with pytest.raises(ValueError, match=f"write fashion_mnist:{path}"):
            open_source(f"mnist:{path}", "val")


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        (IMAGES, None, r"no t10k-images-idx3-ubyte in .*, nor t10k-images-idx3-ubyte\.gz: downl"),
        (IMAGES, b"", "begins with  and not with 00000803"),
        (IMAGES, idx(TEST[1]), "begins with 00000801 and not with 00000803"),
        (IMAGES, b"<html>", "begins with 3c68746d and not"),
        (IMAGES, idx(TEST[0])[:9], "cannot be read .it is cut"),
        (IMAGES, idx(TEST[0])[:-1], "it has 3,135 values and its header says 3,136"),
        (IMAGES, idx(TEST[0]) + b"x", "it has 3,137 values and its header says 3,136"),
        (IMAGES, bytes([0, 0, 8, 3]) + b"\xff" * 12, "it has 0 values and its header says 79,2"),
        (IMAGES, idx(TEST[0].astype(">u2")).replace(b"\x08", b"\x0b", 1), "begins with 00000b03"),
        (LABELS, idx(TEST[1][:3]), "4 pictures and 3 labels"),
        (LABELS, idx(TEST[1] + 10), "is out of range"),
        (IMAGES, idx(TEST[0][:0]), "0 pictures and 4 labels"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, name: str, data: bytes | None, sentence: str
) -> None:
    good = {**files(), name: data}
    home = make_folder(tmp_path, {key: value for key, value in good.items() if value is not None})
    with pytest.raises(ValueError, match=sentence):
        open_source(f"mnist:{home}", "val")


@pytest.mark.parametrize("cut", [5, 300, -9])
def test_a_cut_gzip_is_named(tmp_path: Path, cut: int) -> None:
    good = files(gz=True)
    home = make_folder(tmp_path, {**good, f"{IMAGES}.gz": good[f"{IMAGES}.gz"][:cut]})
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
        open_source(f"mnist:{home}", "val")


@pytest.mark.parametrize("kind", ["mnist", "fashion_mnist"])
def test_the_real_pictures_through_idx_files(tmp_path: Path, kind: str) -> None:
    with np.load(shared_file(f"{kind}.npz")) as arrays:
        images, labels = arrays["x_test"], arrays["y_test"]
    named = {f"{IMAGES}.gz": gzip.compress(idx(images), 1), LABELS: idx(labels.astype(np.uint8))}
    idx_files = open_source(f"{kind}:{make_folder(tmp_path, named)}", "val")
    npz = open_source(f"npz:{shared_file(f'{kind}.npz')}", "val")
    assert np.array_equal(idx_files.labels, npz.labels)
    assert all(np.array_equal(idx_files.image(i), npz.image(i)) for i in range(0, 10000, 97))
