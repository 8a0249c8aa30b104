"""Certificates by LipLT and by curvature: true ones verify, altered ones do not."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.certify import certify, certify_again, read_certificate
from pipeline.certify.curvature_certifier import CurvatureCertifier
from pipeline.certify.methods import prove_margins
from pipeline.layers.activation import ExportedActivation
from pipeline.layers.conv2d import ExportedConv2d
from pipeline.layers.dense import ExportedDense
from pipeline.layers.flatten import ExportedFlatten
from pipeline.layers.head import ExportedHead
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz import liplt_bound
from pipeline.verify import liplt, verify_certificate
from pipeline.verify.inspection import Inspection
from pipeline.verify.layers import Layer
from pipeline.verify.refusal import Refusal
from tests.verify.test_certified import HashedLoader

EPSILONS = ["0.05", "36/255"]
CLASSES = 3


def network_of(method: str, function: str, depth: int = 2) -> ExportedNetwork:
    """A strided convolution too where the method takes one; steep enough for misclassification."""
    random = np.random.default_rng(0)
    scale = 0.7 if method == "curvature" and depth > 1 else 1.8  # bounds of deep ones are loose

    def draw(*shape: int) -> np.ndarray:
        values = scale * random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return values.astype(np.float32)

    shape, layers = (1, 5, 5), []
    if method == "liplt":
        layers += [
            ExportedConv2d("conv", shape, draw(3, 1, 4, 4), draw(3) / 9, stride=2, padding=1),
            ExportedActivation("conv_act", (3, 2, 2), function),
        ]
        shape = (3, 2, 2)
    layers.append(ExportedFlatten("flatten", shape))
    features = int(np.prod(shape))
    for number, width in enumerate([8, 6, 5][:depth]):
        layers += [
            ExportedDense(f"dense{number}", (features,), draw(width, features), draw(width) / 9),
            ExportedActivation(f"dense{number}_act", (width,), function),
        ]
        features = width
    head = ExportedHead(draw(CLASSES, features), draw(CLASSES) / 9)
    return ExportedNetwork(tuple(layers), head, (1, 5, 5))


def certified(folder: Path, method: str, function: str, depth: int = 2) -> Path:
    return certified_network(folder, network_of(method, function, depth), method)


def certified_network(folder: Path, network: ExportedNetwork, method: str) -> Path:
    """Certify random images, nine of ten rightly labelled; the images beside them."""
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (60, 1, 5, 5), dtype=np.uint8)
    logits = network.logits(network.trunk(torch.from_numpy(images).double() / 255))
    labels = np.where(random.random(60) < 0.9, logits.argmax(1).numpy(), 0)
    loader = HashedLoader(images, labels, CLASSES)
    certify(network, loader, EPSILONS, folder / "certificate", method=method)
    np.savez(folder / "data.npz", image=images.transpose(0, 2, 3, 1), label=labels)
    return folder


CASES = [
    ("liplt", "relu", 2),
    ("liplt", "leaky_relu", 2),
    ("liplt", "sigmoid", 2),
    ("curvature", "softplus", 1),
    ("curvature", "softplus", 2),
    ("curvature", "softplus", 3),
    ("curvature", "tanh", 2),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def true(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("case"), *request.param)


def test_a_true_certificate_verifies(true: Path, tmp_path: Path) -> None:
    verdict = verify_certificate(true / "certificate", true / "data.npz")
    assert verdict.verified, verdict
    certificate = read_certificate(true / "certificate")
    assert certificate.vra["0.05"] > 0
    again = certify_again(true / "certificate", tmp_path / "again", f"npz:{true / 'data.npz'}")
    assert again.margins == certificate.margins


def test_what_cannot_be_checked_without_pixels_is_said(true: Path) -> None:
    curved = read_certificate(true / "certificate").method == "curvature"
    what = "logits and radii" if curved else "logits"
    assert f"({what} not checked: no --data)" in str(verify_certificate(true / "certificate"))


def altered(folder: Path, true: Path, alter: Callable[[dict, list[list[str]]], None]) -> str:
    """The refusal of a certificate that `alter` changed, with totals and hashes made to fit."""
    directory = folder / "certificate"
    shutil.copytree(true / "certificate", directory)
    tree = json.loads((directory / "certificate.json").read_text())
    lines = (directory / "images.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    alter(tree, rows)
    for text in EPSILONS:
        from fractions import Fraction

        above = [Fraction(float(row[3])) > Fraction(text) for row in rows]
        tree["vra"][text] = sum(above) / len(rows)
    table = "\n".join([lines[0], *("\t".join(row) for row in rows)]) + "\n"
    (directory / "images.tsv").write_text(table)
    tree["files"]["images.tsv"] = hashlib.sha256(table.encode()).hexdigest()
    (directory / "certificate.json").write_text(json.dumps(tree))
    verdict = verify_certificate(directory, true / "data.npz")
    assert verdict.refusal is not None, verdict
    return verdict.refusal


def best_row(rows: list[list[str]]) -> list[str]:
    return max(rows, key=lambda row: float(row[3]))


def test_an_inflated_radius_is_refused(true: Path, tmp_path: Path) -> None:
    def inflate(tree: dict, rows: list[list[str]]) -> None:
        row = best_row(rows)
        row[3] = f"{float(row[3]) * (1 + 1e-4):.17g}"

    assert "radius" in altered(tmp_path, true, inflate)


@pytest.mark.parametrize("delta", ["1.0000000000000001e+300", "inf"])
def test_a_margin_that_only_an_enormous_delta_allows_is_refused(
    true: Path, tmp_path: Path, delta: str
) -> None:
    def blur(tree: dict, rows: list[list[str]]) -> None:
        row = best_row(rows)
        row[7], row[9] = "1000000000", delta

    assert "delta" in altered(tmp_path, true, blur)


def test_a_claim_that_is_too_low_is_refused(true: Path, tmp_path: Path) -> None:
    def lower(tree: dict, rows: list[list[str]]) -> None:
        if tree["margins"]["method"] == "liplt":
            tree["margins"]["products"][-1]["bound"] *= 1 - 1e-5
        else:
            tree["margins"]["curvature"][0][1] *= 1 - 1e-5

    assert "cannot be proved" in altered(tmp_path, true, lower)


@pytest.mark.parametrize("function", ["softplus", "tanh"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_term_of_curvature_that_is_too_low_is_refused(
    tmp_path: Path, function: str, number: int
) -> None:
    """Also where the sum is lowered with it, so that the two fit each other."""
    true = certified(tmp_path / "true", "curvature", function)

    def lower(tree: dict, rows: list[list[str]]) -> None:
        tree["margins"]["terms"][0][1][number] *= 1 - 1e-4

    assert "cannot be proved" in altered(tmp_path / "term", true, lower)

    def lower_both(tree: dict, rows: list[list[str]]) -> None:
        lower(tree, rows)
        tree["margins"]["curvature"][0][1] *= 1 - 1e-12

    assert "cannot be proved" in altered(tmp_path / "both", true, lower_both)


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        (None, "terms"),
        ([], "terms are not 3 rows of 3 lists of 2 finite numbers"),
        ([[1, 2, 3]] * 3, "terms are not 3 rows"),
        ([[[1.0]] * 3] * 3, "terms are not 3 rows"),
        ([[[1.0, True]] * 3] * 3, "terms are not 3 rows"),
        ([[[1.0, 10**400]] * 3] * 3, "terms are not 3 rows"),
        ([[[1.0, -1.0]] * 3] * 3, "a term is negative"),
    ],
)
def test_terms_that_are_none_are_refused(tmp_path: Path, terms: object, sentence: str) -> None:
    true = certified(tmp_path / "true", "curvature", "softplus")

    def change(tree: dict, rows: list[list[str]]) -> None:
        del tree["margins"]["terms"]
        if terms is not None:
            tree["margins"]["terms"] = terms

    assert sentence in altered(tmp_path, true, change)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ([0.0] * 2, "row 1 of curvature is not 3 finite numbers"),
        ([0.0, 1.0, 10**400], "row 1 of curvature is not 3 finite numbers"),
        ([0.0, 1.0, -1.0], "a curvature is negative"),
    ],
)
def test_curvature_that_is_none_is_refused(tmp_path: Path, line: list, sentence: str) -> None:
    true = certified(tmp_path / "true", "curvature", "softplus", 1)

    def change(tree: dict, rows: list[list[str]]) -> None:
        tree["margins"]["curvature"][1] = line

    assert sentence in altered(tmp_path, true, change)


def test_a_layer_of_zeros_has_no_curvature(tmp_path: Path) -> None:
    network = network_of("curvature", "softplus", 3)
    network.layers[3].tensors()["dense1.weight"][:] = 0
    true = certified_network(tmp_path, network, "curvature")
    verdict = verify_certificate(true / "certificate", true / "data.npz")
    assert verdict.verified, verdict


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("depth", [1, 2])
def test_the_largest_numbers_are_refused_in_a_sentence(tmp_path: Path, depth: int) -> None:
    true = certified(tmp_path / "true", "curvature", "softplus", depth)

    def radius(tree: dict, rows: list[list[str]]) -> None:
        best_row(rows)[3] = "1.7976931348623157e+308"

    assert "radius" in altered(tmp_path / "radius", true, radius)

    def bounds(tree: dict, rows: list[list[str]]) -> None:
        for layer in tree["layers"]:
            if layer["kind"] == "dense":
                layer["bound"] = 1e300

    assert "bound" in altered(tmp_path / "bounds", true, bounds)


def test_two_layers_have_no_terms(tmp_path: Path) -> None:
    true = certified(tmp_path / "true", "curvature", "softplus", 1)

    def add(tree: dict, rows: list[list[str]]) -> None:
        tree["margins"]["terms"] = [[[0.0]] * CLASSES] * CLASSES

    assert "terms" in altered(tmp_path, true, add)


def test_a_margin_constant_below_the_proved_one_is_refused(true: Path, tmp_path: Path) -> None:
    """With a radius that follows from it: only the constant itself is wrong."""

    def lower(tree: dict, rows: list[list[str]]) -> None:
        row = best_row(rows)
        lipschitz = float(row[8]) * (1 - 1e-5)
        room = np.nextafter(float(row[7]) - float(row[9]), -np.inf)
        row[8] = f"{lipschitz:.17g}"
        if tree["margins"]["method"] == "liplt":
            row[3] = f"{np.nextafter(room / lipschitz, -np.inf):.17g}"

    assert "has the constant" in altered(tmp_path, true, lower)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda margins: margins.update(method="faith"), "unknown"),
        (lambda margins: margins.update(more=1), "more"),
        (lambda margins: margins.pop("products", margins.pop("curvature", 0)), "products"),
    ],
)
def test_margins_that_are_not_understood_are_refused(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, change, sentence: str
) -> None:
    true = certified(tmp_path_factory.mktemp("liplt"), "liplt", "relu")
    refusal = altered(tmp_path, true, lambda tree, rows: change(tree["margins"]))
    assert sentence in refusal


def test_split_products_and_tori_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where matrices are too large, both programs fall back, and the claims still fit."""
    monkeypatch.setattr(liplt_bound, "MOST_ROWS", 4)
    monkeypatch.setattr(liplt, "MOST_ROWS", 4)
    true = certified(tmp_path, "liplt", "relu")
    methods = {p["method"] for p in read_certificate(true / "certificate").margins["products"]}
    assert "split" in methods
    verdict = verify_certificate(true / "certificate", true / "data.npz")
    assert verdict.verified, verdict


def coarse(folder: Path) -> Path:
    """A curvature certificate whose logits are rounded coarsely, by biases of 1e11."""
    network = network_of("curvature", "softplus", 1)
    head = ExportedHead(network.head.weight, np.full(CLASSES, 1e11, dtype=np.float32))
    network = ExportedNetwork(network.layers, head, network.input_shape)
    images = np.random.default_rng(1).integers(0, 256, (20, 1, 5, 5), dtype=np.uint8)
    labels = network.logits(network.trunk(torch.from_numpy(images).double() / 255)).argmax(1)
    loader = HashedLoader(images, labels.numpy(), CLASSES)
    certify(network, loader, EPSILONS, folder / "certificate", method="curvature")
    np.savez(folder / "data.npz", image=images.transpose(0, 2, 3, 1), label=labels.numpy())
    return folder


def test_coarse_rounding_is_proved_all_the_same(tmp_path: Path) -> None:
    """Two programs whose margins differ by more than the published radius is rounded down."""
    true = coarse(tmp_path)
    verdict = verify_certificate(true / "certificate", true / "data.npz")
    assert verdict.verified, verdict
    lines = (true / "certificate" / "images.tsv").read_text().splitlines()[1:]
    radii = np.array([[line.split("\t")[at] for at in (3, 10)] for line in lines], dtype=float)
    some = radii[:, 0] > 0.01
    assert some.sum() > 5 and (radii[some, 1] < radii[some, 0] * (1 - 1e-5)).all()


def test_the_radius_of_the_program_is_proved_by_duality_too(tmp_path: Path) -> None:
    true = certified(tmp_path, "curvature", "softplus", 1)
    inspection = Inspection(true / "certificate", None, lambda what, done, total: None)
    for _, step in inspection.steps()[:8]:
        step()
    rows = [row for row in inspection.rows if row.radius > 0]
    assert inspection.prover is not None and len(rows) > 10
    images = np.load(true / "data.npz")["image"][[row.index for row in rows]]
    predict = np.array([row.predict for row in rows])
    radius = np.array([row.radius for row in rows])

    def failed(inner: np.ndarray, rounding: float) -> np.ndarray:
        every = np.full((len(rows), CLASSES), rounding)
        return inspection.prover.unproved(images, predict, radius, inner, every) >= 0

    assert not failed(radius, 0.0).any() and failed(radius, np.inf).all()
    assert not failed(0 * radius, np.inf).any()  # nothing is claimed
    assert failed(radius, 0.02).mean() > 0.5
    # What the certifier finds by the quadratic holds for the verifier, and not much more does.
    network = network_of("curvature", "softplus", 1)
    bounds = [layer.norm_bound() for layer in network.layers]
    certifier = CurvatureCertifier(network, bounds, prove_margins("curvature", network, bounds))
    center = torch.from_numpy(images.transpose(0, 3, 1, 2).reshape(len(rows), -1) / 255.0)
    fixed, nothing = np.full((len(rows), CLASSES), 0.02), np.zeros((len(rows), CLASSES))
    inner = certifier.radii(center, predict, fixed, nothing)[1]
    assert (inner < radius * 0.999).all() and not failed(inner, 0.02).any()
    assert failed(inner * 1.01, 0.02)[inner > 0].mean() > 0.3


def test_a_layer_that_has_weights_and_is_no_affine_map_is_refused() -> None:
    """Taken for Wx + b, a block x + Gφ(Wx + b) would be proved to be what it is not."""
    random = np.random.default_rng(0)
    weight, outer = random.standard_normal((4, 3)), random.standard_normal((3, 4))
    block = Layer(
        "block", "slope_residual", (3,), (3,), 9.0, weight, np.zeros(4), function="relu",
        outer=outer,
    )  # fmt: skip
    after = Layer("act", "activation", (3,), (3,), 1.0, function="softplus")
    with pytest.raises(Refusal, match="none that LipLT knows"):
        liplt.read_stages([block, after])
