"""slope_resnet: its estimate is LipLT's, it is certified, and both programs agree."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.certify import certify
from pipeline.certify.lipschitz_certifier import LipschitzCertifier
from pipeline.certify.methods import build_certifier, build_reference, prove_margins
from pipeline.certify.rounding import LayerError
from pipeline.layers.slope_residual import ExportedSlopeResidual
from pipeline.lipschitz.exact_map import ExactMap
from pipeline.lipschitz.residual_liplt import ResidualStage, residual_liplt_bound
from pipeline.models import build_model
from pipeline.verify import verify_certificate
from tests.verify.test_certified import HashedLoader

CLASSES, SIDE = 3, 5


def model_of(activation: str = "relu", **options):
    torch.manual_seed(0)
    settings = {"width": 8, "inner": 6, "blocks": 3, "activation": activation} | options
    return build_model("slope_resnet", CLASSES, SIDE, 1, **settings)


def images_of(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)


def stages_of(network) -> list[ResidualStage]:
    stem = network.layers[1].weight.astype(np.float64)
    first = ResidualStage(ExactMap(stem, stem.shape[1:]), None, skip=False)
    blocks = [layer.stage() for layer in network.layers if layer.kind == "slope_residual"]
    return [first, *blocks]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_estimate_is_liplts_constant_of_the_whole_network(activation: str) -> None:
    model = model_of(activation, power_iterations=400).double().eval()
    network = model_of(activation).export()
    images = torch.from_numpy(images_of(4)).double() / 255
    prediction = model(images)
    assert torch.allclose(prediction.logits, network.logits(network.trunk(images)), atol=1e-5)
    slopes = [network.layers[2].slopes] * 4
    bound = residual_liplt_bound(stages_of(network), slopes, network.head.weight.astype(float))
    ours = prediction.margin_lipschitz.detach().numpy()
    off = ~np.eye(CLASSES, dtype=bool)
    # the bound may use Theorem 2 for its first term; never more than the estimate, hardly less
    assert (bound.margins[off] <= ours[off] * (1 + 1e-4)).all()
    assert (bound.margins[off] >= ours[off] * 0.9).all()
    assert (np.diag(ours) == 0).all()
    # steeper than anything that is seen
    x = images.clone().requires_grad_()
    logits = model(x).logits
    (slope,) = torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), x)
    assert slope.flatten(1).norm(dim=1).max() <= ours[0, 1]


def test_vectors_move_in_training_only_and_gradients_reach_every_weight() -> None:
    model = model_of()
    images = torch.from_numpy(images_of(4)).float() / 255
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.eval()(images)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    model.train()
    model.hold_power_iteration = True
    model(images)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    model.hold_power_iteration = False
    model(images).margin_lipschitz.sum().backward()
    now = dict(model.named_buffers())
    for number in range(4):
        assert not torch.equal(before[f"start_{number}"], now[f"start_{number}"])
    for name, parameter in model.named_parameters():
        if not name.endswith("bias"):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_block_is_evaluated_within_its_rounding() -> None:
    """Against rational arithmetic."""
    layer = next(each for each in model_of().export().layers if each.kind == "slope_residual")
    x = np.random.default_rng(0).standard_normal(8)

    def exact(array) -> np.ndarray:
        return np.array([Fraction(float(v)) for v in array.ravel()]).reshape(array.shape)

    hidden = exact(layer.weight) @ exact(x) + exact(layer.bias)
    hidden = np.array([max(v, Fraction(0)) for v in hidden])
    truth = exact(x) + exact(layer.outer) @ hidden
    found = layer.forward(torch.from_numpy(x)[None])[0].numpy()
    off = sum((Fraction(float(a)) - b) ** 2 for a, b in zip(found, truth, strict=True))
    error = LayerError.of(layer.norm_bound().value, layer.rounding())
    allowed = error.after(np.zeros(1), np.array([np.linalg.norm(x)]))[0]
    assert off <= Fraction(float(allowed)) ** 2 and allowed < 1e-10


@pytest.mark.parametrize(
    ("activation", "method"), [("relu", "product"), ("relu", "liplt"), ("sigmoid", "liplt")]
)
def test_it_is_certified_and_verified(activation: str, method: str, tmp_path: Path) -> None:
    network = model_of(activation).export()
    images = images_of(50)
    labels = network.logits(network.trunk(torch.from_numpy(images).double() / 255)).argmax(1)
    loader = HashedLoader(images, labels.numpy(), CLASSES)
    certify(network, loader, ["0.02"], tmp_path / "certificate", method=method)
    np.savez(tmp_path / "data.npz", image=images.transpose(0, 2, 3, 1), label=labels.numpy())
    verdict = verify_certificate(tmp_path / "certificate", tmp_path / "data.npz")
    assert verdict.verified, str(verdict)
    path = tmp_path / "certificate" / "certificate.json"
    untouched = path.read_text()
    for where in ("layers", "products") if method == "liplt" else ("layers",):
        tree = json.loads(untouched)
        if where == "layers":
            (claim,) = [each for each in tree["layers"] if each["name"] == "block1"]
        else:
            claim = tree["margins"]["products"][-1]
        claim["bound"] *= 0.999
        path.write_text(json.dumps(tree))
        verdict = verify_certificate(tmp_path / "certificate", tmp_path / "data.npz")
        assert not verdict.verified and "claims the bound" in str(verdict.refusal), where


def test_liplt_of_the_network_is_below_the_product_of_its_blocks() -> None:
    network = model_of(blocks=3).export()
    bounds = [layer.norm_bound() for layer in network.layers]
    certifier = build_certifier("liplt", network, bounds, prove_margins("liplt", network, bounds))
    product = LipschitzCertifier(network, bounds).margin_lipschitz
    off = ~np.eye(CLASSES, dtype=bool)
    assert (certifier.margin_lipschitz[off] < product[off] * 0.95).all()
    usual = build_reference("liplt", network, None)
    images = torch.from_numpy(images_of(20))
    labels = network.logits(network.trunk(images.double() / 255)).argmax(1)
    scores = usual.radii(usual.scores(images, labels), 1.0)
    proved = certifier.certify(images, labels).radius
    assert (scores >= proved * (1 - 1e-4)).all() and (scores <= proved * 1.2 + 1e-6).all()


def test_sizes_and_shapes_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"model\.blocks is 0"):
        model_of(blocks=0)
    with pytest.raises(ValueError, match=r"'relo'.*did you mean 'relu'"):
        model_of("relo")
    random = np.random.default_rng(0)
    good = [random.standard_normal(shape).astype(np.float32) for shape in [(6, 8), (6,), (7, 6)]]
    with pytest.raises(ValueError, match="outer"):
        ExportedSlopeResidual("b", (8,), *good, "relu")
