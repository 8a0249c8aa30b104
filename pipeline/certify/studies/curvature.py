"""CRC's tables of one network: success rates (2, 12), curvature (16), certificates (5, 6, 15).

All of them look at an image's margin against *one* class, as the paper does: by default the
runner-up, the largest logit but the label's. Certified numbers are those of certificate.json.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.certify.curvature_certifier import MANY, CurvatureCertifier
from pipeline.certify.curvature_local import LocalCurvature
from pipeline.certify.methods import CURVATURE, prove_margins, require_smooth
from pipeline.certify.radius import Floats
from pipeline.certify.relu_quadratic import ReluQuadratic
from pipeline.certify.rounding import input_error, norm_upper
from pipeline.certify.stages import stages_of
from pipeline.certify.studies.subject import Subject, plain_network
from pipeline.certify.studies.tables import Row
from pipeline.data.spread import spread
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.crown import crown_radius, seen
from pipeline.lipschitz.curvature_bound import deep_bound
from pipeline.lipschitz.curvature_search import CAP, nearest_point, worst_point
from pipeline.lipschitz.plain import PlainNetwork, largest_curvature
from pipeline.progress import ProgressBar

TARGETS = ("runner-up", "random", "least")
STEPS = 60
NEAR = 1e-3
"""Relative residual at which a search has arrived."""
SLICE = 512


def certifier_of(network: ExportedNetwork) -> CurvatureCertifier:
    """A curvature certifier, its claims proved.

    Raises:
        ValueError: a network that curvature is not bounded for.
    """
    require_smooth(network)
    bounds = [layer.norm_bound() for layer in network.layers]
    return CurvatureCertifier(network, bounds, prove_margins(CURVATURE, network, bounds))


def target_classes(logits: Tensor, labels: Tensor, target: str, seed: int = 0) -> Tensor:
    """The class that each margin is against: [n].

    Args:
        logits: [n, K].
        labels: [n].
        target: of `TARGETS`.
        seed: of the random ones.
    """
    if target == "random":
        generator = torch.Generator().manual_seed(seed)
        steps = torch.randint(1, logits.shape[1], labels.shape, generator=generator)
        return (labels + steps) % logits.shape[1]
    own = -torch.inf if target == "runner-up" else torch.inf
    others = logits.scatter(1, labels[:, None], own)
    return others.argmax(1) if target == "runner-up" else others.argmin(1)


def success_rates(subject: Subject, certifier: CurvatureCertifier, radius: float) -> Row:
    """Tables 2 and 12: how often primal = dual, in percent of all images.

    The attack succeeds where the worst point on the sphere has a multiplier ‖∇f‖/ρ ≥ C: there
    f + η/2·‖x − x0‖² is convex, so no point of the ball is worse (Theorem 2). The certificate
    succeeds where the nearest point has f = 0 with η < 1/C (Theorem 1).
    """
    network = plain_network(subject.network, torch.float32)
    curvature = torch.from_numpy(certifier.curvature).float()
    correct = attacked = nearest = 0
    with ProgressBar("success rates", total=len(subject.images), unit="img") as bar:
        for x, labels in _slices(subject, torch.float32):
            logits = network.logits(x)
            target = target_classes(logits, labels, "runner-up")
            margin = network.margin(labels, target)
            concave, convex = curvature[labels, target], curvature[target, labels]
            right = logits.argmax(1) == labels
            worst = worst_point(margin, x, radius, torch.zeros_like(concave), STEPS)
            slope = margin(worst)[1]
            length = torch.linalg.vector_norm(slope, dim=1)
            left = worst - x + radius * slope / length.clamp(min=1e-30)[:, None]
            still = torch.linalg.vector_norm(left, dim=1) <= NEAR * radius
            found, eta, _ = nearest_point(margin, x, concave, convex, STEPS)
            value, begin = margin(found)[0], margin(x)[0]
            reached = (value.abs() <= NEAR * begin.abs()) & (eta * concave < CAP * (1 - 1e-5))
            correct += int(right.sum())
            attacked += int((still & (length >= radius * concave)).sum())
            nearest += int((right & reached).sum())
            bar.advance(len(x))
    count = len(subject.images)
    return {
        "network": subject.name,
        "images": count,
        "accuracy %": 100 * correct / count,
        "attack success %": 100 * attacked / count,
        "certificate success %": 100 * nearest / count,
    }


def curvature_gap(subject: Subject, certifier: CurvatureCertifier, fewest: int = 100) -> Row:
    """Table 16: K_lb and K_ub, means over pairs (label, runner-up) of at least `fewest` images.

    K_lb: the largest |eigenvalue| of the Hessian at any image of the pair (Appendix H.1), by power
    iteration. K_ub: Theorem 4; beside it what certificates rest on (Theorem 3 for two layers).

    Raises:
        ValueError: no pair has so many images.
    """
    network = plain_network(subject.network, torch.float32)
    classes = len(network.rows)
    largest, counts = np.zeros((classes, classes)), np.zeros((classes, classes), dtype=int)
    with ProgressBar("Hessians", total=len(subject.images), unit="img") as bar:
        for x, labels in _slices(subject, torch.float32):
            target = target_classes(network.logits(x), labels, "runner-up")
            found = largest_curvature(network, x, labels, target).numpy()
            pairs = labels.numpy(), target.numpy()
            np.maximum.at(largest, pairs, found)
            np.add.at(counts, pairs, 1)
            bar.advance(len(x))
    chosen = np.argwhere(counts >= fewest)
    if not len(chosen):
        raise ValueError(
            f"no pair of label and runner-up has {fewest} of the {len(subject.images)} images: "
            "take more images, or a lesser --fewest"
        )
    stages = stages_of(subject.network)
    norms = [certifier.bounds[number].value for number in stages.numbers]
    weights = [each.weight for each in stages.maps]
    above = [
        deep_bound(weights, norms, stages.slopes, stages.rows[j] - stages.rows[i])
        for j, i in chosen
    ]
    used = np.maximum(certifier.curvature, certifier.curvature.T)
    return {
        "network": subject.name,
        "images": len(subject.images),
        "pairs": len(chosen),
        "K_lb": float(np.mean([largest[j, i] for j, i in chosen])),
        "K_ub (Theorem 4)": float(np.mean(above)),
        "K_ub (used)": float(np.mean([used[j, i] for j, i in chosen])),
    }


def certificates(
    subject: Subject, targets: Sequence[str] = ("runner-up",), count: int = 150
) -> list[Row]:
    """Tables 5 and 15: mean radii of CROWN and of CRC, over the first correct images.

    For a ReLU network the quadratic certificate of Appendix G stands in CRC's place.

    Args:
        subject: a fully connected network.
        targets: of `TARGETS`.
        count: images; CROWN costs seconds an image beyond two layers.
    """
    network = plain_network(subject.network)
    center, labels = _correct(subject, network, count)
    is_relu = "relu" in network.functions
    quadratic = ReluQuadratic(subject.network) if is_relu else None
    certifier = None if is_relu else certifier_of(subject.network)
    rows: list[Row] = []
    for target in targets:
        second = target_classes(network.logits(center), labels, target)
        crown = _crown(network, center, labels, second)
        first = labels.numpy()
        if quadratic is not None:
            ours = quadratic.radii(center, first, second.numpy())
        else:
            assert certifier is not None
            ours = _global(certifier, center, first, second.numpy())
        rows.append(
            {
                "network": subject.name,
                "target": target,
                "images": len(center),
                "CROWN (not rounded)": float(crown.mean()),
                "quadratic" if is_relu else "CRC": float(ours.mean()),
            }
        )
    return rows


def local_certificates(subject: Subject, radius: float, count: int = 150) -> Row:
    """Table 6: mean CRC by global and by local curvature, and shares beyond a radius.

    Args:
        subject: a smooth network with one hidden layer.
        radius: ρ.
        count: correct images.
    """
    certifier = certifier_of(subject.network)
    local = LocalCurvature(certifier)
    network = plain_network(subject.network)
    center, labels = _correct(subject, network, count)
    second = target_classes(network.logits(center), labels, "runner-up").numpy()
    first = labels.numpy()
    known = _global(certifier, center, first, second)
    refined = local.radii(center, first, second, known)[0] - input_error(norm_upper(center))
    refined = np.maximum(refined, known)
    printed = local.printed_radii(center, first, second, known)
    return {
        "network": subject.name,
        "images": len(center),
        "CRC (global)": float(known.mean()),
        "CRC (local, proved)": float(refined.mean()),
        "C.6 as printed (no proof)": float(printed.mean()),
        f"global > {radius:g} %": 100 * float((known > radius).mean()),
        f"local > {radius:g} %": 100 * float((refined > radius).mean()),
    }


def _global(
    certifier: CurvatureCertifier, center: Tensor, first: np.ndarray, second: np.ndarray
) -> Floats:
    """Proved radii against one class each, about v/255."""
    found = certifier.pair_radii(center, np.arange(len(center)), first, second, MANY)
    return np.maximum(found - input_error(norm_upper(center)), 0.0)


def _crown(network: PlainNetwork, center: Tensor, labels: Tensor, second: Tensor) -> Floats:
    """CROWN's radii; deep networks an image at a time, whose intermediate bounds are large."""
    step = SLICE if len(network.weights) == 1 else 1
    network, center = seen(network, center)
    found = []
    with ProgressBar("CROWN", total=len(center), unit="img") as bar:
        for start in range(0, len(center), step):
            part = slice(start, start + step)
            found.append(crown_radius(network, center[part], labels[part], second[part]))
            bar.advance(len(found[-1]))
    return torch.cat(found).numpy()


def _correct(subject: Subject, network: PlainNetwork, count: int) -> tuple[Tensor, Tensor]:
    """Images that are classified correctly, evenly spread, [n, D] float64, and their labels.

    Raises:
        ValueError: there are none.
    """
    center = subject.center
    right = torch.nonzero(network.logits(center).argmax(1) == subject.labels)[:, 0]
    chosen = right[spread(count, len(right))]
    if not len(chosen):
        raise ValueError(f"{subject.name} classifies none of its {len(center)} images correctly")
    return center[chosen], subject.labels[chosen]


def _slices(subject: Subject, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    flat = subject.center.to(dtype)
    return list(zip(flat.split(SLICE), subject.labels.split(SLICE), strict=True))
