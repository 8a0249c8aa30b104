"""The smaller networks: mCnF (CRM, Local-Lip) and fully connected ones (CRC).

Convolutions as (channels, kernel, stride, padding), then dense layers, for K classes:
  4C3F  28 px  (32,3,1,1) (32,4,2,1) (64,3,1,1) (64,4,2,1); 512 512 K
  6C2F  32 px  (32,3,1,1) (32,4,2,1), then twice (64,3,1,1) (64,4,2,1); 512 K
  8C2F  64 px  twice (64,3,1,1) (64,4,2,0), twice (128,3,1,1) (128,4,2,0), (256,3,1,1) (256,4,2,0);
               256 K

Notable: 8C2F is the network of Huang et al. (2021). CRM's authors changed the padding of its second
convolution to 0 because their power iteration failed on sizes that a stride does not divide; ours
does not, so it stands unaltered. Any image size will do; the table's are the papers'.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pipeline.layers.activation import Activation
from pipeline.layers.conv2d import Conv2d, output_size
from pipeline.layers.dense import Dense
from pipeline.layers.flatten import Flatten
from pipeline.layers.linear_head import LinearHead
from pipeline.models.slope_network import SlopeNetwork
from pipeline.options import require_choice, require_count, require_flag


@dataclass(frozen=True)
class Plan:
    """A network of the table."""

    convolutions: tuple[tuple[int, int, int, int], ...]
    dense: tuple[int, ...]


PLANS = {
    "4c3f": Plan(((32, 3, 1, 1), (32, 4, 2, 1), (64, 3, 1, 1), (64, 4, 2, 1)), (512, 512)),
    "6c2f": Plan(
        (*((32, 3, 1, 1), (32, 4, 2, 1)), *((64, 3, 1, 1), (64, 4, 2, 1)) * 2),
        (512,),
    ),
    "8c2f": Plan(
        (
            *((64, 3, 1, 1), (64, 3, 1, 1), (64, 4, 2, 0)),
            *((128, 3, 1, 1), (128, 3, 1, 1), (128, 4, 2, 0)),
            *((256, 3, 1, 1), (256, 4, 2, 0)),
        ),
        (256,),
    ),
}


def cnn(
    num_classes: int,
    image_size: int,
    in_channels: int = 3,
    plan: str = "4c3f",
    activation: str = "relu",
    lipschitz: str = "liplt",
    power_iterations: int = 5,
) -> SlopeNetwork:
    """Build an mCnF.

    Args:
        num_classes: K.
        image_size: H = W of the images.
        in_channels: C of the images.
        plan: 4c3f, 6c2f or 8c2f.
        activation: relu, leaky_relu, softplus, sigmoid or tanh.
        lipschitz: how margins are judged, liplt or product.
        power_iterations: steps a forward.

    Raises:
        ValueError: an unknown plan or activation, or images too small for the plan.
    """
    require_count("model.num_classes", num_classes, least=2)
    require_count("model.in_channels", in_channels)
    require_choice("model.plan", plan, PLANS)
    require_count("model.power_iterations", power_iterations)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, size = in_channels, image_size
    for number, (outputs, kernel, stride, padding) in enumerate(PLANS[plan].convolutions):
        if output_size(size, kernel, stride, padding) < 1:
            raise ValueError(f"model.image_size {image_size} is too small for {plan}")
        layers[f"conv{number}"] = Conv2d(channels, outputs, kernel, stride, padding, size)
        layers[f"conv{number}_act"] = Activation(activation)
        channels, size = outputs, output_size(size, kernel, stride, padding)
    layers["flatten"] = Flatten()
    features = _dense(layers, channels * size**2, PLANS[plan].dense, activation)
    return SlopeNetwork(
        nn.Sequential(layers),
        LinearHead(features, num_classes),
        (in_channels, image_size, image_size),
        power_iterations,
        lipschitz,
    )


def mlp(
    num_classes: int,
    image_size: int,
    in_channels: int = 3,
    hidden: Sequence[int] = (1024,),
    activation: str = "softplus",
    lipschitz: str = "product",
    curvature: bool = True,
    power_iterations: int = 1,
) -> SlopeNetwork:
    """Build a fully connected network; CRC's L×[1024] has L − 1 hidden layers of 1024.

    Args:
        num_classes: K.
        image_size: H = W of the images.
        in_channels: C of the images.
        hidden: width of each hidden layer, e.g. [1024, 1024].
        activation: softplus, sigmoid or tanh; relu too without `curvature`.
        lipschitz: how margins are judged, product or liplt.
        curvature: bound the curvature in training (CRC's gamma needs it).
        power_iterations: steps a forward.

    Raises:
        ValueError: no hidden layer, an unknown activation, or a relu with `curvature`.
    """
    require_count("model.num_classes", num_classes, least=2)
    require_count("model.in_channels", in_channels)
    require_flag("model.curvature", curvature)
    require_count("model.power_iterations", power_iterations)
    widths = list(hidden) if isinstance(hidden, list | tuple) else []
    if not widths:
        raise ValueError(f"model.hidden is {hidden!r}, expected widths such as [1024]")
    for width in widths:
        require_count("model.hidden", width)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=Flatten())
    pixels = in_channels * image_size**2
    features = _dense(layers, pixels, widths, activation)
    first = layers["dense0_act"]
    assert isinstance(first, Activation)
    if curvature and first.slopes.curvature is None:
        raise ValueError(
            f"model.activation {activation!r} has no second derivative: take softplus, sigmoid or "
            "tanh, or set model.curvature to false"
        )
    return SlopeNetwork(
        nn.Sequential(layers),
        LinearHead(features, num_classes),
        (in_channels, image_size, image_size),
        power_iterations,
        lipschitz,
        curvature,
    )


def _dense(
    layers: OrderedDict[str, nn.Module], features: int, widths: Sequence[int], activation: str
) -> int:
    """Append dense layers; the number of features that come out."""
    for number, width in enumerate(widths):
        layers[f"dense{number}"] = Dense(features, width)
        layers[f"dense{number}_act"] = Activation(activation)
        features = width
    return features
