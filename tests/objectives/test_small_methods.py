"""CRM, CRT, PGD and TRADES against their formulas, on networks small enough to follow."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.lipschitz.curvature_search import worst_point
from pipeline.models import build_model
from pipeline.models.slope_network import CONCAVE
from pipeline.objectives import build_objective
from pipeline.objectives.adversarial import attack
from pipeline.objectives.crm import soft_radius
from pipeline.objectives.crt import margin_of
from pipeline.types import Batch, Prediction

SIDE, CLASSES = 4, 3


def batch_of(count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        torch.rand(count, 1, SIDE, SIDE, generator=generator),
        torch.arange(count) % CLASSES,
        torch.arange(count) + 7,
        torch.zeros(count, dtype=torch.bool),
    )


def mlp(**options):
    torch.manual_seed(0)
    return build_model("mlp", CLASSES, SIDE, 1, hidden=[8], power_iterations=50, **options)


def test_crm_is_equation_6_sample_by_sample() -> None:
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.3, 0.1, 0.0], [0.0, 1.0, 0.0], [9.0, 0.0, 0.0]])
    labels = torch.tensor([0, 0, 2, 0])
    table = torch.tensor([[0.0, 2.0, 3.0], [2.0, 0.0, 4.0], [3.0, 4.0, 0.0]])
    weight, t, threshold = 15.0, 5.0, 1.5
    batch = Batch(torch.zeros(4, 1, 2, 2), labels, torch.arange(4), torch.zeros(4).bool())
    objective = build_objective("crm", weight=weight, temperature=t, threshold=threshold)
    said = Prediction(logits, table, torch.ones(1))
    losses = objective(lambda images: said, batch, 0.1)
    for row in range(4):
        y = int(labels[row])
        z = logits[row].tolist()
        radii = [(z[y] - z[i]) / table[y, i].item() for i in range(CLASSES) if i != y]
        soft = -math.log(sum(math.exp(-t * r) for r in radii)) / t
        assert soft <= min(radii) <= soft + math.log(CLASSES - 1) / t  # Proposition 1
        expected = math.log(sum(math.exp(v) for v in z)) - z[y]
        if min(radii) > 0 and soft < threshold:
            expected -= weight * soft
        assert losses.per_sample[row].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    warm = objective(lambda images: said, batch, 0.0)
    plain = F.cross_entropy(logits, labels, reduction="none")
    assert torch.equal(warm.per_sample, plain)


def test_crm_trains_logits_and_steepness_of_every_network() -> None:
    batch = batch_of()
    torch.manual_seed(0)
    for model in (
        build_model("cnn", CLASSES, 8, 1, plan="4c3f"),
        build_model("liresnet", CLASSES, 8, 1, depth=1, width=4, features=8),
    ):
        images = F.interpolate(batch.images, size=8)
        scaled = Batch(images, batch.labels, batch.sample_ids, batch.is_generated)
        losses = build_objective("crm", threshold=100)(model, scaled, 0.1)
        losses.per_sample.sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    radius = soft_radius(
        torch.tensor([[3.0, 1.0, 0.0]]),
        torch.tensor([0]),
        torch.tensor([[0.0, 2.0, 1.0]]),
        math.inf,
    )
    assert radius.item() == 1.0


@pytest.mark.parametrize("options", [{"temperature": 0}, {"weight": -1}, {"threshold": True}])
def test_crm_refuses_what_makes_no_sense(options: dict) -> None:
    with pytest.raises(ValueError, match=f"objective.{next(iter(options))}"):
        build_objective("crm", **options)


def settled(model):
    """After so many forwards that one more power iteration moves nothing."""
    for _ in range(300):
        model(batch_of(1).images)
    return model


def test_crt_is_cross_entropy_at_the_worst_point_plus_curvature() -> None:
    model, batch, radius = settled(mlp()), batch_of(), 0.3
    gamma = 0.5
    losses = build_objective("crt", gamma=gamma, steps=30)(model, batch, radius)
    clean = model(batch.images)
    target = clean.logits.scatter(1, batch.labels[:, None], -torch.inf).argmax(1)
    plain = build_objective("crt", gamma=0.0, steps=30)(model, batch, radius)
    curved = clean.curvature[batch.labels, target]
    assert torch.allclose(losses.per_sample, plain.per_sample + gamma * curved, rtol=1e-3)
    at_rest = build_objective("crt", gamma=0.0, attack=False)(model, batch, radius)
    unattacked = F.cross_entropy(clean.logits, batch.labels, reduction="none")
    assert torch.allclose(at_rest.per_sample, unattacked, atol=1e-6)
    # no random point of the sphere has a smaller margin than the one that is attacked
    noise = torch.randn(300, *batch.images.shape, generator=torch.Generator().manual_seed(1))
    noise = radius * noise / noise.flatten(2).norm(dim=2)[..., None, None, None]
    logits = model((batch.images + noise).flatten(0, 1)).logits
    labels = batch.labels.repeat(300)
    margins = logits.gather(1, labels[:, None]) - logits.gather(1, target.repeat(300)[:, None])
    lowest = margins[:, 0].view(300, -1).amin(0)
    margin = margin_of(model, batch.labels, target, batch.images.shape)
    limit = clean.concavity[batch.labels, target]
    found = worst_point(margin, batch.images.flatten(1), radius, limit, steps=30)
    assert (margin(found)[0] <= lowest + 1e-5).all()
    hit = F.cross_entropy(model(found.view_as(batch.images)).logits, batch.labels, reduction="none")
    assert torch.allclose(plain.per_sample, hit, atol=1e-4)


def test_crt_without_attack_asks_for_no_concavity() -> None:
    """Its power iteration, as dear as a batch of images, stands still; the loss does not notice."""
    model, batch = mlp(), batch_of()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    attacked = build_objective("crt", gamma=0.5)(model, batch, 0.0)
    moved = {name for name, old in kept.items() if not old.equal(model.state_dict()[name])}
    model.load_state_dict(kept)
    at_rest = build_objective("crt", gamma=0.5, attack=False)(model, batch, 0.3)
    still = {name for name, old in kept.items() if old.equal(model.state_dict()[name])}
    assert torch.equal(at_rest.per_sample, attacked.per_sample)
    assert {name for name in moved if name.startswith(CONCAVE)} == moved & still
    assert moved & still and moved - still
    assert model(batch.images).concavity is not None


def test_crt_attacks_inside_the_ball_while_curvature_is_large() -> None:
    """The multiplier stays at −m or above, so that the step is at most the gradient over that."""
    batch, radius = batch_of(), 50.0
    model = settled(mlp(activation="tanh"))
    clean = model(batch.images)
    target = clean.logits.scatter(1, batch.labels[:, None], -torch.inf).argmax(1)
    concave = clean.concavity[batch.labels, target]
    assert (concave <= clean.curvature[batch.labels, target] * (1 + 1e-5)).all()
    margin = margin_of(model, batch.labels, target, batch.images.shape)
    x0 = batch.images.flatten(1)
    found = worst_point(margin, x0, radius, concave, steps=200)
    away = (found - x0).norm(dim=1)
    assert (away < 0.9 * radius).all()
    assert torch.allclose(found - x0, -margin(found)[1] / concave[:, None], rtol=1e-3, atol=1e-4)
    weaker = worst_point(margin, x0, radius, 3 * concave, steps=200)
    assert ((weaker - x0).norm(dim=1) < away).all()
    farther = worst_point(margin, x0, radius, torch.zeros_like(concave), steps=30)
    assert torch.allclose((farther - x0).norm(dim=1), torch.tensor(radius), rtol=1e-4)
    losses = build_objective("crt", gamma=0.0, steps=200)(model, batch, radius)
    hit = F.cross_entropy(model(found.view_as(batch.images)).logits, batch.labels, reduction="none")
    assert torch.allclose(losses.per_sample, hit, rtol=1e-3)


NETWORKS = {
    "mlp": {"hidden": [8]},
    "cnn": {},
    "slope_resnet": {"width": 8, "inner": 8, "blocks": 1},
    "liresnet": {"depth": 1, "width": 4, "features": 8},
    "cpl": {"depth": 1, "channels": 4, "dense_depth": 1, "features": 8},
}


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        *itertools.product(NETWORKS, [{"name": "pgd"}, {"name": "trades"}]),
        ("mlp", {"name": "crt"}),
    ],
)
def test_the_inner_problem_moves_no_power_iteration(name: str, objective: dict) -> None:
    """A step advances the vectors once, as one plain forward does, however long its attack is."""
    batch = batch_of()
    images = F.interpolate(batch.images, size=8)
    batch = Batch(images, batch.labels, batch.sample_ids, batch.is_generated)
    torch.manual_seed(0)
    model = build_model(name, CLASSES, 8, 1, **NETWORKS[name]).train()
    once = copy.deepcopy(model)
    once(images)
    build_objective(**objective, steps=5)(model, batch, 0.1)
    for (key, moved), expected in zip(model.named_buffers(), once.buffers(), strict=True):
        assert torch.equal(moved, expected), key


def test_crt_without_curvature_is_refused() -> None:
    with pytest.raises(ValueError, match="take mlp with model"):
        build_objective("crt")(mlp(curvature=False), batch_of(), 0.1)


def test_pgd_and_trades_attack_inside_the_ball_and_raise_the_loss() -> None:
    model, batch, radius = mlp(), batch_of(), 0.5

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, batch.labels, reduction="none")

    attacked = attack(model, batch.images, loss, radius, steps=10)
    away = (attacked - batch.images).flatten(1).norm(dim=1)
    assert (away <= radius * (1 + 1e-5)).all() and (away > 0.9 * radius).all()
    clean = loss(model(batch.images).logits)
    assert (loss(model(attacked).logits) > clean).all()
    assert torch.equal(attack(model, batch.images, loss, 0.0, steps=3), batch.images)
    pgd = build_objective("pgd")(model, batch, radius)
    assert (pgd.per_sample > clean).all()
    trades = build_objective("trades", beta=6.0)(model, batch, radius)
    assert (trades.per_sample >= clean - 1e-6).all() and (trades.per_sample > clean).any()
    again = build_objective("trades", beta=6.0)(model, batch, radius)
    assert torch.equal(trades.per_sample, again.per_sample)  # noise by sample id
    (trades.per_sample.sum() + pgd.per_sample.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
