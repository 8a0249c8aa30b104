import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.sources import Source, open_source
from pipeline.data.sources.tar import NestedTars
from tests.data.sources.layouts import (
    NAMES,
    VAL_LABELS,
    WNIDS,
    devkit_files,
    jpeg,
    make_folder,
    make_tar,
    make_tar_gz,
    make_zip,
    official_archives,
    pixels,
    solution_csv,
    tar_bytes,
    train_files,
    under,
    val_files,
    val_name,
)
from tests.shared_data import shared_file

NAMED = tuple(f"{wnid} {name}" for wnid, name in zip(WNIDS, NAMES, strict=True))
SORTED_VAL = {
    f"val/{WNIDS[label]}/{val_name(i)}": val_files()[val_name(i)]
    for i, label in enumerate(VAL_LABELS, 1)
}
KAGGLE = "ILSVRC/Data/CLS-LOC"
MAPPING = "".join(
    f"{wnid} {name}, another {name}\n" for wnid, name in zip(WNIDS, NAMES, strict=True)
).encode()
WORDS = (
    b"n99999999\tnothing\nodd line\n"
    + "".join(
        f"{wnid}\t{name}, another\n" for wnid, name in zip(WNIDS, NAMES, strict=True)
    ).encode()
)


def class_folders(home: Path) -> Path:
    index = {str(i): [w, n] for i, (w, n) in enumerate(zip(WNIDS, NAMES, strict=True))}
    listed = {"imagenet_class_index.json": json.dumps(index).encode()}
    return make_folder(home, {**under("train", train_files()), **SORTED_VAL, **listed})


def kaggle_files() -> dict[str, bytes]:
    return {
        **under(f"{KAGGLE}/train", train_files()),
        **under(f"{KAGGLE}/val", val_files()),
        "ILSVRC/Annotations/CLS-LOC/val/x.xml": b"<x/>",
        "LOC_val_solution.csv": solution_csv(),
        "LOC_synset_mapping.txt": MAPPING,
    }


def flat_with_csv(home: Path) -> Path:
    train, val = under("train", train_files()), under("val", val_files())
    lists = {"LOC_val_solution.csv": solution_csv(), "LOC_synset_mapping.txt": MAPPING}
    return make_folder(home, {**train, **val, **lists})


def flat_with_devkit(home: Path) -> Path:
    train, val = under("train", train_files()), under("val", val_files())
    return make_folder(home, {**train, **val, **devkit_files()})


def kaggle(home: Path) -> Path:
    return make_folder(home, kaggle_files())


def kaggle_tar(home: Path) -> Path:
    home.mkdir()
    return make_tar(home / "kaggle.tar", kaggle_files())


def kaggle_zip(home: Path) -> Path:
    home.mkdir()
    return make_zip(home / "kaggle.zip", kaggle_files())


def mixed(home: Path) -> Path:
    """train unpacked, val not; the devkit unpacked."""
    official_archives(home)
    (home / "ILSVRC2012_img_train.tar").unlink()
    (home / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    return make_folder(home, {**under("train", train_files()), **devkit_files()})


def check_train(source: Source) -> None:
    files = train_files()
    assert source.class_names == NAMED
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert source.photographs
    names = [f"{wnid}/{wnid}_{number}.JPEG" for wnid in WNIDS for number in (31, 7)]
    for index, name in enumerate(names):
        assert source.describe(index).endswith(name)
        assert np.array_equal(source.image(index), pixels(files[name]))


def check_val(source: Source) -> None:
    """Every picture of val, found by its pixels, has its own label."""
    assert source.class_names == NAMED
    label_of = {
        pixels(data).tobytes(): label
        for data, label in zip(val_files().values(), VAL_LABELS, strict=True)
    }
    found = {source.image(i).tobytes(): int(source.labels[i]) for i in range(len(source))}
    assert found == label_of
    assert len(source) == len(VAL_LABELS)


@pytest.mark.parametrize(
    "make",
    [
        class_folders, flat_with_csv, flat_with_devkit, kaggle, kaggle_tar, kaggle_zip, mixed,
        official_archives,
    ],
)  # fmt: skip
def test_every_layout_is_the_same_data_set(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    spec = f"imagenet:{make(tmp_path / 'in1k')}"
    check_train(open_source(spec, "train"))
    check_val(open_source(spec, "val"))


def test_a_flat_val_is_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for make in (flat_with_csv, official_archives):
        source = open_source(f"imagenet:{make(tmp_path / make.__name__)}", "val")
        assert source.labels.tolist() == list(VAL_LABELS)


@pytest.mark.parametrize("inside", ["ILSVRC", "ILSVRC/Data", KAGGLE])
def test_kaggles_lists_are_found_from_inside(tmp_path: Path, inside: str) -> None:
    home = kaggle(tmp_path / "in1k")
    check_val(open_source(f"imagenet:{home / inside}", "val"))
    check_train(open_source(f"imagenet:{home / inside}", "train"))


def test_one_lone_folder_at_the_top_is_stepped_into(tmp_path: Path) -> None:
    flat_with_csv(tmp_path / "disk" / "in1k")
    check_val(open_source(f"imagenet:{tmp_path / 'disk'}", "val"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("words.txt", WORDS),
        ("LOC_synset_mapping.txt", MAPPING),
    ],
)
def test_lists_of_names(tmp_path: Path, name: str, content: bytes) -> None:
    home = make_folder(tmp_path, {**under("train", train_files()), name: content})
    assert open_source(f"imagenet:{home}", "train").class_names == NAMED
    assert open_source(f"folder:{home}", "train").class_names == NAMED


def test_without_a_list_the_wnids_are_the_names(tmp_path: Path) -> None:
    home = make_folder(tmp_path, under("train", train_files()))
    assert open_source(f"imagenet:{home}", "train").class_names == WNIDS


def test_the_usual_list_names_all_thousand(tmp_path: Path) -> None:
    listed = shared_file("imagenet_class_index.json").read_bytes()
    index = json.loads(listed)
    wnids = [index[str(i)][0] for i in range(1000)]
    assert wnids == sorted(wnids)
    files = {f"train/{wnid}/a.JPEG": b"" for wnid in wnids}
    make_folder(tmp_path, {**files, "imagenet_class_index.json": listed})
    names = open_source(f"imagenet:{tmp_path}", "train").class_names
    assert names[:3] == ("n01440764 tench", "n01443537 goldfish", "n01484850 great white shark")
    assert len(set(names)) == 1000
    assert {names[134], names[517]} == {"n02012849 crane", "n03126707 crane"}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"0": "tench"}', b"\xff"])
def test_a_damaged_list_of_names_is_named(tmp_path: Path, content: bytes) -> None:
    files = under("train", train_files())
    home = make_folder(tmp_path, {**files, "imagenet_class_index.json": content})
    with pytest.raises(ValueError, match=r"imagenet_class_index\.json, which names the classes"):
        open_source(f"imagenet:{home}", "train")


def test_a_real_photograph_from_a_tar_of_tars(tmp_path: Path) -> None:
    real = open_source(f"folder:{shared_file('unit_mini.tar')}", "train")
    inner: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shared_file("unit_mini.tar")) as archive:
        for member in archive:
            parts = member.name.split("/")
            if member.isreg() and "train" in parts:
                file = archive.extractfile(member)
                assert file is not None
                inner.setdefault(parts[-2], {})[parts[-1]] = file.read()
    outer = {f"{wnid}.tar": tar_bytes(files) for wnid, files in inner.items()}
    make_tar(tmp_path / "ILSVRC2012_img_train.tar", outer)
    source = open_source(f"imagenet:{tmp_path}", "train")
    assert source.class_names == real.class_names
    assert source.labels.tolist() == real.labels.tolist()
    for index in range(len(real)):
        assert np.array_equal(source.image(index), real.image(index))


def read_bytes() -> int:
    """Bytes that this process has read so far, from whatever."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def test_listing_an_archive_reads_headers_only(tmp_path: Path) -> None:
    big = jpeg(0) + bytes(2**20)  # what follows the end of a JPEG is not looked at
    inner = tar_bytes({f"{i}.JPEG": big for i in range(16)})
    make_tar(tmp_path / "ILSVRC2012_img_train.tar", {f"{w}.tar": inner for w in WNIDS})
    before = read_bytes()
    tree = NestedTars(tmp_path / "ILSVRC2012_img_train.tar", "imagenet:x")
    listed = tree.listing(WNIDS[2])[1]
    assert len(listed) == 16
    assert read_bytes() - before < 200_000, "of 64 MB"
    assert tree.read(f"{WNIDS[2]}/3.JPEG") == big


def broken(make: Callable[[Path], Path], change: Callable[[Path], object]) -> Callable[[Path], str]:
    def build(tmp_path: Path) -> str:
        home = make(tmp_path / "in1k")
        change(home)
        return f"imagenet:{home}"

    return build


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda home: make_folder(home, {name: data})


def remove(name: str) -> Callable[[Path], object]:
    return lambda home: (home / name).unlink()


def cut(name: str, share: float) -> Callable[[Path], object]:
    def change(home: Path) -> None:
        data = (home / name).read_bytes()
        (home / name).write_bytes(data[: int(len(data) * share) // 512 * 512])

    return change


def without(text: bytes, name: str) -> Callable[[Path], object]:
    def change(home: Path) -> None:
        lines = (home / name).read_bytes().splitlines(keepends=True)
        (home / name).write_bytes(b"".join(line for line in lines if text not in line))

    return change


TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
META = "ILSVRC2012_devkit_t12/data/meta.mat"
CSV = "LOC_val_solution.csv"
TRAIN_TAR = "ILSVRC2012_img_train.tar"


@pytest.mark.parametrize(
    ("build", "split", "sentence"),
    [
        (broken(flat_with_csv, remove(CSV)), "val",
         r"nothing tells their classes: put LOC_val_solution\.csv \(Kaggle\) or ILSVRC2012_devkit"),
        (broken(flat_with_csv, remove(f"val/{val_name(3)}")), "val",
         r"val holds 7 pictures and .*LOC_val_solution\.csv tells the classes of 8; "
         r"ILSVRC2012_val_00000003\.JPEG is missing"),
        (broken(flat_with_csv, without(b"val_00000005", CSV)), "val",
         r"ILSVRC2012_val_00000005\.JPEG has no class: take .*LOC_val_solution\.csv from the same"),
        (broken(flat_with_csv, write(CSV, b"ImageId,P\nILSVRC2012_val_00000001,tench 1 2")), "val",
         r"line 2 of .*LOC_val_solution\.csv is 'ILSVRC2012_val_00000001,tench 1 2', expected"),
        (broken(flat_with_csv, write(CSV, solution_csv().replace(b"n01440764", b"n77777777"))),
         "val", r"LOC_val_solution\.csv and train have not the same classes, .*'n01440764'"),
        (broken(flat_with_csv, write(CSV, b"\xff\xfe")), "val", r"csv cannot be read .*: fetch"),
        (broken(flat_with_devkit, remove(META)), "val", r"meta\.mat, which gives .* is missing"),
        (broken(flat_with_devkit, remove(TRUTH)), "val",
         r"ground_truth\.txt, which gives the pictures of val classes, is missing: take it from"),
        (broken(flat_with_devkit, write(META, b"no matlab")), "val",
         r"meta\.mat is not the devkit's list of classes"),
        (broken(flat_with_devkit, write(TRUTH, devkit_files({4: 5})[TRUTH])), "val",
         r"line 4 of .*ground_truth\.txt is '5', which meta\.mat does not list as a class"),
        (broken(flat_with_devkit, write(TRUTH, b"1\n2\n3\n")), "val",
         r"8 pictures and .*ground_truth\.txt tells the classes of 3; ILSVRC2012_val_00000004"),
        (broken(official_archives, cut(TRAIN_TAR, 0.5)), "train",
         r"ILSVRC2012_img_train\.tar.* is not a whole, uncompressed tar .*: fetch it again"),
        (broken(official_archives, cut("ILSVRC2012_img_val.tar", 0.7)), "val",
         r"ILSVRC2012_img_val\.tar is not a whole"),
        (broken(official_archives, cut("ILSVRC2012_devkit_t12.tar.gz", 0.5)), "val",
         r"devkit_t12\.tar\.gz is not a whole tar archive"),
        (broken(official_archives, lambda home: make_tar(home / TRAIN_TAR, {"a.JPEG": b""})),
         "train", r"train\.tar holds a\.JPEG, where only archives of one class each are expected"),
        (broken(official_archives, lambda home: make_tar(home / TRAIN_TAR, {
            f"{w}.tar": tar_bytes({"a.JPEG": jpeg(1)}) for w in WNIDS[:3]})),
         "val", r"ground_truth\.txt and train have not the same classes, .*'n03710637'"),
        (broken(official_archives, lambda home: make_tar(home / TRAIN_TAR, {
            "n01440764.tar": tar_bytes({}), "n02085620.tar": b"rubbish"})),
         "train", r"train\.tar:n02085620\.tar is not a whole"),
        (broken(official_archives, lambda home: make_tar(home / TRAIN_TAR, {
            "n01440764.tar": tar_bytes({})})), "train", r"class 'n01440764' in .* is empty"),
        (broken(class_folders, write("train/tench/a.JPEG", jpeg(1))), "train",
         r"folder 'tench' in in1k/train, where class folders called by wnids"),
        (broken(class_folders, write("val/n09999999/a.JPEG", jpeg(1))), "train",
         r"train and val have not the same classes, only one of them has 'n09999999'"),
        (broken(lambda home: make_folder(home, train_files()), lambda _: None), "train",
         r"no train pictures in .*: it holds class folders itself: give the folder above it"),
        (broken(lambda home: make_folder(home, {"a/b": b""}), lambda _: None), "val",
         r"no val pictures in .*: expected val/n01440764/ and so on, ILSVRC/Data/CLS-LOC/val/ or "),
        (broken(lambda home: make_folder(home, {"val/a.txt": b""}), lambda _: None), "val",
         r"in1k/val holds neither class folders such as n01440764 nor pictures such as ILSVRC"),
        (broken(lambda home: make_folder(home, {"train/a.txt": b""}), lambda _: None), "train",
         r"no folders in in1k/train, where class folders called by wnids"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_with_the_mend(
    tmp_path: Path, build: Callable[[Path], str], split: str, sentence: str
) -> None:
    spec = build(tmp_path)
    with pytest.raises(ValueError, match=sentence) as error:
        open_source(spec, split)  # type: ignore[arg-type]
    assert str(error.value).startswith(f"data {spec}: ")


def test_an_official_archive_is_read_from_its_folder(tmp_path: Path) -> None:
    home = official_archives(tmp_path / "in1k")
    for form in ("imagenet", "folder"):
        with pytest.raises(ValueError, match=f"imagenet:{home}$"):
            open_source(f"{form}:{home / TRAIN_TAR}", "train")


def test_a_flat_val_given_as_a_folder_is_shown_the_way(tmp_path: Path) -> None:
    home = flat_with_csv(tmp_path / "in1k")
    with pytest.raises(ValueError, match=f"no folder val .*layouts are read by imagenet:{home}$"):
        open_source(f"folder:{home}", "val")


def test_strays_beside_classes_and_pictures_are_named(tmp_path: Path) -> None:
    home = flat_with_csv(tmp_path)
    make_folder(home, {"val/valprep.sh": b"", "val/.DS_Store": b"", "train/notes.txt": b""})
    assert open_source(f"imagenet:{home}", "val").passed_over == ("val/valprep.sh",)
    assert open_source(f"imagenet:{home}", "train").passed_over == ("train/notes.txt",)


def test_a_folder_called_like_a_picture_is_unreadable_not_lost(tmp_path: Path) -> None:
    home = flat_with_csv(tmp_path / "in1k")
    for place in (f"val/{val_name(2)}", f"train/{WNIDS[0]}/{WNIDS[0]}_7.JPEG"):
        (home / place).unlink()
        (home / place).mkdir()
    for split, index in (("val", 1), ("train", 1)):
        source = open_source(f"imagenet:{home}", split)  # type: ignore[arg-type]
        assert len(source) == 8
        with pytest.raises(ValueError, match=r"\.JPEG cannot be read \(Is a directory\)"):
            source.image(index)


def test_the_devkits_archive_is_the_unpacked_one(tmp_path: Path) -> None:
    home = flat_with_devkit(tmp_path / "in1k")
    unpacked = open_source(f"imagenet:{home}", "val")
    other = make_folder(tmp_path / "other", under("val", val_files()))
    make_tar_gz(other / "ILSVRC2012_devkit_t12.tar.gz", devkit_files())
    packed = open_source(f"imagenet:{other}", "val")
    assert packed.identity == unpacked.identity
