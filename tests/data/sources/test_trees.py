"""Folders and archives are the same tree; damaged archives are refused."""

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.sources import open_source
from pipeline.data.sources.open_tree import open_tree
from pipeline.data.sources.tar import CompressedTar
from pipeline.data.sources.tree import Tree, has_file, has_folder, walk
from tests.data.sources.layouts import (
    jpeg,
    make_folder,
    make_tar,
    make_tar_gz,
    make_zip,
    train_files,
)

FILES = {
    "b/x.txt": b"x",
    "b/x/2": b"two",
    "b/x/10": b"ten" * 1000,
    "b/x-1": b"",
    "b.txt/a": b"deep",
    "a": b"top",
    "b/.hidden/a": b"not shown",
    "b/._x.txt": b"not shown",
    "ü/é ñ.JPEG": "größe".encode(),
    "long/" + "n" * 150 + "/" + "m" * 180: b"longer than a tar header has room for",
}
SHOWN = {name: data for name, data in FILES.items() if "/." not in name}


def trees(tmp_path: Path) -> list[Tree]:
    places = [
        make_folder(tmp_path / "folder", FILES),
        make_tar(tmp_path / "a.tar", FILES),
        make_zip(tmp_path / "a.zip", {**FILES, "__MACOSX/b/x": b"resource fork"}),
    ]
    names = {name.rpartition("/")[2] for name in FILES}
    gz = CompressedTar(make_tar_gz(tmp_path / "a.tar.gz", FILES), "spec", names)
    return [*(open_tree(place, "spec") for place in places), gz]


def test_all_are_the_same_tree(tmp_path: Path) -> None:
    ordered = sorted(SHOWN, key=lambda name: name.split("/"))
    for tree in trees(tmp_path):
        assert list(walk(tree, "")) == ordered
        assert tree.listing("b") == (["x"], ["x-1", "x.txt"])
        assert has_file(tree, "b/x/10") and not has_file(tree, "b/x") and not has_file(tree, "c/d")
        assert has_folder(tree, "b/x") and not has_folder(tree, "b/x/10") and has_folder(tree, "")
        for name, data in SHOWN.items():
            assert tree.read(name) == data
            assert tree.size(name) == len(data)
        for name, kind in (("b/none", FileNotFoundError), ("b/x", IsADirectoryError)):
            with pytest.raises(kind):
                tree.read(name)
        assert tree.size("b/none") == -1


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    files = {f"f{i}": np.random.default_rng(i).bytes(5000 + i) for i in range(40)}
    for tree in (
        open_tree(make_tar(tmp_path / "a.tar", files), "spec"),
        open_tree(make_zip(tmp_path / "a.zip", files), "spec"),
    ):
        names = list(files) * 25
        with ThreadPoolExecutor(8) as pool:
            assert all(
                data == files[name]
                for name, data in zip(names, pool.map(tree.read, names), strict=True)
            )


def test_an_archive_is_closed_with_its_tree(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", FILES)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        open_tree(path, "spec")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_cut_anywhere_is_refused(tmp_path: Path, form: int) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=form) as archive:
        for index in range(3):
            member = tarfile.TarInfo(f"ant/{index}.JPEG")
            member.size = 700
            archive.addfile(member, io.BytesIO(bytes([index + 1]) * 700))
    data = whole.getvalue()
    end = 3 * (512 + 1024)
    assert data[end:] == bytes(len(data) - end)
    path = tmp_path / "a.tar"
    for cut in (*range(0, end + 1, 256), end - 1, end - 300):
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"data spec: .*a\.tar is not a whole, uncompressed t"):
            open_tree(path, "spec")
    path.write_bytes(data[: end + 512])
    assert len(list(walk(open_tree(path, "spec"), ""))) == 3
    path.write_bytes(data[:1536] + b"rubbish" * 100 + data[1536 + 700 :])
    with pytest.raises(ValueError, match="is not a whole"):
        open_tree(path, "spec")


def test_an_archive_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "photos.tar", train_files())
    source = open_source(f"folder:{path}", "train")
    with path.open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(ValueError, match=r"photos\.tar is shorter than when it was opened"):
        source.image(len(source) - 1)


def test_zips_that_cannot_be_sought_in_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"ant/a.JPEG": jpeg(1)})
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"a\.zip is not a whole zip archive"):
        open_tree(path, "spec")
    at = whole.rindex(b"PK\x01\x02")
    for place in (8, 10):  # flags: encrypted; method: some other
        changed = bytearray(whole)
        changed[at + place] |= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"ant/a\.JPEG in .* is encrypted or compressed in an"):
            open_tree(path, "spec")


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path: Path) -> None:
    tree = open_tree(tmp_path, "spec")
    with pytest.raises(ValueError, match=r"data spec: .*/none cannot be looked into \(No such"):
        tree.listing("none")


def test_links_that_go_round_end(tmp_path: Path) -> None:
    make_folder(tmp_path, {"ant/a.JPEG": jpeg(1)})
    (tmp_path / "ant" / "again").symlink_to(tmp_path / "ant")
    with pytest.raises(ValueError, match="Too many levels of symbolic links"):
        open_source(f"folder:{tmp_path}", "train")
