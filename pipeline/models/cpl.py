"""CPL, networks of Convex Potential Layers (Meunier et al. 2022, Sections 4 and 5).

    shift → [patches] → zero channels → conv potentials → pool → flatten → dense potentials
          → truncation, or normalised rows (LLN)

Notable:
- Every layer is 1-Lipschitz, so the trunk is, and no estimate of steepness enters the loss (unless
  `scale` is on: then take an objective that sees it, such as EMMA).
- The paper's Table 1 names depths, channels and features, not the channels between the two
  convolutions of a layer: 5, as in the authors' code.
- The paper's networks work at the full 32×32, and it has none for larger images. Those of 64 and
  224 px become maps of 32×32 first: by unshuffling, an isometry without weights, where the channels
  suffice (12 and 147 for colour), else by orthonormal filters on the same patches.
"""

from __future__ import annotations

from torch import nn

from pipeline.layers.cpl import ConvexPotentialConv2d, ConvexPotentialDense
from pipeline.layers.flatten import Flatten
from pipeline.layers.head import Head, NormalizedHead
from pipeline.layers.implicit_potential import ImplicitPotentialConv2d, ImplicitPotentialDense
from pipeline.layers.isometries import PadChannels, PixelUnshuffle
from pipeline.layers.orthogonal import CayleyDense, CayleyPatches
from pipeline.layers.pooling import AveragePool, MaxPool
from pipeline.layers.scale import Scale
from pipeline.layers.shift import Shift
from pipeline.layers.skew import SkewExponential
from pipeline.layers.sll import SllConv2d, SllDense
from pipeline.layers.truncated_head import TruncatedHead
from pipeline.models.network import EVALUATION_ITERATIONS, LipschitzNetwork
from pipeline.models.options import named_sequence
from pipeline.options import require_choice, require_count, require_flag, require_number

POOL = 4
"""Side of the pooling windows."""
UNSHUFFLE = {8: 1, 28: 1, 32: 1, 64: 2, 224: 7}
"""Side of the patches that become channels, by image size."""


def cpl(
    num_classes: int,
    image_size: int,
    in_channels: int = 3,
    depth: int = 20,
    channels: int = 45,
    dense_depth: int = 7,
    features: int = 2048,
    conv_hidden: int = 5,
    pooling: str = "average",
    head: str = "truncated",
    step: float | None = None,
    center: float = 0.5,
    power_iterations: int = 1,
    evaluation_iterations: int = EVALUATION_ITERATIONS,
    layer: str = "cpl",
    skew: bool = False,
    scale: bool = False,
) -> LipschitzNetwork:
    """Build a CPL network, e.g. CPL-S with the defaults.

    Args:
        num_classes: K.
        image_size: H = W of the images.
        in_channels: C of the images.
        depth: "Conv. Layers" of Table 1.
        channels: "Channels" of Table 1; at least those of the image.
        dense_depth: "Lin. Layers" of Table 1; may be 0.
        features: "Lin. Features" of Table 1, the rows of W in the dense layers.
        conv_hidden: channels of W's output in the convolutional layers.
        pooling: "average" or "max", over 4×4.
        head: "truncated" (CIFAR-10 in the paper) or "normalized" (LLN, CIFAR-100).
        step: None for 2/‖W‖², or a fixed step (Appendix D.2), which gets no certificate.
        center: subtracted from every pixel value.
        power_iterations: steps of power iteration a forward; the paper's 1.
        evaluation_iterations: steps in evaluation; the paper's 100.
        layer: "cpl"; "implicit" for the implicit step of Remark 1, truncated; "sll" for the layers
            of Araujo et al. 2023 in the same network.
        skew: the splitting of Corollary 1: after each potential an orthogonal step, the exact flow
            (SOC) after convolutions and the midpoint rule (Cayley) after dense layers.
        scale: a learned number √ρ after each potential, which makes it the layer of LipLT's
            Proposition 2 (Fazlyab et al. 2023); the network is then not 1-Lipschitz.

    Raises:
        ValueError: an image size without a stem, or an option out of range.
    """
    if image_size not in UNSHUFFLE:
        sizes = ", ".join(map(str, UNSHUFFLE))
        raise ValueError(f"model.image_size is {image_size!r}, but cpl has stems for {sizes}")
    factor = UNSHUFFLE[image_size]
    require_count("model.num_classes", num_classes, least=2)
    require_count("model.in_channels", in_channels)
    require_count("model.depth", depth)
    require_count("model.channels", channels)
    require_count("model.dense_depth", dense_depth, least=0)
    require_count("model.features", features)
    require_count("model.conv_hidden", conv_hidden)
    require_choice("model.pooling", pooling, ("average", "max"))
    require_choice("model.head", head, ("truncated", "normalized"))
    require_number("model.center", center)
    require_count("model.power_iterations", power_iterations)
    require_count("model.evaluation_iterations", evaluation_iterations)
    require_choice("model.layer", layer, ("cpl", "implicit", "sll"))
    require_flag("model.skew", skew)
    require_flag("model.scale", scale)
    if step is not None:
        require_number("model.step", step, above=0)
    if step is not None and layer != "cpl":
        raise ValueError(f"model.step is of cpl layers, and model.layer is {layer}: leave it out")
    if skew and layer == "implicit":
        raise ValueError("model.skew is of explicit steps, and model.layer is implicit: drop one")
    if factor == 1 and channels < in_channels:
        raise ValueError(
            f"model.channels is {channels}, but the images have {in_channels} already: take at "
            "least so many"
        )

    size = image_size // factor
    vector = channels * (size // POOL) ** 2
    convolutions: list[nn.Module] = []
    for _ in range(depth):
        convolutions.append(_convolution(layer, channels, conv_hidden, size, step))
        convolutions += [Scale()] if scale else []
        convolutions += [SkewExponential(channels, 3, size)] if skew else []
    denses: list[nn.Module] = []
    for _ in range(dense_depth):
        denses.append(_dense(layer, vector, features, step))
        denses += [Scale()] if scale else []
        denses += [CayleyDense(vector, vector)] if skew else []
    trunk = named_sequence(
        shift=Shift(center),
        **_stem(in_channels, channels, factor),
        convolutions=nn.Sequential(*convolutions),
        pool=AveragePool(POOL) if pooling == "average" else MaxPool(POOL),
        flatten=Flatten(),
        denses=nn.Sequential(*denses),
    )
    top: Head = (TruncatedHead if head == "truncated" else NormalizedHead)(vector, num_classes)
    return LipschitzNetwork(
        trunk,
        top,
        (in_channels, image_size, image_size),
        power_iterations,
        evaluation_iterations,
    )


def _convolution(
    layer: str, channels: int, hidden: int, size: int, step: float | None
) -> nn.Module:
    """One convolutional layer of the kind that `model.layer` names."""
    if layer == "sll":
        return SllConv2d(channels, hidden, 3)
    if layer == "implicit":
        return ImplicitPotentialConv2d(channels, hidden, 3, size)
    return ConvexPotentialConv2d(channels, hidden, 3, size, step)


def _dense(layer: str, vector: int, features: int, step: float | None) -> nn.Module:
    """One dense layer of that kind."""
    if layer == "sll":
        return SllDense(vector, features)
    if layer == "implicit":
        return ImplicitPotentialDense(vector, features)
    return ConvexPotentialDense(vector, features, step)


def _stem(in_channels: int, channels: int, factor: int) -> dict[str, nn.Module]:
    """From the image to maps of 32×32 (or the image's own size) with so many channels."""
    unshuffled = in_channels * factor**2
    if factor == 1:
        return {"pad": PadChannels(channels)}
    if unshuffled > channels:
        return {"patches": CayleyPatches(in_channels, channels, factor)}
    return {"unshuffle": PixelUnshuffle(factor), "pad": PadChannels(channels)}
