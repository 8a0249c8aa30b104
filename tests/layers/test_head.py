import numpy as np
import pytest
import torch

from pipeline.layers.head import ExportedHead, NormalizedHead, row_distances


def head() -> NormalizedHead:
    torch.manual_seed(0)
    made = NormalizedHead(6, 4)
    with torch.no_grad():
        made.bias += torch.randn(4)
    return made


def test_rows_are_normalised_once_in_float64() -> None:
    exported = head().export()
    norms = np.linalg.norm(exported.weight.astype(np.float64), axis=1)
    assert np.abs(norms - 1).max() < 1e-7
    assert exported.weight.dtype == np.float32


def test_logits_are_distances_to_hyperplanes() -> None:
    made = head()
    x = torch.randn(3, 6)
    logits, _ = made(x)
    rows = made.weight / made.weight.norm(dim=1, keepdim=True)
    assert torch.allclose(logits, x @ rows.T + made.bias, atol=1e-6)
    exact = made.export().logits(x.double())
    assert torch.allclose(logits.double(), exact, atol=1e-5)


def test_distances_are_those_of_every_pair() -> None:
    rows = torch.randn(5, 7)
    expected = (rows[:, None] - rows[None]).norm(dim=2)
    assert torch.allclose(row_distances(rows), expected, atol=1e-5)


def test_distances_have_a_finite_gradient_at_equal_rows() -> None:
    rows = torch.nn.functional.normalize(torch.randn(4, 6), dim=1)
    rows[1] = rows[0]
    rows.requires_grad_()
    distances = row_distances(rows)
    assert torch.equal(distances.diagonal(), torch.zeros(4))
    distances.sum().backward()
    assert bool(rows.grad.isfinite().all())


def test_a_thousand_classes_need_no_cube() -> None:
    """[K, K, d] at K = 1000, d = 4096 would be 16 GB; this is 200 MB at the most."""
    distances = row_distances(torch.nn.functional.normalize(torch.randn(1000, 4096), dim=1))
    assert distances.shape == (1000, 1000)


@pytest.mark.parametrize(
    ("weight", "bias"), [(np.ones((1, 3)), np.ones(1)), (np.ones((3, 4)), np.ones(2))]
)
def test_heads_that_do_not_fit_are_refused(weight: np.ndarray, bias: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"head\."):
        ExportedHead(weight.astype(np.float32), bias.astype(np.float32))
