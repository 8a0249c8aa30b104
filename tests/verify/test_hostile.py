"""Hostile certificates: refused with a sentence, never executed, never a traceback."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.verify import verify_certificate
from pipeline.verify.refusal import Refusal, quote
from pipeline.verify.strict_json import Record, parse, parse_epsilon
from pipeline.verify.tensors import read_tensors
from tests.verify.mini import Mini


def refusal(directory: Path) -> str:
    verdict = verify_certificate(directory)
    assert verdict.refusal is not None
    return verdict.refusal


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"a": NaN}', "the number NaN"),
        (b'{"a": -Infinity}', "the number -Infinity"),
        (b'{"a": 1, "a": 2}', "has the key 'a' twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "is not JSON"),
    ],
)
def test_json_that_is_refused(text: bytes, sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        parse(text, "certificate.json")


@pytest.mark.parametrize("value", [True, "1", None, [], 1e999, 10**400])
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(Refusal, match="'a' is not a finite number"):
        Record({"a": value}, "here").number("a")


@pytest.mark.parametrize(
    "text", ["0", "-1", "1/0", "1e999999999", "nan", "inf", "0x1", "1_0", "", " 1", "٣", "1e-999"]
)
def test_what_is_no_epsilon(text: str) -> None:
    with pytest.raises(Refusal, match="epsilon"):
        parse_epsilon(text)


def test_quotes_cannot_write_to_the_terminal() -> None:
    assert quote("\x1b[2J\n") == r"'\x1b[2J\n'"
    assert quote("ä") == r"'\xe4'"
    assert len(quote("x" * 10**6)) <= 80


@pytest.mark.parametrize("name", ["../weights", "/etc/passwd", "a/b", "..", ".hidden", "a\n", ""])
def test_path_in_a_file_name(tmp_path: Path, name: str) -> None:
    directory = Mini.make().write(tmp_path / "c")
    path = directory / "certificate.json"
    certificate = json.loads(path.read_text())
    certificate["files"] = {name: "0" * 64, **certificate["files"]}
    path.write_text(json.dumps(certificate))
    assert "is not a plain name" in refusal(directory)


def test_link_pipe_and_missing_file(tmp_path: Path) -> None:
    directory = Mini.make().write(tmp_path / "c")
    table = directory / "images.tsv"
    table.rename(tmp_path / "elsewhere.tsv")
    assert refusal(directory) == "images.tsv is missing"
    table.symlink_to(tmp_path / "elsewhere.tsv")
    assert refusal(directory) == "images.tsv is not a plain file"
    table.unlink()
    os.mkfifo(table)  # opening it would wait for ever
    assert refusal(directory) == "images.tsv is not a plain file"
    (directory / "certificate.json").unlink()
    assert refusal(directory) == "certificate.json is missing"


def test_config_is_hashed_and_never_parsed(tmp_path: Path) -> None:
    mini = Mini.make()
    mini.config = b"!!python/object/apply:os.system ['touch " + bytes(tmp_path) + b"/broken']\n"
    assert verify_certificate(mini.write(tmp_path / "c")).verified
    assert not (tmp_path / "broken").exists()


def tensors_file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "too short"),
        ((2**60).to_bytes(8, "little") + b"{}", "longer than it may be"),
        (tensors_file(b"{"), "is not JSON"),
        (tensors_file({"a": 3}), "has no description"),
        (tensors_file({"a": entry(0, 4, [1])}), "does not begin where"),
        (tensors_file({"a": entry(0, 4, [1])}, bytes(8)), "belong to no tensor"),
        (tensors_file({"a": entry(4, 8, [1])}, bytes(8)), "does not begin where"),
        (tensors_file({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, bytes(4)), "'b' does not"),
        (tensors_file({"a": entry(0, 4, [2])}, bytes(4)), "does not fit its shape"),
        (tensors_file({"a": entry(4, 0, [-1])}, bytes(4)), "is not an integer from 1"),
        (tensors_file({"a": entry(0, 8, [1], "F64")}, bytes(8)), "not float32"),
        (tensors_file({"a": entry(0, 4, [1])}, np.float32("nan").tobytes()), "not finite"),
        (tensors_file({"a": {**entry(0, 4, [1]), "x": 1}}, bytes(4)), "unknown key 'x'"),
    ],
)
def test_tensors_that_are_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        read_tensors(content)


def huge_input(mini: Mini) -> None:
    mini.certificate["input"]["shape"] = [1, 90_000, 90_000]
    mini.certificate["layers"][0]["input_shape"] = [1, 90_000, 90_000]


def huge_stride(mini: Mini) -> None:
    random = np.random.default_rng(0)
    mini.tensors["stem.weight"] = random.random((300, 300, 1, 1), dtype=np.float32)
    mini.tensors["stem.bias"] = np.zeros(300, np.float32)
    mini.certificate["input"]["shape"] = [300, 64, 64]
    for number in (0, 1):
        mini.certificate["layers"][number]["input_shape"] = [300, 64, 64]
    mini.certificate["layers"][1]["attributes"] = {"stride": 64, "padding": 0}


def twist_of_a_gigabyte(mini: Mini) -> None:
    """A hint is not required, so it is passed over; the bound below is what is refused."""
    stem = mini.certificate["layers"][1]
    stem["evidence"]["twist"] = ["1e999999999", "0"]
    stem["bound"] *= 0.5


def many_images(mini: Mini) -> None:
    mini.certificate["num_images"] = mini.certificate["dataset"]["num_samples"] = 10**8


@pytest.mark.parametrize(
    ("alter", "sentence"),
    [
        (huge_input, "larger than this program checks"),
        (twist_of_a_gigabyte, "layer 'stem' (conv2d) claims the bound"),
        (huge_stride, "its stride is too large for its kernel"),
        (many_images, "'num_images' is not an integer from 1"),
    ],
)
def test_small_files_cannot_ask_for_hours(
    alter: Callable[[Mini], None], sentence: str, tmp_path: Path
) -> None:
    mini = Mini.make()
    alter(mini)
    assert sentence in refusal(mini.write(tmp_path / "c"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_value_anywhere_in_the_json(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One value of certificate.json replaced by any other: a verdict, whatever it is."""
    mini = Mini.make()
    here, path = mini.certificate, []
    while True:
        keys = sorted(here) if isinstance(here, dict) else range(len(here))
        key = data.draw(st.sampled_from(list(keys)))
        path.append(key)
        below = here[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.booleans()):
            break
        here = below
    value = data.draw(JSON)
    here[key] = value
    directory = mini_directory(mini, tmp_path_factory)
    verdict = verify_certificate(directory)
    assert verdict.refusal is None or "cannot be checked" not in verdict.refusal, verdict.refusal


def mini_directory(mini: Mini, factory: pytest.TempPathFactory) -> Path:
    """Written with the hashes of the files but the altered JSON kept as it is."""
    altered = mini.certificate
    mini.certificate = Mini.make().certificate
    directory = mini.write(factory.mktemp("fuzz") / "c")
    for key in ("files", "weights_sha256"):
        if altered[key] in ({}, ""):
            altered[key] = mini.certificate[key]
    (directory / "certificate.json").write_text(json.dumps(altered))
    return directory


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["certificate.json", "model.safetensors", "images.tsv"]),
    place=st.floats(0, 1, exclude_max=True),
    inserted=st.binary(max_size=6),
    removed=st.integers(0, 6),
)
def test_any_bytes_anywhere(
    name: str,
    place: float,
    inserted: bytes,
    removed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Bytes cut out and put in, with the hashes made right: a verdict, never an exception."""
    directory = Mini.make().write(tmp_path_factory.mktemp("bytes") / "c")
    content = (directory / name).read_bytes()
    at = int(place * len(content))
    content = content[:at] + inserted + content[at + removed :]
    (directory / name).write_bytes(content)
    if name != "certificate.json":
        path = directory / "certificate.json"
        certificate = json.loads(path.read_text())
        certificate["files"][name] = hashlib.sha256(content).hexdigest()
        if name == "model.safetensors":
            certificate["weights_sha256"] = certificate["files"][name]
        path.write_text(json.dumps(certificate))
    verdict = verify_certificate(directory)
    assert verdict.refusal is None or "cannot be checked" not in verdict.refusal, verdict.refusal
