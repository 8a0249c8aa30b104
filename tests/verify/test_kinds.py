"""Claims about the newer kinds of layers: true ones are proved, lower or malformed ones refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from pipeline.certify.certificate import sha256_of
from pipeline.models import build_model
from pipeline.verify import verify_certificate
from tests.verify.test_certified import certified

Certificate = dict
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with a potential, a truncated exponential and every layer without weights."""
    torch.manual_seed(0)
    options = {"depth": 1, "channels": 6, "dense_depth": 1, "features": 8}
    model = build_model("cpl", 3, 8, 1, **options, skew=True)
    return certified(model.export(), tmp_path_factory.mktemp("cpl"), 6)


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    options = {"depth": 1, "width": 4, "features": 8}
    model = build_model("resnet", 3, 8, 1, **options)
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "beta"):
                layer.beta.fill_(0.3)
    return certified(model.export(), tmp_path_factory.mktemp("resnet"), 6)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A circular convolution in a small LiResNet."""
    torch.manual_seed(0)
    options = {"depth": 1, "width": 4, "features": 8, "block": "lot"}
    model = build_model("liresnet", 3, 8, 1, **options)
    return certified(model.export(), tmp_path_factory.mktemp("lot"), 6)


@pytest.fixture(scope="module")
def implicit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Implicit steps, each followed by a scale."""
    torch.manual_seed(0)
    sizes = {"depth": 1, "channels": 4, "dense_depth": 1, "features": 8}
    model = build_model("cpl", 3, 8, 1, **sizes, layer="implicit", scale=True)
    return certified(model.export(), tmp_path_factory.mktemp("implicit"), 6)


def layer(certificate: Certificate, kind: str) -> dict:
    return next(found for found in certificate["layers"] if found["kind"] == kind)


def verdict_of(folder: Path, out: Path, change: Callable[[Certificate, Tensors], None]) -> str:
    """The refusal of an altered copy, hashes set right; "" if it is verified."""
    source = folder / "certificate"
    certificate = json.loads((source / "certificate.json").read_text())
    tensors = load_file(source / "model.safetensors")
    change(certificate, tensors)
    for path in source.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    save_file(
        {key: np.ascontiguousarray(v) for key, v in tensors.items()}, out / "model.safetensors"
    )
    digest = sha256_of(out / "model.safetensors")
    certificate["weights_sha256"] = certificate["files"]["model.safetensors"] = digest
    (out / "certificate.json").write_text(json.dumps(certificate))
    return verify_certificate(out, folder / "data.npz").refusal or ""


def lower_bound(kind: str) -> Callable[[Certificate, Tensors], None]:
    def change(certificate: Certificate, tensors: Tensors) -> None:
        layer(certificate, kind)["bound"] = math.nextafter(1.0, 0.0)

    return change


def longer_step(certificate: Certificate, tensors: Tensors) -> None:
    tensors["convolutions.0.step"] = tensors["convolutions.0.step"] * np.float32(1.1)


def negative_step(certificate: Certificate, tensors: Tensors) -> None:
    tensors["convolutions.0.step"] = -tensors["convolutions.0.step"]


def two_steps(certificate: Certificate, tensors: Tensors) -> None:
    tensors["convolutions.0.step"] = np.ones(2, np.float32)


def steeper_weight(certificate: Certificate, tensors: Tensors) -> None:
    tensors["denses.0.weight"] = tensors["denses.0.weight"] * np.float32(1.01)


def not_skew(certificate: Certificate, tensors: Tensors) -> None:
    weight = tensors["convolutions.1.weight"].copy()
    weight[0, 1, 0, 0] = np.nextafter(weight[0, 1, 0, 0], np.float32(9))
    tensors["convolutions.1.weight"] = weight


def fewer_terms(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "skew_exponential")["attributes"]["terms"] = 2


def lower_norm_of_skew(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "skew_exponential")["evidence"]["weight_norm"] *= 0.5


def no_norm_of_skew(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "skew_exponential")["evidence"]["weight_norm"] = "1"


def window(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "average_pool")["attributes"]["size"] = 3


def extra_attribute(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "pad_channels")["attributes"]["value"] = 1


def fewer_channels(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "pad_channels")["input_shape"] = [1, 8, 8]
    layer(certificate, "pad_channels")["attributes"]["channels"] = 7


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lower_bound("convex_potential"), "no such layer is proved to contract"),
        (lower_bound("average_pool"), "only 1.0 can be proved"),
        (lower_bound("pad_channels"), "only 1.0 can be proved"),
        (lower_bound("skew_exponential"), "can be proved"),
        (longer_step, "claims the bound 1.0, but only 1."),
        (negative_step, "is negative"),
        (two_steps, "do not fit"),
        (steeper_weight, "claims the bound 1.0, but only 1."),
        (not_skew, "its kernel is not skew"),
        (fewer_terms, "claims the bound"),
        (lower_norm_of_skew, "of its kernel"),
        (no_norm_of_skew, "its evidence names no norm of its kernel"),
        (window, "does not fit inputs of shape"),
        (extra_attribute, "unknown key"),
        (fewer_channels, "takes inputs of shape [6, 8, 8], but is given [7, 8, 8]"),
    ],
)
def test_false_claims_are_refused(
    folder: Path, tmp_path: Path, change: Callable[[Certificate, Tensors], None], sentence: str
) -> None:
    assert sentence in verdict_of(folder, tmp_path, change)


def larger_factor(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "scale")["attributes"]["factor"] = 1.5


def negative_factor(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "scale")["attributes"]["factor"] = -1.5


def more_iterations(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "implicit_potential")["attributes"]["iterations"] = 6


def endless(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "implicit_potential")["attributes"]["iterations"] = 10**9


def step_of(value: float) -> Callable[[Certificate, Tensors], None]:
    def change(certificate: Certificate, tensors: Tensors) -> None:
        tensors["convolutions.0.step"] = np.full(1, value, np.float32)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lower_bound("implicit_potential"), "no such layer is proved to contract"),
        (lower_bound("scale"), "only 1.0 can be proved"),
        (larger_factor, "only 1.5 can be proved"),
        (negative_factor, "only 1.5 can be proved"),
        (more_iterations, "recomputed it is"),
        (endless, "iterations"),
        (step_of(1.0), "too long for any weight"),
        (step_of(0.97), "claims the bound 1.0, but only inf can be proved"),
    ],
)
def test_false_claims_of_implicit_steps(
    implicit: Path, tmp_path: Path, change: Callable[[Certificate, Tensors], None], sentence: str
) -> None:
    assert sentence in verdict_of(implicit, tmp_path, change)


def steeper_tap(certificate: Certificate, tensors: Tensors) -> None:
    tensors["backbone.0.conv.weight"] = tensors["backbone.0.conv.weight"] * np.float32(1.001)


def smaller_maps(certificate: Certificate, tensors: Tensors) -> None:
    weight = tensors["backbone.0.conv.weight"]
    tensors["backbone.0.conv.weight"] = weight[:, :, :3, :3]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lower_bound("circular_conv2d"), "claims the bound"),
        (steeper_tap, "claims the bound"),
        (smaller_maps, "do not fit"),
    ],
)
def test_false_claims_of_circular_convolutions(
    others: Path, tmp_path: Path, change: Callable[[Certificate, Tensors], None], sentence: str
) -> None:
    assert sentence in verdict_of(others, tmp_path, change)


def test_the_true_ones_are_verified(
    folder: Path, residual: Path, others: Path, implicit: Path, tmp_path: Path
) -> None:
    for number, source in enumerate((folder, residual, others, implicit)):
        out = tmp_path / str(number)
        out.mkdir()
        assert verdict_of(source, out, lambda certificate, tensors: None) == ""


def lower_product(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "residual")["bound"] *= 1 - 1e-12


def lower_part(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "residual")["evidence"]["norms"][1] *= 0.9


def no_part(certificate: Certificate, tensors: Tensors) -> None:
    layer(certificate, "residual")["evidence"]["norms"].pop()


def odd_branch(certificate: Certificate, tensors: Tensors) -> None:
    for key, take in (("first.weight", np.s_[:3]), ("first.bias", np.s_[:3])):
        tensors[f"backbone.0.conv.{key}"] = tensors[f"backbone.0.conv.{key}"][take]
    second = tensors["backbone.0.conv.second.weight"]
    tensors["backbone.0.conv.second.weight"] = second[:, :3]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lower_product, "claims the bound"),
        (lower_part, "of backbone.0.conv.second"),
        (no_part, "names no norm of the second kernel"),
        (odd_branch, "pairs an odd number of channels"),
    ],
)
def test_false_claims_of_a_residual_block(
    residual: Path, tmp_path: Path, change: Callable[[Certificate, Tensors], None], sentence: str
) -> None:
    assert sentence in verdict_of(residual, tmp_path, change)


def test_tight_bounds_of_a_residual_block_are_lower_and_proved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("resnet", 3, 8, 1, depth=1, width=4, features=8)
    with torch.no_grad():
        for found in model.modules():
            if hasattr(found, "beta"):
                found.beta.fill_(0.3)
    folder = certified(model.export(), tmp_path, 4, tight=True)
    verdict = verify_certificate(folder / "certificate", folder / "data.npz")
    assert verdict.verified, verdict
    block = layer(json.loads((folder / "certificate" / "certificate.json").read_text()), "residual")
    assert [part["torus"] for part in block["evidence"]["parts"]] == [[None, None]] * 2
    [plain] = [each for each in model.export().layers if each.kind == "residual"]
    assert block["bound"] < plain.norm_bound().value * (1 - 1e-4)
