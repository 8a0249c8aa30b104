"""Every layer keeps the contract; see `contract.py`."""

from collections.abc import Callable

import pytest

from pipeline.layers.activation import Activation
from pipeline.layers.aol import AolConv2d, AolDense
from pipeline.layers.conv2d import Conv2d
from pipeline.layers.cpl import ConvexPotentialConv2d, ConvexPotentialDense
from pipeline.layers.dense import Dense
from pipeline.layers.exported import KINDS
from pipeline.layers.flatten import Flatten
from pipeline.layers.fourier import CayleyConv2d, LotConv2d
from pipeline.layers.group_sort import GroupSort
from pipeline.layers.householder import Householder
from pipeline.layers.implicit_potential import (
    ImplicitPotentialConv2d,
    ImplicitPotentialDense,
)
from pipeline.layers.isometries import PadChannels, PixelUnshuffle, SwapTokens
from pipeline.layers.linear_residual import LinearResidual
from pipeline.layers.minmax import MinMax
from pipeline.layers.orthogonal import BcopConv2d, CayleyDense, CayleyPatches
from pipeline.layers.pooling import AveragePool, MaxPool
from pipeline.layers.residual import Residual
from pipeline.layers.scale import Scale
from pipeline.layers.shift import Shift
from pipeline.layers.skew import SkewExponential
from pipeline.layers.sll import SllConv2d, SllDense
from pipeline.layers.slope_residual import SlopeResidual
from tests.layers.contract import CHECKS, Case

CASES = {
    "conv": Case(lambda: Conv2d(2, 4, 3, 1, 1, 6), (2, 6, 6)),
    "conv_strided": Case(lambda: Conv2d(3, 6, 5, 2, 2, 8), (3, 8, 8)),
    "conv_patches": Case(lambda: Conv2d(3, 4, 4, 4, 0, 10), (3, 10, 10)),
    "linear_residual": Case(lambda: LinearResidual(4, 3, 5), (4, 5, 5)),
    "dense": Case(lambda: Dense(7, 5), (7,)),
    "minmax": Case(MinMax, (6, 3, 3)),
    "minmax_vector": Case(MinMax, (8,)),
    "flatten": Case(Flatten, (2, 3, 4)),
    "shift": Case(lambda: Shift(0.5), (3, 4, 4)),
    "cpl_dense": Case(lambda: ConvexPotentialDense(9, 5), (9,)),
    "cpl_dense_wide": Case(lambda: ConvexPotentialDense(6, 20), (6,)),
    "cpl_conv": Case(lambda: ConvexPotentialConv2d(4, 3, 3, 6), (4, 6, 6)),
    "cpl_conv_5x5": Case(lambda: ConvexPotentialConv2d(2, 5, 5, 7), (2, 7, 7)),
    "residual": Case(lambda: Residual(4, 6, 3, 5), (4, 5, 5), tightness=2.5),
    "feed_forward": Case(lambda: Residual(4, 6, 1, (5, 1)), (4, 5, 1), tightness=2.5),
    "aol_conv": Case(lambda: AolConv2d(3, 4, 3), (3, 5, 5), tightness=1.6),
    "aol_dense": Case(lambda: AolDense(6, 4), (6,)),
    "sll_conv": Case(lambda: SllConv2d(3, 4, 3), (3, 5, 5)),
    "sll_dense": Case(lambda: SllDense(6, 9), (6,)),
    "householder": Case(lambda: Householder(6), (6, 3, 3)),
    "householder_vector": Case(lambda: Householder(6), (6,)),
    "group_sort": Case(lambda: GroupSort(3), (6, 3, 3)),
    "group_sort_vector": Case(lambda: GroupSort(4), (8,)),
    "cayley_wide": Case(lambda: CayleyDense(6, 4), (6,)),
    "cayley_tall": Case(lambda: CayleyDense(4, 6), (4,)),
    "cayley_patches": Case(lambda: CayleyPatches(2, 3, 2), (2, 6, 6)),
    "bcop": Case(lambda: BcopConv2d(4, 3), (4, 5, 5)),
    "soc": Case(lambda: SkewExponential(4, 3, 5), (4, 5, 5), drift=3e-4),
    "lot": Case(lambda: LotConv2d(3, 3, 4), (3, 4, 4)),
    "lot_5x5_odd": Case(lambda: LotConv2d(2, 5, 5), (2, 5, 5)),
    "cayley_conv": Case(lambda: CayleyConv2d(3, 3, 5), (3, 5, 5)),
    "implicit_dense": Case(lambda: ImplicitPotentialDense(6, 9), (6,)),
    "implicit_conv": Case(lambda: ImplicitPotentialConv2d(3, 4, 3, 5), (3, 5, 5)),
    "scale": Case(Scale, (3, 4, 4)),
    "average_pool": Case(lambda: AveragePool(2), (3, 6, 4)),
    "average_pool_3": Case(lambda: AveragePool(3), (2, 6, 6)),
    "max_pool": Case(lambda: MaxPool(2), (3, 6, 4)),
    "pad_channels": Case(lambda: PadChannels(5), (3, 4, 4)),
    "swap_tokens": Case(lambda: SwapTokens(2), (4, 3, 5)),
    "spatial_mlp": Case(lambda: LinearResidual(6, 3, (4, 1), kernel_size=1), (6, 4, 1)),
    "pixel_unshuffle": Case(lambda: PixelUnshuffle(2), (3, 6, 4)),
    "slope_residual_relu": Case(
        lambda: SlopeResidual(6, 4, "relu"), (6,), tightness=2.5, estimated=False
    ),
    "slope_residual_tanh": Case(
        lambda: SlopeResidual(4, 7, "tanh"), (4,), tightness=2.5, estimated=False
    ),
    "relu": Case(lambda: Activation("relu"), (6,)),
    "leaky_relu": Case(lambda: Activation("leaky_relu"), (2, 3, 4)),
    "softplus": Case(lambda: Activation("softplus"), (6,)),
    "sigmoid": Case(lambda: Activation("sigmoid"), (6,)),
    "tanh": Case(lambda: Activation("tanh"), (2, 3, 4)),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    check(CASES[name])


def test_every_kind_that_can_be_certified_is_under_contract() -> None:
    assert {case.exported().kind for case in CASES.values()} == set(KINDS)
