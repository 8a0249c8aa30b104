import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.data.sources import open_source
from pipeline.data.sources.unpickle import unpickle_arrays
from tests.data.sources.layouts import make_folder, make_tar, make_tar_gz, make_zip, under

NAMES = {
    "cifar10": [f"animal{i}" for i in range(10)],
    "cifar100": [f"thing_{i}" for i in range(100)],
}
PER_FILE = 7


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Protocol 2 with byte strings as Python 2 wrote them: the official archives."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, data: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch[bytes] = save_bytes


def python2(value: Any) -> bytes:
    data = io.BytesIO()
    Python2Pickler(data, 2).dump(value)
    return data.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def planes(seed: int) -> np.ndarray:
    """Pictures as stored, [PER_FILE, 3072]."""
    return np.random.default_rng(seed).integers(0, 256, (PER_FILE, 3072), dtype=np.uint8)


def labels(kind: str, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, len(NAMES[kind]), PER_FILE).tolist()


def parts(kind: str) -> dict[str, int]:
    """Every file of pictures and its seed."""
    if kind == "cifar100":
        return {"train": 1, "test": 9}
    return {**{f"data_batch_{i}": i for i in range(1, 6)}, "test_batch": 9}


def python_files(kind: str, dump: Callable[[Any], bytes] = python2) -> dict[str, bytes]:
    key = b"labels" if kind == "cifar10" else b"fine_labels"
    files = {
        name: dump(
            {
                b"batch_label": b"some batch",
                key: labels(kind, seed),
                b"coarse_labels": [0] * PER_FILE,
                b"data": planes(seed),
                b"filenames": [b"x.png"] * PER_FILE,
            }
        )
        for name, seed in parts(kind).items()
    }
    names = [name.encode() for name in NAMES[kind]]
    if kind == "cifar10":
        files["batches.meta"] = dump({b"label_names": names, b"num_vis": 3072})
    else:
        files["meta"] = dump({b"fine_label_names": names, b"coarse_label_names": [b"all"]})
    return files


def binary_files(kind: str) -> dict[str, bytes]:
    coarse = b"\x13" if kind == "cifar100" else b""
    files = {
        f"{name}.bin": b"".join(
            coarse + bytes([label]) + picture.tobytes()
            for label, picture in zip(labels(kind, seed), planes(seed), strict=True)
        )
        for name, seed in parts(kind).items()
    }
    listed = "batches.meta.txt" if kind == "cifar10" else "fine_label_names.txt"
    return {**files, listed: ("\n".join(NAMES[kind]) + "\n\n").encode()}


FOLDER = {
    ("cifar10", "python"): "cifar-10-batches-py",
    ("cifar10", "binary"): "cifar-10-batches-bin",
    ("cifar100", "python"): "cifar-100-python",
    ("cifar100", "binary"): "cifar-100-binary",
}


def archive_name(kind: str, version: str) -> str:
    return f"cifar-{kind.removeprefix('cifar')}-{version}"


def in_folder(kind: str, version: str) -> dict[str, bytes]:
    files = python_files(kind) if version == "python" else binary_files(kind)
    return under(FOLDER[kind, version], files)


def check(kind: str, path: Path) -> None:
    for split in ("train", "val"):
        source = open_source(f"{kind}:{path}", split)  # type: ignore[arg-type]
        seeds = [seed for seed in parts(kind).values() if (seed == 9) == (split == "val")]
        assert source.class_names == tuple(NAMES[kind])
        assert source.labels.tolist() == [label for seed in seeds for label in labels(kind, seed)]
        assert not source.photographs
        stored = np.concatenate([planes(seed) for seed in seeds])
        assert len(source) == len(stored)
        for index, picture in enumerate(stored):
            for channel in range(3):
                plane = picture[1024 * channel : 1024 * (channel + 1)].reshape(32, 32)
                assert np.array_equal(source.image(index)[..., channel], plane)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("version", ["python", "binary"])
def test_every_form_of_the_archive(tmp_path: Path, kind: str, version: str) -> None:
    files, name = in_folder(kind, version), archive_name(kind, version)
    unpacked = make_folder(tmp_path / "unpacked", files)
    check(kind, unpacked)
    check(kind, unpacked / FOLDER[kind, version])
    for place, make, ending in (
        ("a", make_tar_gz, ".tar.gz"), ("b", make_tar, ".tar"), ("c", make_zip, ".zip")
    ):  # fmt: skip
        (tmp_path / place).mkdir()
        archive = make(tmp_path / place / (name + ending), files)
        check(kind, archive)
        check(kind, tmp_path / place)


def test_a_pickle_of_python_3_will_do(tmp_path: Path) -> None:
    files = python_files("cifar10", lambda value: pickle.dumps(value, 4))
    check("cifar10", make_folder(tmp_path, files))


def test_both_versions_are_one_data_set(tmp_path: Path) -> None:
    identities = set()
    for version in ("python", "binary"):
        path = make_folder(tmp_path / version, in_folder("cifar100", version))
        identities.add(open_source(f"cifar100:{path}", "val").identity)
    assert len(identities) == 1


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, getattr, open, np.load, np.frombuffer])
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, function: Callable[..., Any], protocol: int
) -> None:
    proof = tmp_path / "proof"
    attack = Attack(function, f"touch {proof}" if function is os.system else f"open('{proof}','w')")
    data = pickle.dumps({b"data": attack}, protocol)
    home = make_folder(tmp_path / "data", {**python_files("cifar10"), "test_batch": data})
    with pytest.raises(ValueError, match=r"test_batch is not read \(it asks for .*, which no data"):
        open_source(f"cifar10:{home}", "val")
    assert not proof.exists()
    if function is os.system:  # the attack is one
        pickle.loads(data)
        assert proof.exists()


def test_arrays_of_objects_bring_nothing_in() -> None:
    array = np.array([{"a": 1}, [2]], dtype=object)
    assert unpickle_arrays(pickle.dumps({"x": array}))["x"].tolist() == array.tolist()
    array[0] = Attack(os.system, "true")
    with pytest.raises(ValueError, match=r"it asks for posix\.system"):
        unpickle_arrays(pickle.dumps({"x": array}))


def test_damaged_pickles_are_one_sentence() -> None:
    whole = python_files("cifar10")["test_batch"]
    rng = np.random.default_rng(0)
    refused = 0
    for cut in (0, 1, 50, 500, len(whole) - 1):
        with pytest.raises(ValueError, match=r"."):
            unpickle_arrays(whole[:cut])
    for _ in range(300):
        changed = bytearray(whole)
        for place in rng.integers(0, 150, 3):
            changed[place] = rng.integers(0, 256)
        try:
            unpickle_arrays(bytes(changed))
        except ValueError:
            refused += 1
    assert refused > 50


def changed(**change: Any) -> bytes:
    good = {"data": planes(9), "labels": labels("cifar10", 9)}
    return python2({key.encode(): value for key, value in {**good, **change}.items()})


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("test_batch", changed(data=planes(9)[:, :3000]), "test_batch has 3000 bytes a picture"),
        ("test_batch", changed(data=planes(9).astype(float)), "no array of uint8 pixels"),
        ("test_batch", changed(data=[1, 2]), "no array of uint8 pixels"),
        ("test_batch", changed(labels=[1, 2]), "no list of 7 labels called 'labels'"),
        ("test_batch", changed(labels=[10] * 7), "label 10 of sample 0 is out of range"),
        ("test_batch", changed(labels=[b"a"] * 7), "expected 7 integer labels"),
        ("test_batch", python2([1]), "it holds a list, not a dict"),
        ("test_batch", b"", "test_batch is not read"),
        ("batches.meta", python2({b"label_names": [b"cat"]}), "batches.meta has 1 names, not 10"),
        ("batches.meta", python2({b"names": []}), "batches.meta holds no list 'label_names'"),
        ("batches.meta", None, r"batches\.meta cannot be read \(No such file"),
        ("test_batch", None, r"test_batch cannot be read \(No such file"),
    ],
)
def test_what_is_wrong_in_the_python_version(
    tmp_path: Path, name: str, data: bytes | None, sentence: str
) -> None:
    files = {**python_files("cifar10"), name: data}
    home = make_folder(tmp_path, {key: value for key, value in files.items() if value is not None})
    with pytest.raises(ValueError, match=sentence):
        open_source(f"cifar10:{home}", "val")


def test_what_is_wrong_in_the_binary_version(tmp_path: Path) -> None:
    home = make_folder(tmp_path, binary_files("cifar100"))
    whole = (home / "test.bin").read_bytes()
    (home / "test.bin").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"test\.bin has 21418 bytes, no multiple of 3074"):
        open_source(f"cifar100:{home}", "val")
    (home / "test.bin").write_bytes(b"\x00\x64" + whole[2:])
    with pytest.raises(ValueError, match="label 100 of sample 0 is out of range"):
        open_source(f"cifar100:{home}", "val")
    (home / "test.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="holds no pictures"):
        open_source(f"cifar100:{home}", "val")


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    path = make_tar_gz(tmp_path / "cifar-10-python.tar.gz", in_folder("cifar10", "python"))
    whole = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz is not a whole tar"):
            open_source(f"cifar10:{path}", "val")


def test_the_other_cifar_is_noticed(tmp_path: Path) -> None:
    home = make_folder(tmp_path / "a", in_folder("cifar100", "binary"))
    for path in (home, home / "cifar-100-binary"):
        with pytest.raises(ValueError, match=f"did you mean cifar100:{path}\\?"):
            open_source(f"cifar10:{path}", "train")
    with pytest.raises(ValueError, match=r"expected cifar-100-python\.tar\.gz or cifar-100-binary"):
        open_source(f"cifar100:{make_folder(tmp_path / 'b', {'x': b''})}", "train")


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "cifar-10-binary.zip", in_folder("cifar10", "binary"))
    data = bytearray(path.read_bytes())
    data[3000] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"data_batch_1\.bin cannot be read \(damaged in the arch"):
        open_source(f"cifar10:{path}", "train")
