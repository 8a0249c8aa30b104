"""The Lipschitz certifier: radius, binding class and evidence for every image of a batch.

Notable: everything is float64 from the uint8 pixel on. The network and its norms run on the chosen
device; what decides (margins, delta, radii) is computed by NumPy from [B, K] arrays, all classes at
once. No convolution but by matrix products, no TF32: see `arithmetic.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.certify.arithmetic import SLICE, conventional_arithmetic
from pipeline.certify.ball import BallError
from pipeline.certify.bounds import prove_bounds
from pipeline.certify.radius import Floats, signed_radius
from pipeline.certify.rounding import HeadError, LayerError, input_error, norm_upper, scale_up
from pipeline.certify.verdicts import Integers, Verdicts, concatenate
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.compose import product_upper
from pipeline.lipschitz.pairwise import pairwise_distance_upper

PIXELS = torch.tensor([value / 255 for value in range(256)], dtype=torch.float64)
"""fl(v/255). A table, because CUDA divides by a scalar as a product with its rounded reciprocal."""


class LipschitzCertifier:
    """Certifies images against an exported network whose layers' norm bounds are proved.

    Attributes:
        network: the function that is certified.
        bounds: one NormBound a layer, in order.
        lipschitz_bound: Λ, the upward-rounded product of the bounds.
        margin_lipschitz: [K, K] float64, K_ji = up(Λ·D_ji), zero on the diagonal.
    """

    def __init__(
        self,
        network: ExportedNetwork,
        bounds: Sequence[NormBound],
        device: torch.device | None = None,
    ) -> None:
        assert len(bounds) == len(network.layers)
        self.network = network
        self.bounds = list(bounds)
        self.device = device or torch.device("cpu")
        self.lipschitz_bound = product_upper([bound.value for bound in bounds])
        distances = pairwise_distance_upper(network.head.weight)
        self.margin_lipschitz = scale_up(distances, self.lipschitz_bound)
        if not np.isfinite(self.margin_lipschitz).all():
            raise ValueError(
                f"the Lipschitz bound {self.lipschitz_bound:g} of the network overflows or is not "
                "finite, so nothing can be certified"
            )
        self._layer_errors = [
            None if (rounding := layer.rounding()) is None else LayerError.of(bound.value, rounding)
            for layer, bound in zip(network.layers, bounds, strict=True)
        ]
        self._head_error = HeadError.of(network.head.weight, network.head.bias, distances)

    def margin_evidence(self) -> dict[str, Any]:
        """`margins` of certificate.json: how margins are proved, where not by K = Λ·D; else {}."""
        return {}

    def certify(self, images: Tensor, labels: Tensor) -> Verdicts:
        """Certify each image (docs/certificate.md §1, statements R and F).

        Let x be the exact point v/255 of an image, f the exact real function of the exported
        tensors, f̂ any float64 evaluation of it, and r ≥ s the two radii returned.

        R. If r > 0 then the label is the predicted class j and
            f_j(x') > f_i(x')  for every class i ≠ j and every x' with ‖x' − x‖₂ < r.
        F. If s > 0 then the label is the predicted class j and
            f̂_j(x') > f̂_i(x')  for every i ≠ j and every float64 vector x' with ‖x' − x‖₂ < s,
        whatever the order of summation, which may differ from point to point.

        Proof. With the computed margin m_ji, the bound delta_ji of its rounding (§5) and the bound
        K_ji of the Lipschitz constant of f_j − f_i (§2 to §4), at the distance t = ‖x' − x‖ < r
            f_j(x') − f_i(x') ≥ f_j(x) − f_i(x) − K_ji t ≥ m_ji − delta_ji − K_ji t > 0,
        since r ≤ (m_ji − delta_ji)/K_ji for every i, rounded down (§6). The two computed logits at
        x' differ from the exact ones by at most α_ji + β_ji t in all (§5), so that for t < s
            f̂_j(x') − f̂_i(x') ≥ m_ji − delta_ji − α_ji − (K_ji + β_ji) t > 0,
        since s ≤ (m_ji − delta_ji − α_ji)/(K_ji + β_ji) for every i, rounded down.

        Assumed: IEEE float64 with dot products summed in any order (no Strassen, Winograd, FFT or
        emulated products; `probe.py` looks for them), and correct hardware. Not covered: running
        the network in lower precision at x', and whatever made the uint8 image (§7). R says nothing
        of any program, F nothing of points that are not float64 vectors.

        Args:
            images: [B, C, H, W] uint8.
            labels: [B] integers in [0, K).

        Returns:
            Verdicts of length B. The radius is 0 where the image is misclassified, where the
            largest logit is not strictly first, and where a logit or delta is not finite.

        Raises:
            ValueError: images of another type or shape than the network's, labels outside [0, K).
        """
        self._check(images, labels)
        with conventional_arithmetic():
            return concatenate(
                [
                    self._certify_slice(some_images, some_labels)
                    for some_images, some_labels in zip(
                        images.split(SLICE), labels.split(SLICE), strict=True
                    )
                ]
            )

    @torch.no_grad()
    def _certify_slice(self, images: Tensor, labels: Tensor) -> Verdicts:
        logits, norm, error, ball = self._forward(images)
        return self.decide(logits, norm, error, labels.cpu().numpy().astype(np.int64), ball)

    def decide(
        self,
        logits: Floats,
        norm: Floats,
        error: Floats,
        labels: Integers,
        ball: BallError,
    ) -> Verdicts:
        """Verdicts from computed logits: comparisons and outward rounding only.

        Args:
            logits: [B, K].
            norm: [B], upper bounds of the computed features' norms.
            error: [B], upper bounds of their distance from the exact features.
            labels: [B].
            ball: how far the features can be off in the ball.
        """
        rows, classes = np.arange(len(logits)), logits.shape[1]
        predict = np.argmax(logits, axis=1)  # the first of several; a NaN if there is one
        with np.errstate(invalid="ignore", over="ignore"):
            margins = logits[rows, predict][:, None] - logits  # [B, K]
            delta = self._head_error.delta(error, norm, margins, predict)  # [B, K]
        lipschitz = self.margin_lipschitz[predict]  # [B, K]
        own = predict[:, None] == np.arange(classes)  # [B, K], the predicted class itself
        radii = signed_radius(margins, delta, lipschitz)  # [B, K]
        radii = np.where(np.isnan(radii), -np.inf, radii)
        binding = _argmin_of_others(radii, own)
        least = radii[rows, binding]
        reach = ball.radii(self._head_error, error, norm, margins, delta, lipschitz, predict)
        inner = np.where(own, np.inf, np.where(np.isnan(reach), -np.inf, reach)).min(axis=1)
        inner = np.minimum(inner, least)
        finite = np.isfinite(logits).all(axis=1)
        correct = finite & ((margins > 0) | own).all(axis=1) & (predict == labels)
        return Verdicts(
            label=labels,
            predict=predict,
            radius=np.where(correct & (least > 0), least, 0.0),
            correct=correct,
            binding=binding,
            margin=np.where(finite, margins[rows, binding], np.nan),
            lipschitz=lipschitz[rows, binding],
            delta=delta[rows, binding],
            radius_float=np.where(correct & (inner > 0), inner, 0.0),
        )

    def _forward(self, images: Tensor) -> tuple[Floats, Floats, Floats, BallError]:
        """Logits [B, K]; of the features norm bounds [B], distance bounds [B] and the ball's."""
        x = PIXELS.to(self.device)[images.to(self.device, torch.int64)]
        error, ball = input_error(norm_upper(x)), BallError.at_input(len(x))
        with np.errstate(over="ignore", invalid="ignore"):
            for layer, bound, layer_error in zip(
                self.network.layers, self.bounds, self._layer_errors, strict=True
            ):
                if layer_error is None:
                    ball = ball.after_exact(bound.value)
                else:
                    norm = norm_upper(x)
                    ball = ball.after(layer_error, error, norm)
                    error = layer_error.after(error, norm)
                x = layer.forward(x)
        return self.network.logits(x).cpu().numpy(), norm_upper(x), error, ball

    def _check(self, images: Tensor, labels: Tensor) -> None:
        expected = tuple(self.network.input_shape)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"images are {_describe(images)}, the network takes uint8 [B, {_shape(expected)}]"
            )
        classes = self.network.head.num_classes
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f"{len(images)} images need as many integer labels, not {_describe(labels)}"
            )
        wide = labels.long()  # compared as uint8, 256 classes would be 0
        wrong = (wide < 0) | (wide >= classes)
        if bool(wrong.any()):
            raise ValueError(
                f"label {int(wide[wrong][0])} is outside the network's {classes} classes (0 to "
                f"{classes - 1}): take the data set that the model was trained for"
            )


def certifier(
    model: nn.Module | ExportedNetwork, device: torch.device | None = None
) -> LipschitzCertifier:
    """Export `model` if need be, prove its norm bounds, and make its certifier.

    Example:
        verdicts = certifier(model).certify(images, labels)
        print(verdicts.radius, verdicts.binding)

    Raises:
        ValueError: weights that are not finite, a layer of unknown kind or without finite bound.
    """
    network = exported(model)
    return LipschitzCertifier(network, prove_bounds(network), device)


def exported(model: nn.Module | ExportedNetwork) -> ExportedNetwork:
    """The exported network of a model, checked.

    Raises:
        ValueError: something that cannot be exported, or as `ExportedNetwork.check`: shapes that
            do not chain, a weight that is not finite.
    """
    export = getattr(model, "export", None)
    network = export() if callable(export) else model
    if not isinstance(network, ExportedNetwork):
        raise ValueError(
            f"{type(model).__name__} cannot be certified: it has no export() that returns an "
            "ExportedNetwork (take a model of pipeline.models.build_model)"
        )
    network.check()
    return network


def _argmin_of_others(radii: Floats, own: NDArray[np.bool_]) -> Integers:
    """[B], the first class with the least entry of [B, K], the predicted one left out.

    Leaving it out by an infinite entry would choose it where every other class is infinite too.
    """
    classes = radii.shape[1]
    others = np.argsort(own, axis=1, kind="stable")[:, : classes - 1]  # [B, K - 1], in order
    place = np.argmin(np.take_along_axis(radii, others, axis=1), axis=1)
    return np.take_along_axis(others, place[:, None], axis=1)[:, 0]


def _shape(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} [{_shape(tuple(tensor.shape))}]"
