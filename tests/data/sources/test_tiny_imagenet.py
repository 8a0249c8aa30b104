from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.sources import Source, open_source
from tests.data.sources.layouts import (
    NAMES,
    WNIDS,
    jpeg,
    make_folder,
    make_tar,
    make_zip,
    pixels,
    under,
)
from tests.shared_data import shared_file

UNSORTED = (WNIDS[2], WNIDS[0], WNIDS[3], WNIDS[1])
VAL = {f"val_{i}.JPEG": (jpeg(50 + i, 64, 64), (3 * i) % 4) for i in range(12)}


def tiny_files() -> dict[str, bytes]:
    files = {
        "wnids.txt": "".join(f"{wnid}\n" for wnid in UNSORTED).encode(),
        "words.txt": "".join(
            f"{wnid}\t{name}, more\n" for wnid, name in zip(WNIDS, NAMES, strict=True)
        ).encode(),
        "test/images/test_0.JPEG": jpeg(99, 64, 64),
        "val/val_annotations.txt": "".join(
            f"{name}\t{WNIDS[label]}\t0\t32\t44\t62\n" for name, (_, label) in VAL.items()
        ).encode(),
        **{f"val/images/{name}": data for name, (data, _) in VAL.items()},
    }
    for label, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"n_0.JPEG\t0\t10\t63\t58\n"
        for number in (0, 1, 10):
            files[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = jpeg(20 * label + number, 64, 64)
    return files


def check(spec: str) -> None:
    files = tiny_files()
    for split in ("train", "val"):
        source: Source = open_source(spec, split)  # type: ignore[arg-type]
        assert source.class_names == tuple(
            f"{wnid} {name}" for wnid, name in zip(WNIDS, NAMES, strict=True)
        )
        assert not source.photographs
        assert not source.passed_over
        assert len(source) == 12
        for index in range(12):
            name = source.describe(index).rpartition("/")[2]
            label = VAL[name][1] if split == "val" else WNIDS.index(name.partition("_")[0])
            data = VAL[name][0] if split == "val" else next(
                data for file, data in files.items() if file.endswith(f"/{name}")
            )  # fmt: skip
            assert source.labels[index] == label
            assert np.array_equal(source.image(index), pixels(data))


def test_every_form(tmp_path: Path) -> None:
    inside = under("tiny-imagenet-200", tiny_files())
    check(f"tiny_imagenet:{make_folder(tmp_path / 'a', inside)}")
    check(f"tiny_imagenet:{tmp_path / 'a' / 'tiny-imagenet-200'}")
    check(f"tiny_imagenet:{make_zip(tmp_path / 'tiny-imagenet-200.zip', inside)}")
    check(f"tiny_imagenet:{make_tar(tmp_path / 'tiny.tar', inside)}")


@pytest.mark.parametrize("inside", ["", "images/"])
def test_a_val_sorted_into_classes(tmp_path: Path, inside: str) -> None:
    files = {name: data for name, data in tiny_files().items() if not name.startswith("val/")}
    for name, (data, label) in VAL.items():
        files[f"val/{WNIDS[label]}/{inside}{name}"] = data
    check(f"tiny_imagenet:{make_folder(tmp_path, files)}")


def test_labels_are_those_of_sorted_folders(tmp_path: Path) -> None:
    """As torchvision's ImageFolder has them, and `folder:` too."""
    home = make_folder(tmp_path / "tiny", tiny_files())
    for wnid in WNIDS:
        (home / "train" / wnid / f"{wnid}_boxes.txt").unlink()
    folder = open_source(f"folder:{home / 'train'}", "train")
    tiny = open_source(f"tiny_imagenet:{home}", "train")
    assert tiny.labels.tolist() == folder.labels.tolist()


@pytest.mark.parametrize(
    ("split", "name", "change", "sentence"),
    [
        ("val", "wnids.txt", lambda _: None, r"no wnids\.txt in .*: expected tiny-imagenet-200 or"),
        ("val", "wnids.txt", lambda d: d + b"dog\n", r"not a list of different wnids: 'dog'"),
        ("val", "wnids.txt", lambda d: d + d[:10], "not a list of different wnids"),
        ("val", "wnids.txt", lambda _: b"", "not a list of different wnids"),
        ("train", "wnids.txt", lambda d: d[10:], r"train and wnids\.txt have not the same classes"),
        ("val", "wnids.txt", lambda d: d[10:], r"line \d of .*val_annotations\.txt is"),
        ("val", "val/val_annotations.txt", lambda _: None, r"val_annotations\.txt cannot be read"),
        ("val", "val/val_annotations.txt", lambda d: d + b"val_3.JPEG", "line 13 of .*is 'val_3"),
        ("val", "val/val_annotations.txt", lambda d: d[: d.index(b"\n") + 1],
         r"names 1 pictures and val/images holds 12, which are not the same: val/images/val_1\."),
        ("val", "val/val_annotations.txt", lambda d: d + d[: d.index(b"\n") + 1], "names 13 pict"),
        ("val", "val/images/val_4.JPEG", lambda _: None, r"holds 11, .*val_4\.JPEG: fetch"),
        ("train", f"train/{WNIDS[0]}", None, "only one of them has 'n01440764'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path,
    split: str,
    name: str,
    change: Callable[[bytes], bytes | None] | None,
    sentence: str,
) -> None:
    files = tiny_files()
    if change is None:
        files = {file: data for file, data in files.items() if not file.startswith(name)}
    else:
        data = change(files.pop(name))
        files |= {} if data is None else {name: data}
    with pytest.raises(ValueError, match=sentence):
        open_source(f"tiny_imagenet:{make_folder(tmp_path, files)}", split)  # type: ignore[arg-type]


def test_real_pictures_in_the_official_layout(tmp_path: Path) -> None:
    with np.load(shared_file("tiny_imagenet_64_jpeg_10k_2k.npz")) as arrays:
        data, offsets = arrays["val_bytes"], arrays["val_offsets"]
        wnids = [str(wnid) for wnid in arrays["wnids"]]
        labels = arrays["y_val"]
    shuffled = np.random.default_rng(0).permutation(wnids)
    files = {"wnids.txt": "\n".join(shuffled).encode()}
    lines = []
    for index in range(len(labels)):
        files[f"val/images/val_{index}.JPEG"] = data[offsets[index] : offsets[index + 1]].tobytes()
        lines.append(f"val_{index}.JPEG\t{wnids[labels[index]]}\t0\t0\t62\t62\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    source = open_source(f"tiny_imagenet:{make_zip(tmp_path / 'tiny.zip', files)}", "val")
    npz = open_source(f"npz:{shared_file('tiny_imagenet_64_jpeg_10k_2k.npz')}", "val")
    assert source.class_names == tuple(sorted(wnids))
    ours = [source.class_names[label] for label in source.labels]
    assert ours == [npz.class_names[label] for label in npz.labels]
    for index in range(0, len(source), 41):
        assert np.array_equal(source.image(index), npz.image(index))
