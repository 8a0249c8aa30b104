"""PlainNetwork: a fully connected network as arrays; margins, gradients, Hessians in batches.

    z^(I) = W^(I) a^(I−1) + b^(I),  a^(I) = σ(z^(I)),  f_j − f_i = (w_j − w_i)·a + c_j − c_i

Notable: the Hessian is never formed. Lemma 1 of CRC times a vector is one more pass forwards and
backwards, so a whole test set is searched for its steepest curvature by power iteration. Nothing
here bounds anything: these are the numbers that bounds are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def _tanh_bend(z: Tensor) -> Tensor:
    value = torch.tanh(z)
    return -2 * value * (1 - value * value)


def _sigmoid_slope(z: Tensor) -> Tensor:
    value = torch.sigmoid(z)
    return value * (1 - value)


def _sigmoid_bend(z: Tensor) -> Tensor:
    value = torch.sigmoid(z)
    return value * (1 - value) * (1 - 2 * value)


VALUE: dict[str, Function] = {
    "relu": F.relu,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
SLOPE: dict[str, Function] = {
    "relu": lambda z: (z > 0).to(z),
    "softplus": torch.sigmoid,
    "sigmoid": _sigmoid_slope,
    "tanh": lambda z: 1 - torch.tanh(z) ** 2,
}
BEND: dict[str, Function] = {
    "softplus": _sigmoid_slope,
    "sigmoid": _sigmoid_bend,
    "tanh": _tanh_bend,
}


@dataclass(frozen=True, eq=False)
class PlainNetwork:
    """Weights of one dtype."""

    weights: Sequence[Tensor]
    """W^(1) … of the hidden layers, [outputs, inputs]."""
    biases: Sequence[Tensor]
    functions: Sequence[str]
    rows: Tensor
    """[K, d], the head."""
    offsets: Tensor
    """[K]."""

    def to(self, dtype: torch.dtype) -> PlainNetwork:
        """The same network in another dtype."""
        return PlainNetwork(
            [weight.to(dtype) for weight in self.weights],
            [bias.to(dtype) for bias in self.biases],
            self.functions,
            self.rows.to(dtype),
            self.offsets.to(dtype),
        )

    def hidden(self, x: Tensor) -> list[Tensor]:
        """z^(1) … of points [n, D]."""
        found = []
        for weight, bias, function in zip(self.weights, self.biases, self.functions, strict=True):
            found.append(F.linear(x, weight, bias))
            x = VALUE[function](found[-1])
        return found

    def logits(self, x: Tensor) -> Tensor:
        """[n, D] -> [n, K]."""
        last = VALUE[self.functions[-1]](self.hidden(x)[-1])
        return F.linear(last, self.rows, self.offsets)

    def margin(self, first: Tensor, second: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """f_first − f_second and its gradient, one pair of classes [n] a row."""
        rows = self.rows[first] - self.rows[second]
        offset = self.offsets[first] - self.offsets[second]

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.hidden(x)
            value = (VALUE[self.functions[-1]](hidden[-1]) * rows).sum(1) + offset
            v = rows
            for z, weight, function in zip(
                reversed(hidden), reversed(self.weights), reversed(self.functions), strict=True
            ):
                v = (v * SLOPE[function](z)) @ weight
            return value, v

        return evaluate

    def hessian(self, x: Tensor, first: Tensor, second: Tensor) -> Function:
        """v [n, D] ↦ ∇²(f_first − f_second)(x) v, row by row (Lemma 1)."""
        hidden = self.hidden(x)
        slopes = [SLOPE[f](z) for f, z in zip(self.functions, hidden, strict=True)]
        bends = [BEND[f](z) for f, z in zip(self.functions, hidden, strict=True)]
        adjoints = [self.rows[first] - self.rows[second]]  # ∂f/∂a of each layer, the last first
        for slope, weight in zip(reversed(slopes[1:]), reversed(self.weights[1:]), strict=True):
            adjoints.append((adjoints[-1] * slope) @ weight)
        adjoints.reverse()

        def times(v: Tensor) -> Tensor:
            moves = []
            for weight, slope in zip(self.weights, slopes, strict=True):
                moves.append(v @ weight.T)
                v = slope * moves[-1]
            back = torch.zeros_like(v)
            for number in reversed(range(len(slopes))):
                bent = bends[number] * moves[number] * adjoints[number]
                back = (bent + slopes[number] * back) @ self.weights[number]
            return back

        return times


def largest_curvature(
    network: PlainNetwork, x: Tensor, first: Tensor, second: Tensor, steps: int = 40
) -> Tensor:
    """max |λ| of ∇²(f_first − f_second)(x) by power iteration, from below: [n].

    Args:
        network: smooth.
        x: [n, D].
        first: [n] classes.
        second: [n] classes.
        steps: products with the Hessian.
    """
    times = network.hessian(x, first, second)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    found = torch.zeros_like(x[:, 0])
    for _ in range(steps):
        v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=1e-30)
        v = times(v)
        found = torch.linalg.vector_norm(v, dim=1)
    return found
