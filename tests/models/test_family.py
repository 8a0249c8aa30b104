"""Every network: a training step, export, certificate, independent check, and back from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.certify.certificate import load_network
from pipeline.layers.orthogonal_attention import OrthogonalAttention
from pipeline.layers.scale import Scale
from pipeline.lipschitz.kept_estimates import estimates_kept
from pipeline.models import build_model, list_models
from pipeline.models.blocks import ACTIVATIONS, BLOCKS
from pipeline.models.network import LipschitzNetwork
from pipeline.objectives import build_objective
from pipeline.types import Batch
from pipeline.verify import verify_certificate
from tests.models.counting import iterations_asked
from tests.verify.test_certified import certified

BACKBONE = {"depth": 2, "width": 8, "features": 16}
POTENTIALS = {"depth": 2, "channels": 6, "dense_depth": 2, "features": 12}
NETWORKS = {
    **{
        f"block {block}": ("liresnet", BACKBONE | {"block": block})
        for block in BLOCKS
        if block not in ("l2_attention_ffn", "olsa_ffn")
    },
    **{name: ("liresnet", BACKBONE | {"activation": name}) for name in ACTIVATIONS[1:]},
    "cpl": ("cpl", POTENTIALS),
    "cpl, max, LLN": ("cpl", POTENTIALS | {"pooling": "max", "head": "normalized"}),
    "cpl, split flow": ("cpl", POTENTIALS | {"skew": True}),
    "cpl, Proposition 2": ("cpl", POTENTIALS | {"scale": True}),
    "implicit": ("cpl", POTENTIALS | {"layer": "implicit"}),
    "sll": ("cpl", POTENTIALS | {"layer": "sll"}),
}


def made(name: str, **more: Any) -> LipschitzNetwork:
    builder, options = NETWORKS[name]
    torch.manual_seed(0)
    return build_model(builder, 10, 8, 1, **options, **more)


def trained(name: str, steps: int = 3) -> LipschitzNetwork:
    model = made(name)
    objective = build_objective("multi_margin" if NETWORKS[name][0] == "cpl" else "emma")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    labels = torch.arange(10).repeat(2)
    batch = Batch(torch.rand(20, 1, 8, 8), labels, torch.arange(20), torch.zeros(20).bool())
    losses = []
    for _ in range(steps):
        loss = objective(model, batch, 0.1).per_sample.mean()
        optimizer.zero_grad()
        loss.backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_from_a_training_step_to_the_independent_check(name: str, tmp_path: Path) -> None:
    model = trained(name)
    torch.manual_seed(1)
    again = made(name)
    again.load_state_dict(model.state_dict())
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(again.eval()(images).logits, model.eval()(images).logits)

    network = again.export()
    folder = certified(network, tmp_path, 12)
    verdict = verify_certificate(folder / "certificate", folder / "data.npz")
    assert verdict.verified, str(verdict)
    read = load_network(folder / "certificate")
    x = images.double()
    assert torch.equal(read.logits(read.trunk(x)), network.logits(network.trunk(x)))
    assert read.records() == network.records()


@pytest.mark.parametrize("name", ["cpl", "sll", "cpl, split flow", "block aol", "block bcop"])
def test_layers_of_constant_one_cost_nothing(name: str) -> None:
    """Λ beyond stem and neck is 1 but for the outward rounding, a truncated series, float32."""
    layers = [
        layer
        for layer in made(name).export().layers
        if layer.name.startswith(("backbone", "conv", "dense"))
    ]
    assert np.prod([layer.norm_bound().value for layer in layers]) <= 1 + 1e-5


def test_the_certified_network_is_nearly_the_trained_one() -> None:
    """Frozen steps come of proved norms, the estimates from below: the outputs differ by little."""
    model = trained("cpl")
    images = torch.rand(20, 1, 8, 8)
    for _ in range(300):
        model(images)  # the power iteration converges
    network = model.export()
    exact = network.logits(network.trunk(images.double()))
    assert float((model(images).logits - exact).detach().abs().max()) < 0.05


@pytest.mark.parametrize("name", ["cpl", "cpl, split flow", "block cpl", "implicit"])
def test_what_is_validated_is_what_is_exported(name: str) -> None:
    """Steps of an evaluation come of converged norms, however few iterations training makes."""
    model = made(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std().nan_to_num(0.1))
    images = torch.rand(20, 1, 8, 8)
    network = model.export()
    exact = network.logits(network.trunk(images.double()))

    def distance() -> float:
        with torch.no_grad():
            return float((model(images).logits - exact).norm() / exact.norm())

    before = [buffer.clone() for buffer in model.buffers()]
    model.eval()
    near = distance()
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    model.evaluation_iterations = 1
    far = distance()
    assert near < 0.1 and near < far / 3, (near, far)


def test_a_validation_finds_the_steps_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = made("cpl").eval(), torch.rand(2, 1, 8, 8)
    calls = iterations_asked(monkeypatch)
    with torch.no_grad():
        alone = model(images)
        with estimates_kept():
            kept = [model(images) for _ in range(3)]
        assert calls == [100, 100]
        assert all(torch.equal(alone.logits, each.logits) for each in kept)
        for parameter in model.parameters():
            parameter.mul_(1.5)
        with estimates_kept():  # of these weights, not of those before
            again = model(images)
    assert torch.equal(again.logits, model(images).logits) and len(calls) == 4
    with estimates_kept():  # a graph of its own for whoever wants gradients
        model(images).logits.sum().backward()
        model(images).logits.sum().backward()
    made("cpl", evaluation_iterations=7).eval()(images)
    assert calls[4:] == [100, 100, 7]


@pytest.mark.parametrize(
    ("block", "why"),
    [("l2_attention_ffn", "softmax"), ("olsa_ffn", "no global Lipschitz constant")],
)
def test_attention_trains_and_is_refused(block: str, why: str) -> None:
    torch.manual_seed(0)
    model = build_model("liresnet", 4, 8, 1, **BACKBONE, block=block)
    prediction = model(torch.rand(2, 1, 8, 8))
    (prediction.logits.sum() + prediction.margin_lipschitz.sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    reason = model.refusal()
    assert reason is not None and "'backbone.0.attention'" in reason and why in reason
    with pytest.raises(ValueError, match="cannot be certified"):
        model.export()


def test_dot_product_attention_has_no_global_constant() -> None:
    """Why OLSA is refused: the slope at t·x grows with t, though every projection is orthogonal."""
    torch.manual_seed(0)
    layer = OrthogonalAttention(4, 2).double()
    identity = torch.eye(4, dtype=torch.float64)
    for matrix in layer.projections():
        assert torch.allclose(matrix @ matrix.T, identity)
    x = torch.randn(1, 4, 1, 3).double()
    slopes = [
        float(
            torch.linalg.matrix_norm(
                torch.autograd.functional.jacobian(
                    lambda v: layer(v.view(1, 4, 1, 3)).flatten(), (scale * x).flatten()
                ),
                2,
            )
        )
        for scale in (0.1, 1.0, 3.0)
    ]
    assert slopes[0] < slopes[1] < slopes[2] and slopes[2] > 2


def test_a_fixed_step_trains_and_is_refused() -> None:
    model = build_model("cpl", 10, 8, 1, **POTENTIALS, step=0.5)
    model(torch.rand(2, 1, 8, 8)).logits.sum().backward()
    reason = model.refusal()
    assert reason is not None and "'convolutions.0' cannot be certified: its steps are" in reason
    with pytest.raises(ValueError, match=r"take model\.step null"):
        model.export()


@pytest.mark.parametrize("depth", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_deep_networks_train_without_normalisation(depth: int) -> None:
    """CPL, Appendix D.1, at its 30 channels: nothing explodes, and the loss falls.

    At depth 100 the first layer learns from the beginning; at 1000 its gradient begins at 1e-9, as
    the paper's "it may take a few epochs before the start of convergence" suggests.
    """
    torch.manual_seed(0)
    model = build_model("cpl", 4, 8, 1, depth=depth, channels=30, dense_depth=0)
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(4).repeat(2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.multi_margin_loss(model(images).logits, labels, margin=0.7)
        optimizer.zero_grad()
        loss.backward()
        norms = [
            float(parameter.grad.norm())
            for name, parameter in model.named_parameters()
            if name.endswith("weight") and parameter.grad is not None
        ]
        assert len(norms) == depth and np.isfinite(norms).all() and max(norms) < 1e3
        assert depth > 100 or norms[0] > 1e-5
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[1:]) < losses[0]


@pytest.mark.parametrize(
    ("name", "millions"), [("cpl_s", 41.3), ("cpl_m", 78.7), ("cpl_l", 236.2), ("cpl_xl", 275.7)]
)
def test_sizes_of_table_1(name: str, millions: float) -> None:
    """By hand: CPL-S is 20·(5·45·9 + 5) + 7·(2048·45·64 + 2048) and so on."""
    with torch.device("meta"):
        model = build_model(name, 10, 32)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("name", ["cpl_236m", "sll_xl"])
def test_the_236_million_of_later_papers(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, 10, 32)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6) == 236


@pytest.mark.parametrize(("size", "first"), [(64, "unshuffle"), (224, "patches")])
def test_large_images_become_maps_of_32(size: int, first: str) -> None:
    model = build_model("cpl", 10, size, depth=1, channels=45, dense_depth=1, features=8)
    names = [name for name, _ in model.named_layers()]
    assert names[1] == first
    assert model(torch.rand(1, 3, size, size)).logits.shape == (1, 10)
    shapes = {layer.name: layer.input_shape for layer in model.export().layers}
    assert shapes["convolutions.0"] == (45, 32, 32)


def test_names_by_pattern() -> None:
    assert list_models("cpl_?") == ["cpl_l", "cpl_m", "cpl_s"]
    assert len(list_models("transformer_*")) == 4 and list_models("bert*") == []
    assert set(list_models("liresnet_l*w256")) >= {f"liresnet_l{d}w256" for d in (6, 12, 36)}


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("cpls", {}, "did you mean 'cpl_s'|did you mean 'cpl'"),
        ("cpl", {"depth": 0}, "model.depth is 0, expected a whole number of at least 1"),
        ("cpl", {"channels": 2}, "the images have 3 already"),
        ("cpl", {"pooling": "mean"}, "model.pooling is 'mean', expected one of average, max"),
        ("cpl", {"step": -1.0}, "model.step is -1.0, expected a finite number above 0"),
        ("cpl", {"layer": "sll", "step": 1.0}, "model.layer is sll"),
        ("cpl", {"layer": "implicit", "skew": True}, "model.layer is implicit: drop one"),
        ("convnet", {"depth": 0}, "model.depth is 0, expected a whole number of at least 1"),
        ("lot_net", {"width": 15}, "needs an even number: take 14 or 16"),
        ("liresnett", {}, "did you mean 'liresnet'"),
        ("liresnet", {"widht": 8}, "did you mean 'width'"),
        ("resnet", {"width": 7}, "needs an even number: take 6 or 8"),
        ("liresnet", {"block": "conv"}, "model.block is 'conv', expected one of linear"),
        ("liresnet", {"activation": "group_sort", "width": 6}, "not a multiple of 4"),
    ],
)
def test_mistakes_of_a_user(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_model(name, 10, 32, **options)


def test_an_image_size_without_a_stem() -> None:
    with pytest.raises(ValueError, match=r"model\.image_size is 48, but cpl has stems for 8, 28"):
        build_model("cpl", 10, 48)


@pytest.mark.parametrize("name", ["convnet", "resnet", "aol_net", "liresnet_l6w128"])
def test_an_image_size_without_a_stem_of_the_family(name: str) -> None:
    with pytest.raises(ValueError, match=r"model\.image_size is 33, but liresnet has stems for 8"):
        build_model(name, 10, 33)


def test_a_scale_that_is_not_1_counts(tmp_path: Path) -> None:
    """Proposition 2: √ρ multiplies Λ, in training and in the certificate."""
    model = made("cpl, Proposition 2")
    factors = [module.factor for module in model.modules() if isinstance(module, Scale)]
    with torch.no_grad():
        for number, factor in enumerate(factors):
            factor.fill_(0.5 + number)
    steepness = float(np.prod([0.5 + number for number in range(len(factors))]))
    estimate = model(torch.rand(1, 1, 8, 8)).layer_lipschitz.detach().prod()
    assert float(estimate) == pytest.approx(steepness)
    found = np.prod([layer.norm_bound().value for layer in model.export().layers])
    assert found == pytest.approx(steepness, rel=1e-12)


def test_the_layer_of_proposition_2() -> None:
    """√ρ·x − 1/√ρ·WᵀTφ(Wx + b), WWᵀ ⪯ 2ρT⁻¹, is a convex potential of T^{1/2}W and a scale."""
    torch.manual_seed(0)
    rho, size = 1.7, 5
    weight, bias = torch.randn(3, size).double(), torch.randn(3).double()
    diagonal = 0.1 + torch.rand(3).double()
    root = diagonal.sqrt()
    potential = root[:, None] * weight
    length = float(torch.linalg.matrix_norm(potential, 2))
    diagonal, root, potential = (
        diagonal * 2 * rho / length**2,
        root * (2 * rho) ** 0.5 / length,
        potential * (2 * rho) ** 0.5 / length,
    )
    gap = 2 * rho * (1 / diagonal).diag() - weight @ weight.T
    assert float(torch.linalg.eigvalsh(gap)[0]) > -1e-12, "the condition of the proposition"
    x = torch.randn(50, size).double()
    hidden = torch.relu(x @ weight.T + bias)
    paper = rho**0.5 * x - hidden * diagonal @ weight / rho**0.5
    ours = x - torch.relu(x @ potential.T + root * bias) @ potential / rho
    assert torch.allclose(paper, rho**0.5 * ours)


def test_more_classes_than_features() -> None:
    with pytest.raises(ValueError, match="only 16 features reach the head"):
        build_model("cpl", 100, 8, 1, channels=4, depth=1, dense_depth=0)
