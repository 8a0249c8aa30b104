"""A true certificate verifies; every alteration is refused, also with consistent hashes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.verify import Verdict, verify_certificate
from tests.verify.alterations import WITH_DATA, WITHOUT_DATA, Alteration, name_of, record
from tests.verify.mini import Mini


@pytest.fixture
def mini() -> Mini:
    return Mini.make()


def check(mini: Mini, folder: Path, with_data: bool) -> Verdict:
    data = mini.write_data(folder / "data.npz") if with_data else None
    return verify_certificate(mini.write(folder / "certificate"), data)


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_true_certificate_verifies(tmp_path: Path, with_data: bool, seed: int) -> None:
    verdict = check(Mini.make(seed), tmp_path, with_data)
    assert verdict.verified, verdict.refusal
    last = str(verdict).splitlines()[-1]
    assert last.startswith("VERIFIED clean ")
    assert ("logits not checked" in last) is not with_data


@pytest.mark.parametrize(("alter", "sentence"), WITHOUT_DATA, ids=name_of)
def test_alteration_is_refused(
    alter: Alteration, sentence: str, mini: Mini, tmp_path: Path
) -> None:
    alter(mini)
    verdict = check(mini, tmp_path, with_data=False)
    assert verdict.refusal is not None
    assert re.search(sentence, verdict.refusal), verdict.refusal
    assert str(verdict).splitlines()[-1] == f"REFUSED: {verdict.refusal}."


@pytest.mark.parametrize(("alter", "sentence"), WITH_DATA, ids=name_of)
def test_alteration_that_only_the_data_shows(
    alter: Alteration, sentence: str, mini: Mini, tmp_path: Path
) -> None:
    alter(mini)
    assert check(mini, tmp_path, with_data=False).verified, "this needs no data: move it up"
    data = Mini.make().write_data(tmp_path / "true.npz")
    verdict = verify_certificate(tmp_path / "certificate", data)
    assert verdict.refusal is not None
    assert re.search(sentence, verdict.refusal), verdict.refusal


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "images.tsv"])
def test_a_changed_byte_is_seen_by_the_hash(mini: Mini, tmp_path: Path, name: str) -> None:
    directory = mini.write(tmp_path / "certificate")
    content = bytearray((directory / name).read_bytes())
    content[-2] ^= 1
    (directory / name).write_bytes(content)
    verdict = verify_certificate(directory)
    assert verdict.refusal is not None
    assert verdict.refusal.startswith(f"{name} has the sha256 ")


def test_a_changed_hash_is_refused(mini: Mini, tmp_path: Path) -> None:
    directory = mini.write(tmp_path / "certificate")
    path = directory / "certificate.json"
    text = json.loads(path.read_text())
    text["weights_sha256"] = "0" * 64
    path.write_text(json.dumps(text))
    verdict = verify_certificate(directory)
    assert verdict.refusal is not None and verdict.refusal.startswith("weights_sha256 is not")


def test_another_data_set_is_refused(mini: Mini, tmp_path: Path) -> None:
    directory = mini.write(tmp_path / "certificate")
    mini.images[5, 3, 3, 0] ^= 1
    verdict = verify_certificate(directory, mini.write_data(tmp_path / "data.npz"))
    assert verdict.refusal is not None
    assert verdict.refusal.startswith("the data is another data set than the certified one")


def test_fewer_images_than_the_data_has(mini: Mini, tmp_path: Path) -> None:
    """The last image left out of table and totals, the hash still that of the whole data set."""
    data = mini.write_data(tmp_path / "data.npz")
    del mini.rows[-1]
    mini.certificate["num_images"] = mini.certificate["dataset"]["num_samples"] = 39
    mini.recount()
    verdict = verify_certificate(mini.write(tmp_path / "certificate"), data)
    assert verdict.refusal == "the data has 40 images, not 39"


def test_images_of_another_size(mini: Mini, tmp_path: Path) -> None:
    mini.images = np.repeat(mini.images, 2, axis=2)
    mini.certificate["dataset_sha256"] = mini.dataset_sha256()
    verdict = check(mini, tmp_path, with_data=True)
    assert verdict.refusal == "image 0 is [8, 16, 1] in the data, the network takes [8, 8, 1]"


def test_logits_that_overflow(mini: Mini, tmp_path: Path) -> None:
    """Only a row without a radius may stand where float64 overflows."""
    shift = record(mini, "shift")
    shift["attributes"]["center"] = 1e308
    verdict = check(mini, tmp_path, with_data=True)
    assert verdict.refusal is not None
    assert re.fullmatch(r"image \d+ has a radius, but its logits overflow", verdict.refusal)


def test_a_correct_prediction_that_overflows(mini: Mini, tmp_path: Path) -> None:
    """Clean accuracy is not taken from rows whose logits this program cannot compute."""
    record(mini, "shift")["attributes"]["center"] = 1e308
    for number in range(len(mini.rows)):
        mini.set_row(number, predict=mini.rows[number]["label"], correct=1, margin=1, radius=0)
        mini.set_row(number, binding=(int(mini.rows[number]["label"]) + 1) % 5, delta=math.inf)
        mini.set_row(number, lipschitz=1e6, radius_float=0)
    mini.recount()
    verdict = check(mini, tmp_path, with_data=True)
    assert verdict.refusal == "image 0 is marked correct, but its logits overflow"


def test_a_weaker_claim_is_still_true(mini: Mini, tmp_path: Path) -> None:
    """A larger constant with the radius that follows from it claims less: nothing is wrong."""
    row = mini.correct_row()
    mini.set_row(row, lipschitz=float(mini.rows[row]["lipschitz"]) * 1.01)
    mini.follow(row)
    mini.recount()
    verdict = check(mini, tmp_path, with_data=True)
    assert verdict.verified, verdict.refusal


def test_a_row_counted_without_proof_is_refused(mini: Mini, tmp_path: Path) -> None:
    """A margin raised within the deltas passes as rounding, but not where it decides a total."""
    row = mini.correct_row()
    mini.set_row(row, margin=float(mini.rows[row]["margin"]) + float(mini.rows[row]["delta"]))
    before = float(mini.rows[row]["radius"])
    mini.follow(row)
    after = float(mini.rows[row]["radius"])
    assert after > before
    between = f"{(before + after) / 2:.25f}"
    verdict = check(mini, tmp_path, with_data=True)
    assert verdict.verified, verdict.refusal  # no epsilon lies between
    only_epsilon(mini, between)
    verdict = check(mini, tmp_path, with_data=True)
    assert verdict.refusal is not None
    assert re.match(r"image \d+ is counted at epsilon .*, recomputed its radius", verdict.refusal)


def test_a_row_counted_for_the_program_without_proof_is_refused(mini: Mini, tmp_path: Path) -> None:
    """radius_float may not be the radius itself where that decides a total."""
    row = mini.correct_row()
    radius, delta, constant = (
        float(mini.rows[row][key]) for key in ("radius", "delta", "lipschitz")
    )
    mini.set_row(row, radius_float=radius)
    between = f"{radius - 0.3 * delta / constant:.25f}"  # above what rounding leaves
    only_epsilon(mini, between)
    verdict = check(mini, tmp_path, with_data=True)
    assert verdict.refusal is not None
    assert re.match(r"image \d+ is counted at epsilon .* in statement F", verdict.refusal)


def only_epsilon(mini: Mini, text: str) -> None:
    """The certificate speaks of this epsilon alone."""
    for key, column in (
        ("vra", "radius"),
        ("vra_unsound", "radius"),
        ("vra_float", "radius_float"),
    ):
        counted = sum(float(values[column]) > float(text) for values in mini.rows)
        mini.certificate[key] = {text: counted / len(mini.rows)}
    mini.certificate["epsilons"] = [text]
