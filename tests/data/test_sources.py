import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.sources import open_source
from pipeline.data.sources.base import UnreadablePicture
from pipeline.data.sources.digits import validation_indices
from tests.shared_data import shared_file


def png(height: int = 6, width: int = 5, mode: str = "RGB", seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(data, "PNG" if mode != "CMYK" else "TIFF")
    return data.getvalue()


def make_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def make_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


FILES = {
    "train/cat/a.png": png(seed=1),
    "train/cat/b.png": png(7, 9, seed=2),
    "train/ant/deep/c.png": png(mode="L", seed=3),
    "train/notes.txt": b"not a class",
    "train/cat/.DS_Store": b"hidden",
    "val/ant/d.png": png(seed=4),
    "val/cat/e.png": png(seed=5),
    "README": b"top",
}


def test_the_digits_split_never_moves() -> None:
    train, val = open_source("digits", "train"), open_source("digits", "val")
    assert (len(train), len(val)) == (1437, 360)
    assert np.bincount(val.labels).min() >= 34
    content = hashlib.sha256()
    for source in (train, val):
        for index in range(len(source)):
            image = source.image(index)
            assert image.shape == (8, 8, 1)
            content.update(image.tobytes())
        content.update(source.labels.tobytes())
    assert content.hexdigest() == DIGITS_SHA256


DIGITS_SHA256 = "8a75dcdc20a6b4f2306b4318f4b51a2400b272ba2c7913685e6ce88ddaf05f00"


def test_digits_are_scaled_and_rounded() -> None:
    from sklearn.datasets import load_digits

    raw = load_digits()
    chosen = validation_indices(raw.target)
    source = open_source("digits", "val")
    for index in (0, 17, 359):
        expected = [round(v * 255 / 16) for v in raw.images[chosen[index]].ravel()]
        assert source.image(index).ravel().tolist() == expected


def test_folder_and_tar_are_the_same_source(tmp_path: Path) -> None:
    folder = open_source(f"folder:{make_folder(tmp_path / 'photos', FILES)}", "train")
    tar = open_source(f"folder:{make_tar(tmp_path / 'photos.tar', FILES)}", "train")
    for source in (folder, tar):
        assert source.class_names == ("ant", "cat")
        assert source.labels.tolist() == [0, 1, 1]
        assert source.passed_over == ("train/notes.txt",)
        assert source.photographs
    for index in range(3):
        assert np.array_equal(folder.image(index), tar.image(index))
    assert tar.describe(0) == "photos.tar:train/ant/deep/c.png"
    assert folder.image(0).shape == (6, 5, 3), "a grey photograph becomes RGB"


def test_without_a_split_folder_the_top_holds_the_classes(tmp_path: Path) -> None:
    make_folder(tmp_path, {"ant/a.png": png(), "cat/b.png": png(), "LIST.json": b"{}"})
    source = open_source(f"folder:{tmp_path}", "val")
    assert source.class_names == ("ant", "cat")
    assert source.passed_over == ("LIST.json",)


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/ant/a.png": png()})
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(ValueError, match=r"class 'cat' in .* is empty"):
        open_source(f"folder:{tmp_path}", "train")


@pytest.mark.parametrize("data", [png()[:60], b"<html>not found</html>", b""])
def test_a_damaged_picture_is_named(tmp_path: Path, data: bytes) -> None:
    make_folder(tmp_path, {"ant/a.png": data})
    with pytest.raises(ValueError, match=r"ant/a\.png cannot be read"):
        open_source(f"folder:{tmp_path}", "train").image(0)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA"])
def test_every_kind_of_photograph_becomes_rgb(tmp_path: Path, mode: str) -> None:
    make_folder(tmp_path, {"ant/a": png(mode=mode)})
    assert open_source(f"folder:{tmp_path}", "train").image(0).shape == (6, 5, 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_picture_of_more_than_8_bits_is_refused_not_clipped(tmp_path: Path, dtype: type) -> None:
    data = io.BytesIO()
    Image.fromarray(np.arange(30, dtype=dtype).reshape(6, 5)).save(data, "TIFF")
    make_folder(tmp_path, {"ant/a": data.getvalue()})
    with pytest.raises(ValueError, match=r"ant/a cannot be read \(mode .*more than 8 bits"):
        open_source(f"folder:{tmp_path}", "train").image(0)


def test_a_missing_split_is_not_replaced_by_the_other(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/ant/a.png": png(), "train/cat/b.png": png(), "val/c.png": png()})
    with pytest.raises(ValueError, match="it has train but no folder val with class folders"):
        open_source(f"folder:{tmp_path}", "val")


def test_splits_with_other_classes_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {**FILES, "train/bee/z.png": png()})
    for split in ("train", "val"):
        with pytest.raises(ValueError, match="not the same classes, only one of them has 'bee'"):
            open_source(f"folder:{folder}", split)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/a.png": png(), "bus/b.png": png()})
    assert open_source(f"folder:{tmp_path}", "train").class_names == ("bus", "train")


def test_one_lone_folder_at_the_top_is_stepped_into(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", {f"./photos/{name}": data for name, data in FILES.items()})
    source = open_source(f"folder:{tar}", "train")
    assert source.class_names == ("ant", "cat")
    assert source.passed_over == ("photos/train/notes.txt",)


def test_a_tar_packed_by_tar_is_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", FILES)
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(folder, ".")  # members ".", "./train", "./train/cat", ...
    whole = open_source(f"folder:{tmp_path / 'photos.tar'}", "val")
    assert whole.class_names == ("ant", "cat")
    assert len(whole) == 2


def test_links_to_classes_are_followed_and_links_in_a_tar_refused(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", FILES)
    subset = tmp_path / "subset"
    subset.mkdir()
    for name in ("ant", "cat"):
        (subset / name).symlink_to(photos / "train" / name)
    assert len(open_source(f"folder:{subset}", "train")) == 3
    with tarfile.open(tmp_path / "subset.tar", "w") as archive:
        archive.add(subset, ".")
    with pytest.raises(ValueError, match=r"ant is a link.*--dereference"):
        open_source(f"folder:{tmp_path / 'subset.tar'}", "train")


def test_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    source = open_source(f"folder:{make_folder(tmp_path / 'photos', FILES)}", "train")
    (tmp_path / "photos/train/cat/b.png").unlink()
    with pytest.raises(UnreadablePicture, match=r"photos/train/cat/b\.png cannot be read") as error:
        source.image(2)
    assert error.value.picture == source.describe(2)
    assert error.value.reason == "No such file or directory"


def test_the_identity_is_that_of_the_listing(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", FILES)
    spec = f"folder:{folder}"
    first = open_source(spec, "train").identity
    assert len(first) == 64
    assert open_source(spec, "train").identity == first
    assert open_source(f"folder:{make_tar(tmp_path / 'a.tar', FILES)}", "train").identity == first
    found = {first, open_source(spec, "val").identity}
    (folder / "train/cat/b.png").write_bytes(png(8, 9, seed=2))
    found.add(open_source(spec, "train").identity)
    (folder / "train/cat/b.png").rename(folder / "train/ant/b.png")
    found.add(open_source(spec, "train").identity)
    (folder / "train/ant/b.png").unlink()
    (folder / "train/ant/b.png").symlink_to("/nowhere")
    found.add(open_source(spec, "train").identity)
    assert len(found) == 5
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    for change in (0, 1):
        images[0, 0, 0] = change
        for label in (0, 1):
            spec = save_npz(tmp_path, image=images, label=np.array([label, 1]))
            found.add(open_source(spec, "val").identity)
    found.add(open_source("digits", "val").identity)
    assert len(found) == 10


def test_small_square_pictures_of_one_size_are_no_photographs(tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": png(64, 64, seed=i) for name in "ab" for i in range(3)}
    source = open_source(f"folder:{make_folder(tmp_path / 'same', files)}", "train")
    assert not source.photographs
    many = {f"{name}/{i:03}.png": png(8, 8, seed=i) for name in "ab" for i in range(80)}
    odd = make_folder(tmp_path / "odd", {**many, "b/078.png": png(8, 9)})
    source = open_source(f"folder:{odd}", "train")  # the odd one is not among those looked at
    assert not source.photographs
    with pytest.raises(
        ValueError, match=r"b/078\.png cannot be read \(it has 8x9 pixels, the others 8x8"
    ):
        source.image(158)
    for index, sides in enumerate([(65, 65), (40, 41)]):
        files = {f"{name}/0.png": png(*sides) for name in "ab"}
        folder = make_folder(tmp_path / f"photos{index}", files)
        assert open_source(f"folder:{folder}", "train").photographs


def test_a_compressed_tar_is_refused_with_the_mend(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("ant/a.png"))
    with pytest.raises(ValueError, match="not a whole, uncompressed tar"):
        open_source(f"folder:{tmp_path / 'photos.tar'}", "train")


@pytest.mark.parametrize(
    ("spec", "mend"),
    [
        ("digit", "did you mean digits"),
        ("foldr:/x", "did you mean folder:/x"),
        ("folder:/no/such/place", "/no/such/place does not exist"),
        (f"folder:{Path(__file__).parents[1] / 'dta'}", f"did you mean {Path(__file__).parent}?"),
        (str(Path(__file__).parent), f"did you mean folder:{Path(__file__).parent}?"),
        ("npz:/no/such.npz", "does not exist"),
        ("imagenet", "write where it lies, imagenet:PATH"),
        ("cifr100", "did you mean cifar100:PATH?"),
        ("train.betn", "expected digits, imagenet:PATH, tiny_imagenet:PATH"),
        ("folder:/data/ILSVRC2012_img_train.tar", "write imagenet:/data"),
        ("imagenet:/data/in1k", "/data/in1k does not exist"),
    ],
)
def test_a_misspelt_source_names_the_mend(spec: str, mend: str) -> None:
    with pytest.raises(ValueError, match="data") as error:
        open_source(spec, "train")
    assert mend in str(error.value)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("photos", "folder"),
        ("a.npz", "npz"),
        ("ILSVRC2012_img_val.tar", "imagenet"),
        ("in/ILSVRC2012_img_train.tar", "imagenet"),
        ("cifar-10-python.tar.gz", "cifar10"),
        ("in/cifar-100-binary/train.bin", "cifar100"),
        ("tiny-imagenet-200.zip", "tiny_imagenet"),
    ],
)
def test_a_bare_path_names_the_likely_form(tmp_path: Path, name: str, form: str) -> None:
    path = make_folder(tmp_path, {name: b""}) / name.split("/")[0]
    with pytest.raises(ValueError, match=f"did you mean {form}:{path}\\?"):
        open_source(str(path), "val")


def save_npz(tmp_path: Path, **arrays: np.ndarray) -> str:
    np.savez(tmp_path / "a.npz", **arrays)
    return f"npz:{tmp_path / 'a.npz'}"


def test_the_three_npz_layouts(tmp_path: Path) -> None:
    grey = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    labels = np.array([1, 0], np.uint8)
    arrays = {"x_train": grey, "y_train": labels, "x_test": grey[:1], "y_test": labels[:1]}
    source = open_source(save_npz(tmp_path, **arrays), "val")
    assert len(source) == 1
    assert source.image(0).shape == (4, 4, 1)
    assert source.class_names == ("0", "1")

    first, second = png(seed=1), png(mode="L", seed=2)
    both = np.frombuffer(first + second, np.uint8)
    offsets = np.array([0, len(first), len(both)])
    names = np.array(["ant", "cat"])
    spec = save_npz(
        tmp_path, train_bytes=both, train_offsets=offsets, y_train=labels, class_names=names
    )
    source = open_source(spec, "train")
    assert source.class_names == ("ant", "cat")
    assert source.image(1).shape == (6, 5, 3)
    with Image.open(io.BytesIO(first)) as picture:
        assert np.array_equal(source.image(0), np.asarray(picture))

    colour = np.zeros((2, 4, 4, 3), np.uint8)
    source = open_source(save_npz(tmp_path, image=colour, label=labels.astype(np.int64)), "train")
    assert source.image(0).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"y_train": np.array([0, 10])}, "label 10 of sample 1 is out of range"),
        ({"y_train": np.array([-1, 0])}, "label -1 of sample 0 is out of range"),
        ({"y_train": np.array([0])}, "expected 2 integer labels"),
        ({"y_train": np.array([0.0, 1.0])}, "expected 2 integer labels"),
        ({"x_train": np.zeros((2, 4, 4))}, "images must be uint8"),
        ({"x_train": np.zeros((0, 4, 4), np.uint8)}, "holds no images"),
        ({"class_names": np.array(list("ab"), dtype=object)}, "'class_names' is not loaded"),
    ],
)
def test_a_wrong_archive_is_one_sentence(
    tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str
) -> None:
    good = {
        "x_train": np.zeros((2, 4, 4), np.uint8),
        "y_train": np.array([0, 1]),
        "class_names": np.array(list("abcdefghij")),
    }
    with pytest.raises(ValueError, match=r"a\.npz") as error:
        open_source(save_npz(tmp_path, **{**good, **arrays}), "train")
    assert sentence in str(error.value)


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    spec = save_npz(tmp_path, x_train=np.array([{}], dtype=object), y_train=np.array([0]))
    with pytest.raises(ValueError, match="allow_pickle"):
        open_source(spec, "train")


def test_a_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (500, 4, 4), dtype=np.uint8)
    np.savez_compressed(path, x_train=pixels, y_train=np.arange(500) % 3)
    whole = path.read_bytes()
    for cut in (0, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"^a\.npz "):
            open_source(f"npz:{path}", "train")
    for place in range(200, len(whole) // 2, 97):
        flipped = bytearray(whole)
        flipped[place] ^= 255
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"^a\.npz.* is damaged"):
            open_source(f"npz:{path}", "train")
    np.save(tmp_path / "b.npy", pixels)
    (tmp_path / "b.npy").rename(path)
    with pytest.raises(ValueError, match=r"^a\.npz is a single array"):
        open_source(f"npz:{path}", "train")


@pytest.mark.parametrize("offsets", [[0, 5], [0, 9, 5], [1, 5, 10], [0, -5, 10], [0.0, 5.0, 10.0]])
def test_wrong_offsets_are_named(tmp_path: Path, offsets: list[int]) -> None:
    spec = save_npz(
        tmp_path,
        train_bytes=np.zeros(10, np.uint8),
        train_offsets=np.array(offsets),
        y_train=np.array([0, 1]),
    )
    with pytest.raises(ValueError, match=r"a\.npz: its offsets do not ascend"):
        open_source(spec, "train")


def test_a_damaged_picture_in_an_archive_is_named(tmp_path: Path) -> None:
    good, bad = png(), png()[:40]
    spec = save_npz(
        tmp_path,
        train_bytes=np.frombuffer(good + bad, np.uint8),
        train_offsets=np.array([0, len(good), len(good) + len(bad)]),
        y_train=np.array([0, 1]),
    )
    with pytest.raises(ValueError, match=r"a\.npz:train/1 cannot be read"):
        open_source(spec, "train").image(1)


@pytest.mark.parametrize(
    ("name", "split", "count", "shape", "classes"),
    [
        ("tiny_imagenet_64_jpeg_10k_2k.npz", "val", 2000, (64, 64, 3), 200),
        ("mnist.npz", "val", 10000, (28, 28, 1), 10),
        ("cifar10_jpeg_full.npz", "val", 10000, (32, 32, 3), 10),
    ],
)
def test_real_archives(
    name: str, split: str, count: int, shape: tuple[int, ...], classes: int
) -> None:
    source = open_source(f"npz:{shared_file(name)}", split)
    assert len(source) == count
    assert len(source.class_names) == classes
    assert not source.photographs
    for index in (0, count // 2, count - 1):
        assert source.image(index).shape == shape


def test_a_real_tar_of_photographs() -> None:
    source = open_source(f"folder:{shared_file('imagewoof_320_sub.tar')}", "val")
    assert (len(source), len(source.class_names)) == (200, 10)
    assert min(source.image(3).shape[:2]) == 320
