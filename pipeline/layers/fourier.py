"""Convolutions that are orthogonal at every frequency: LOT, and Cayley's.

- LOT (Xu, Li & Li 2022): the polar factor V(VᵀV)^{−1/2} of a free kernel V, by Newton's iteration.
- Cayley (Trockman & Kolter 2021): (I − A)⁻¹(I + A) of the skew part A of a free kernel.

Notable:
- Both are circular, as in their papers: maps are repeated at their edges. The certified form is
  `circular.ExportedCircularConv2d`, whose norm is proved and not believed.
- Newton's iteration in the form X(3I − XᴴX)/2 has singular values that rise to 1 and never pass it;
  stopped early, the layer contracts a little, which costs accuracy and no soundness.
- Fourier transforms and matrices are float32 at least, whatever autocast surrounds them.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.circular import ExportedCircularConv2d
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.records import to_float32
from pipeline.lipschitz.power_iteration import NormRequest

NEWTON_STEPS = 12


class _FourierConv2d(LipschitzLayer):
    """What both have in common: [B, C, H, H] -> the same.

    Args:
        channels: C.
        kernel_size: k of the free kernel; odd, at most H.
        input_size: H.

    Raises:
        ValueError: the kernel is larger than its maps.
    """

    def __init__(self, channels: int, kernel_size: int, input_size: int) -> None:
        super().__init__()
        if kernel_size > input_size:
            raise ValueError(
                f"a kernel of {kernel_size}×{kernel_size} is larger than maps of "
                f"{input_size}×{input_size}"
            )
        self.input_size = input_size
        self.weight = nn.Parameter(torch.empty(channels, channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.weight, std=0.3 / (kernel_size * channels**0.5))

    @abstractmethod
    def orthogonal(self, symbol: Tensor) -> Tensor:
        """An orthogonal matrix for every frequency: [H, H/2 + 1, C, C] complex -> the same."""

    def symbol(self, dtype: torch.dtype | None = None) -> Tensor:
        """What multiplies each frequency of the maps: [H, H/2 + 1, C, C] complex.

        Args:
            dtype: to compute in; default: at least float32.
        """
        wide = dtype or torch.promote_types(self.weight.dtype, torch.float32)
        size, side = self.input_size, self.weight.shape[-1]
        kernel = F.pad(self.weight.to(wide), (0, size - side, 0, size - side))
        kernel = kernel.roll((-(side // 2), -(side // 2)), (2, 3))  # its middle tap reads pixel i
        # Convolutions of networks are correlations: the tap t reads x[i + t], hence the conjugate.
        free = torch.fft.rfft2(kernel).conj().permute(2, 3, 0, 1)
        return self.orthogonal(free)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        with torch.autocast(x.device.type, enabled=False):
            symbol = self.symbol()
            maps = torch.fft.rfft2(x.to(symbol.real.dtype))
            moved = torch.einsum("hwoi,bihw->bohw", symbol, maps)
            return torch.fft.irfft2(moved, s=x.shape[2:]) + self.bias.view(-1, 1, 1)

    def norm_request(self) -> NormRequest | None:
        """None: orthogonal by construction."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        symbol = self.symbol(torch.float64).conj().permute(2, 3, 0, 1)
        kernel = torch.fft.irfft2(symbol, s=(self.input_size, self.input_size))
        weight, bias = to_float32(kernel), to_float32(self.bias)
        return [ExportedCircularConv2d(name, input_shape, weight, bias)]


class LotConv2d(_FourierConv2d):
    """LOT: [B, C, H, H] -> the same."""

    def __init__(self, channels: int, kernel_size: int, input_size: int) -> None:
        super().__init__(channels, kernel_size, input_size)
        middle = kernel_size // 2
        with torch.no_grad():  # near the identity, where Newton's iteration is quick everywhere
            self.weight[:, :, middle, middle] += torch.eye(channels)

    def orthogonal(self, symbol: Tensor) -> Tensor:
        """See `_FourierConv2d.orthogonal`."""
        size = torch.linalg.matrix_norm(symbol, keepdim=True)  # Frobenius, not below the norm
        found = symbol / torch.where(size > 0, size, torch.ones_like(size))
        for _ in range(NEWTON_STEPS):
            found = 1.5 * found - 0.5 * found @ (found.mH @ found)
        return found


class CayleyConv2d(_FourierConv2d):
    """Cayley's orthogonal convolution: [B, C, H, H] -> the same."""

    def orthogonal(self, symbol: Tensor) -> Tensor:
        """See `_FourierConv2d.orthogonal`."""
        skew = symbol - symbol.mH
        identity = torch.eye(symbol.shape[-1], dtype=symbol.dtype, device=symbol.device)
        rotation: Tensor = torch.linalg.solve(identity - skew, identity + skew)
        return rotation
