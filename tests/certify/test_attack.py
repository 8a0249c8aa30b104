"""A trained LiResNet: what is certified cannot be attacked, and K is not below any slope found."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.certify import LipschitzCertifier, Verdicts, certifier
from pipeline.certify.arithmetic import single_threaded_mathematics
from pipeline.certify.lipschitz_certifier import PIXELS
from pipeline.models import build_model


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes of noisy bars, uint8 [N, 1, 8, 8]: wide margins after seconds of training."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 90, (count, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        place = rng.integers(1, 6)
        bar = (slice(None), place) if label == 0 else (place, slice(None))
        image[0][bar if label < 2 else (range(8), range(8))] += rng.integers(40, 160)
    return torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors are tiny: a second thread would only wait for the first."""
    with single_threaded_mathematics():
        yield


@pytest.fixture(scope="module")
def trained(one_thread: None) -> tuple[LipschitzCertifier, Tensor, Tensor, Verdicts]:
    torch.manual_seed(0)
    model = build_model("liresnet", 3, 8, in_channels=1, depth=1, width=8)
    optimizer = torch.optim.NAdam(model.parameters(), 5e-3)
    images, labels = pictures(1500, 0)
    pixels = images.float() / 255
    for _ in range(4):
        for rows in torch.randperm(len(pixels)).split(50):
            prediction = model(pixels[rows])
            worst = prediction.logits + 0.2 * prediction.margin_lipschitz[labels[rows]]
            optimizer.zero_grad()
            F.cross_entropy(worst, labels[rows]).backward()
            optimizer.step()
    images, labels = pictures(60, 1)
    certify = certifier(model)
    return certify, images, labels, certify.certify(images, labels)


def margins(certify: LipschitzCertifier, x: Tensor, classes: np.ndarray) -> Tensor:
    """[B, K]: f_j − f_i in float64, +inf for i = j."""
    network = certify.network
    logits = network.logits(network.trunk(x))
    own = torch.from_numpy(classes)[:, None]
    return (logits.gather(1, own) - logits).scatter(1, own, torch.inf)


def attack(certify: LipschitzCertifier, x: Tensor, verdicts: Verdicts, radius: Tensor) -> Tensor:
    """[B]: the least margin that gradient descent finds in balls of the given radii."""
    radius = radius.view(-1, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    least = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for _ in range(3):
        move = unit(torch.randn(x.shape, generator=generator, dtype=torch.float64)) * radius
        for _ in range(40):
            move.requires_grad_()
            worst = margins(certify, x + move, verdicts.predict).amin(1)
            least = torch.minimum(least, worst.detach())
            (slope,) = torch.autograd.grad(worst.sum(), move)
            move = move.detach() - 0.2 * radius * unit(slope)
            move = unit(move) * torch.minimum(norms(move), radius)
    return least


def norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)


def unit(x: Tensor) -> Tensor:
    return x / norms(x).clamp(min=1e-300)


def test_no_attack_succeeds_inside_the_certified_radius(trained) -> None:
    certify, images, labels, verdicts = trained
    assert verdicts.correct.mean() > 0.9
    assert (verdicts.radius > 36 / 255).mean() > 0.3  # there is something to attack
    rows = np.flatnonzero(verdicts.radius > 0)
    x, some = PIXELS[images[rows].long()], certify.certify(images[rows], labels[rows])
    radius = torch.from_numpy(some.radius)
    inside = attack(certify, x, some, radius)
    assert (inside > 0).all()
    # The attack is a real one: it breaks images well outside of their radius.
    assert (attack(certify, x, some, 8 * radius) < 0).float().mean() > 0.3


def test_no_slope_exceeds_the_certified_constant(trained) -> None:
    certify, images, _, verdicts = trained
    steepest = torch.zeros(len(images), dtype=torch.float64)
    base = PIXELS[images.long()]
    generator = torch.Generator().manual_seed(1)
    binding = torch.from_numpy(verdicts.binding)[:, None]
    for spread in (0.0, 0.05, 0.3):
        noise = torch.randn(base.shape, generator=generator, dtype=torch.float64)
        x = (base + spread * noise).requires_grad_()
        chosen = margins(certify, x, verdicts.predict).gather(1, binding)
        (slope,) = torch.autograd.grad(chosen.sum(), x)
        steepest = torch.maximum(steepest, norms(slope).flatten())
    shares = steepest.numpy() / verdicts.lipschitz
    assert shares.max() < 1
    assert shares.max() > 0.2  # K is a bound of this network, not of any
