"""The attacks find what exists, stay in their balls, and refute what is false."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.certify import certifier, certify
from pipeline.certify.arithmetic import single_threaded_mathematics
from pipeline.certify.attacks.apgd import checkpoints
from pipeline.certify.attacks.assault import Assault, Settings, squared_distance
from pipeline.certify.attacks.ball import into_ball, norms, random_start
from pipeline.certify.attacks.battery import battery
from pipeline.certify.attacks.losses import margins, targeted_dlr
from pipeline.certify.attacks.report import attack_section, refuted, text_summary
from pipeline.certify.attacks.slopes import layer_slope, trunk_slope
from pipeline.certify.certificate import sha256_of
from pipeline.certify.reporting.report import ATTACK
from pipeline.config import DataConfig
from pipeline.data.loader import open_block_loader
from pipeline.data.spread import spread
from pipeline.layers.conv2d import ExportedConv2d
from pipeline.types import Epsilon
from tests.certify.small import labelled_images, linear_network, small_network
from tests.lipschitz.explicit import convolution_norm
from tools import attack

QUICK = Settings(steps=12, restarts=2, batch=16, slope_steps=60, boxed=False)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with single_threaded_mathematics():
        yield


def linear(classes: int):
    """A linear network, images, labels and the exact distances to the nearest boundary."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((classes, 16))
    network = linear_network(weight, np.zeros(classes), (1, 4, 4))
    images = rng.integers(60, 200, (12, 1, 4, 4), dtype=np.uint8)
    logits = images.reshape(12, 16) / 255 @ network.head.weight.astype(float).T
    labels = logits.argmax(1)
    rows = network.head.weight.astype(float)
    distances = [
        min(
            (logits[n, j] - logits[n, i]) / np.linalg.norm(rows[j] - rows[i])
            for i in range(classes)
            if i != j
        )
        for n, j in enumerate(labels)
    ]
    return network, torch.from_numpy(images), torch.from_numpy(labels), np.array(distances)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("search", ["PGD", "APGD-CE", "APGD-T"])
def test_each_finds_the_boundary_of_a_linear_network(classes: int, search: str) -> None:
    network, images, labels, distances = linear(classes)
    force = Assault(network, images, labels, replace(QUICK, steps=30))
    one = force.searches()[search]
    indices = np.arange(len(images))
    beyond = force._try(search, one, indices, distances * 1.02)
    assert len(beyond) >= 11
    assert all(fall.distance <= fall.radius and fall.margin <= 0 for fall in beyond)
    assert not force._try(search, one, indices, distances * (1 - 1e-9))


def test_points_stay_in_the_ball_and_in_the_box() -> None:
    generator = torch.Generator().manual_seed(0)
    center = torch.rand(20, 1, 4, 4, generator=generator, dtype=torch.float64)
    radius = torch.linspace(0.01, 3, 20, dtype=torch.float64)
    for boxed in (False, True):
        far = center + 5 * torch.randn(center.shape, generator=generator, dtype=torch.float64)
        for points in (
            into_ball(far, center, radius, boxed),
            random_start(center, radius, boxed, generator),
        ):
            assert (norms(points - center).flatten() <= radius * (1 + 1e-12)).all()
            assert not boxed or ((points >= 0) & (points <= 1)).all()
    assert torch.equal(into_ball(center, center, radius, True), center)


def test_checkpoints_are_those_of_the_paper() -> None:
    """w = p·steps with p = 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_the_targeted_loss_by_hand() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0, 0.0]])
    loss = targeted_dlr(torch.tensor([0]), torch.tensor([1]))(logits)
    assert float(loss) == pytest.approx(-(5 - 1) / (5 - (2 + 1) / 2))
    assert float(targeted_dlr(torch.tensor([0]), torch.tensor([2]))(logits[:, :3])) == 3 - 5
    assert float(margins(logits, torch.tensor([0]))) == 2
    assert float(margins(torch.zeros(1, 3), torch.tensor([1]))) == 0  # a tie is a fall


def test_squared_distance_is_exact() -> None:
    pixels = torch.tensor([[[36, 0]]], dtype=torch.uint8)
    point = torch.tensor([[[0.25, 0.5]]], dtype=torch.float64)
    expected = (Fraction(1, 4) - Fraction(36, 255)) ** 2 + Fraction(1, 4)
    assert squared_distance(pixels, point) == expected


def test_found_slopes_approach_the_norm_from_below() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    layer = ExportedConv2d("conv", (2, 5, 5), weight, np.ones(3, np.float32), 1, 1)
    truth = convolution_norm(weight, (5, 5), (1, 1), (1, 1))
    found = layer_slope(layer, 200, 2, 0)
    assert truth * (1 - 1e-3) < found <= truth * (1 + 1e-12)
    assert found <= layer.tight_norm_bound().value <= layer.norm_bound().value


def test_the_trunk_is_nowhere_steeper_than_certified() -> None:
    network = small_network(4)
    bound = certifier(network).lipschitz_bound
    images = torch.rand(6, 1, 4, 4, dtype=torch.float64)
    found = trunk_slope(network, images, (0.1, 1.0, 10.0), 50, 0)
    assert 0.2 * bound < found < bound


def result_of(radius_factor: float = 1.0, bound_factor: float = 1.0) -> dict:
    """All attacks on a true certificate, or on one with wrong radii or bounds."""
    network = small_network(6)
    images, labels = labelled_images(network, 1, 40)
    pixels, tensor = torch.from_numpy(images), torch.from_numpy(labels)
    certify_one = certifier(network)
    verdicts = certify_one.certify(pixels, tensor)
    bounds = [bound.value * bound_factor for bound in certify_one.bounds]
    result = battery(
        network, pixels, tensor, verdicts.correct, verdicts.radius * radius_factor,
        [Epsilon.parse("12/255")], [0.0, 0.5], bounds, QUICK,
    )  # fmt: skip
    result["trunk"]["bound"] = certify_one.lipschitz_bound * bound_factor
    return result


def test_a_true_certificate_stands() -> None:
    result = result_of()
    assert refuted(result) is None and result["refuting"] == []
    at = result["epsilons"]["12/255"]
    assert at["certified"] > 0 == at["certified_fallen"]
    assert at["vra"] <= at["empirical_accuracy"]
    curve = dict(result["pgd10"])
    assert curve[0.0] >= curve[0.5]
    assert result["own_radius"]["certified_fallen"] == 0 < result["own_radius"]["certified"]
    json.dumps(result, allow_nan=False)
    assert "12/255" in attack_section(result) and "own radius" in text_summary(result)


def test_radii_that_are_too_large_are_refuted() -> None:
    """The usual break: halving the bound doubles every radius (aaronbembenek/liresnet)."""
    sentence = refuted(result_of(radius_factor=20.0))
    assert sentence is not None and "inside its certified radius" in sentence


def test_bounds_that_are_too_small_are_refuted() -> None:
    sentence = refuted(result_of(bound_factor=0.5))
    assert sentence is not None and "above its certified constant" in sentence


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A certificate directory whose images lie in an .npz beside it."""
    network = small_network(6)
    images, labels = labelled_images(network, 1, 60)
    np.savez(
        tmp_path / "some.npz", x_test=images[:, 0], y_test=labels,
        x_train=images[:, 0], y_train=labels, class_names=np.array(["a", "b", "c"]),
    )  # fmt: skip
    loader = open_block_loader(f"npz:{tmp_path / 'some.npz'}", "val", 4, DataConfig())
    certify(network, loader, ["12/255"], tmp_path / "c", threads=1)
    return tmp_path / "c"


def test_the_door(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(directory), "--steps", "6", "--restarts", "1", "--images", "30"]
    for _ in range(2):  # a second attack replaces the section of the first
        assert attack.main([*words, "--curve", "0.1", "0.2"]) == 0
    assert "nothing refutes the certificate" in capsys.readouterr().out
    html = (directory / "report.html").read_text()
    assert html.count("<h2>Attacked</h2>") == 1 and all(mark in html for mark in ATTACK)
    stored = json.loads((directory / "attack.json").read_text())
    assert stored["images"] == 30 and len(stored["pgd10"]) == 2
    with np.load(directory.parent / "some.npz") as some:
        np.savez(directory.parent / "other.npz", **{**some, "y_test": some["y_test"][::-1]})
    assert attack.main([str(directory), "--data", f"npz:{directory.parent / 'other.npz'}"]) == 2
    assert "is not the data set that was certified" in capsys.readouterr().err
    lines = (directory / "images.tsv").read_text().splitlines()
    wrong = [lines[0]]
    for line in lines[1:]:
        cells = line.split("\t")
        cells[3] = repr(30 * float(cells[3]))
        wrong.append("\t".join(cells))
    (directory / "images.tsv").write_text("\n".join(wrong) + "\n")
    assert attack.main(words) == 2
    assert "is missing or not the table that" in capsys.readouterr().err
    certificate = json.loads((directory / "certificate.json").read_text())
    certificate["files"]["images.tsv"] = sha256_of(directory / "images.tsv")
    (directory / "certificate.json").write_text(json.dumps(certificate))
    assert attack.main(words) == 1
    assert "REFUTED: image" in capsys.readouterr().out
    falls = json.loads((directory / "attack.json").read_text())["refuting"]
    named = {fall["index"] for fall in falls}  # of the certificate: 30 of its 60 rows
    assert named <= set(spread(30, 60)) and max(named) >= 30
    for fall in falls:
        own = float(wrong[1 + fall["index"]].split("\t")[3])
        assert fall["radius"] in (12 / 255, own)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--images", "0"], "--images 0: at least 1 is needed"),
        (["--curve", "-0.1"], "--curve -0.1: distances are numbers above 0"),
        (["--curve", "nan"], "--curve nan: distances are numbers above 0"),
    ],
)
def test_arguments_that_cannot_be(directory: Path, words, sentence, capsys) -> None:
    assert attack.main([str(directory), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_nan_does_not_pass_for_a_slope() -> None:
    result = result_of()
    result["trunk"]["found"] = math.nan
    assert refuted(result) is not None
