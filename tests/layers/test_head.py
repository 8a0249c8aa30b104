"""The normalised head: distances between rows, their gradient, memory, precision, export."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.layers.head import ExportedHead, NormalizedHead, row_distances


def test_distances_are_those_of_the_difference_form():
    rows = torch.randn(9, 5)
    expected = (rows[:, None] - rows[None]).norm(dim=2)
    distances = row_distances(rows)
    assert distances.dtype == torch.float32
    torch.testing.assert_close(distances, expected)
    assert torch.equal(distances.diagonal(), torch.zeros(9))


def test_near_rows_keep_their_distance():
    row = torch.nn.functional.normalize(torch.randn(64, dtype=torch.float64), dim=0)
    apart = row_distances(torch.stack([row, row + 1e-5 * torch.eye(64).double()[0]]))[0, 1]
    assert apart.item() == pytest.approx(1e-5, rel=1e-3)


def test_gradient_by_finite_differences_and_without_nan():
    rows = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    off_diagonal = ~torch.eye(4, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda r: row_distances(r)[off_diagonal], rows)
    equal = torch.ones(3, 5, requires_grad=True)
    row_distances(equal).sum().backward()
    assert torch.equal(equal.grad, torch.zeros(3, 5))


def test_no_tensor_of_classes_by_classes_by_features():
    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.entries = max(self.entries, leaf.numel())
            return result

    head = NormalizedHead(features=60, num_classes=50)
    with Largest() as largest:
        logits, distances = head(torch.randn(40, 60))
        (logits.sum() + distances.sum()).backward()
    assert largest.entries == 50 * 60


def test_logits_use_rows_of_norm_one_in_float32_under_autocast():
    head = NormalizedHead(features=16, num_classes=5)
    x = torch.randn(3, 16)
    expected = x @ (head.weight / head.weight.norm(dim=1, keepdim=True)).T + head.bias
    plain = head(x)
    torch.testing.assert_close(plain[0], expected)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(x)
        from_bf16, _ = head(x.bfloat16())
    assert all(torch.equal(*pair) for pair in zip(plain, inside, strict=True))
    assert from_bf16.dtype == torch.float32


def test_export_normalises_in_float64_and_rounds_once():
    head = NormalizedHead(features=33, num_classes=7)
    exported = head.export()
    weight = head.weight.detach().double().numpy()
    expected = (weight / np.linalg.norm(weight, axis=1, keepdims=True)).astype(np.float32)
    # Two float64 computations may disagree in the last of 53 bits, hence in a tie of 24 bits.
    assert (exported.weight == expected).mean() > 0.99
    np.testing.assert_allclose(exported.weight, expected, rtol=1e-7)
    x = torch.randn(4, 33)
    torch.testing.assert_close(exported.logits(x.double()).float(), head(x)[0])
    assert (exported.num_classes, exported.features) == (7, 33)


def test_export_is_read_back_or_refused():
    exported = NormalizedHead(features=3, num_classes=2).export()
    again = ExportedHead.from_tensors(exported.tensors())
    assert np.array_equal(again.weight, exported.weight)
    with pytest.raises(ValueError, match=r"'head.bias' is missing"):
        ExportedHead.from_tensors({"head.weight": exported.weight})
    with pytest.raises(ValueError, match=r"'head.bias'.*\[3\].*takes \[2\]"):
        ExportedHead(exported.weight, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="at least 2 classes"):
        ExportedHead(exported.weight[:1], exported.bias[:1])
