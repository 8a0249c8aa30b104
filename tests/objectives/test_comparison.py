"""The losses that EMMA and CPL are compared with, against their definitions by loops."""

import math

import pytest
import torch

from pipeline.objectives import build_objective
from pipeline.objectives.margins import global_lipschitz
from pipeline.types import Batch, Prediction

CLASSES, COUNT, EPSILON = 5, 12, 0.3


@pytest.fixture
def prediction() -> Prediction:
    torch.manual_seed(0)
    rows = torch.randn(CLASSES, 4, dtype=torch.float64)
    logits = torch.randn(COUNT, CLASSES, dtype=torch.float64, requires_grad=True)
    return Prediction(logits, 1.7 * torch.cdist(rows, rows), torch.tensor([1.7]))


def losses_of(name: str, prediction: Prediction, **options: float) -> torch.Tensor:
    labels = torch.arange(COUNT) % CLASSES
    batch = Batch(torch.zeros(COUNT, 1), labels, labels, torch.zeros(COUNT).bool())
    return build_objective(name, **options)(lambda images: prediction, batch, EPSILON).per_sample


def by_loops(name: str, prediction: Prediction) -> list[float]:
    found = []
    for number, logits in enumerate(prediction.logits.tolist()):
        label, table = number % CLASSES, prediction.margin_lipschitz.tolist()
        best = max(range(CLASSES), key=logits.__getitem__)
        bottom = max(logits[i] + EPSILON * table[best][i] for i in range(CLASSES) if i != best)
        clean = math.log(sum(math.exp(value) for value in logits))
        if name == "gloro_ce":
            loss = math.log(math.exp(clean) + math.exp(bottom)) - logits[label]
        elif name == "gloro_trades":
            shares = [math.exp(value - clean) for value in logits]
            extended = math.log(math.exp(clean) + math.exp(bottom))
            divergence = sum(
                p * (math.log(p) - (value - extended))
                for p, value in zip(shares, logits, strict=True)
            )
            loss = clean - logits[label] + 2.5 * divergence
        elif name == "multi_margin":
            hinges = [max(0.0, 0.7 - (logits[label] - value)) for value in logits]
            loss = (sum(hinges) - 0.7) / CLASSES
        else:
            steepest = float(torch.linalg.matrix_norm(centred_rows(), 2)) * 1.7
            raised = [
                value + EPSILON * (table[label][i] if name == "fixed_margin" else 0)
                for i, value in enumerate(logits)
            ]
            if name == "lmt":
                raised = [
                    value + (i != label) * math.sqrt(2) * EPSILON * steepest
                    for i, value in enumerate(logits)
                ]
            loss = math.log(sum(map(math.exp, raised))) - raised[label]
        found.append(loss)
    return found


def centred_rows() -> torch.Tensor:
    torch.manual_seed(0)
    rows = torch.randn(CLASSES, 4, dtype=torch.float64)
    return rows - rows.mean(0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gloro_ce", {}),
        ("gloro_trades", {"weight": 2.5}),
        ("multi_margin", {"margin": 0.7}),
        ("fixed_margin", {}),
        ("lmt", {}),
    ],
)
def test_loss_by_its_definition(name: str, options: dict, prediction: Prediction) -> None:
    found = losses_of(name, prediction, **options)
    assert found.tolist() == pytest.approx(by_loops(name, prediction), rel=1e-9)
    found.sum().backward()
    assert prediction.logits.grad is not None and prediction.logits.grad.abs().sum() > 0


def test_lmt_asks_no_less_than_the_fixed_margin() -> None:
    """√2·K is an upper bound of every K_ji (LiResNet, Appendix A)."""
    table = torch.cdist(torch.randn(7, 3), torch.randn(7, 3))
    rows = torch.randn(7, 3)
    table = torch.cdist(rows, rows)
    assert float(table.max()) <= math.sqrt(2) * float(global_lipschitz(table)) * (1 + 1e-6)
    truncated = math.sqrt(2) * (1 - torch.eye(6))
    assert float(global_lipschitz(truncated)) == pytest.approx(1.0)


def test_the_constant_of_lmt_is_differentiable() -> None:
    rows = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def constant(rows: torch.Tensor) -> torch.Tensor:
        gram = (rows[:, None] - rows[None]).square().sum(2)
        return global_lipschitz((gram + 1e-300).sqrt())

    assert torch.autograd.gradcheck(constant, rows, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("multi_margin", {"margin": 0}, "objective.margin is 0, expected a finite number above 0"),
        ("gloro_trades", {"weight": "much"}, "objective.weight is 'much'"),
        ("trade", {}, "there is no objective 'trade'"),
    ],
)
def test_mistakes(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_objective(name, **options)
