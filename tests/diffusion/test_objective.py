import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pipeline.diffusion.network import Denoised
from pipeline.diffusion.noise_schedule import NoiseSchedule
from pipeline.diffusion.objective import HybridLoss, bound_term
from pipeline.diffusion.parametrization import Parametrization
from pipeline.objectives.base import Losses
from pipeline.types import Batch

T = 50


def cosine(t: float) -> float:
    return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2


BETAS = np.array([min(1 - cosine((i + 1) / T) / cosine(i / T), 0.999) for i in range(T)])
KEPT = np.cumprod(1 - BETAS)


@pytest.fixture(scope="module")
def schedule() -> NoiseSchedule:
    return NoiseSchedule(T)


def test_the_schedule_is_the_papers(schedule: NoiseSchedule) -> None:
    np.testing.assert_allclose(schedule.alphas_cumprod, KEPT, rtol=2e-5)
    before = np.append(1.0, KEPT[:-1])
    posterior = BETAS * (1 - before) / (1 - KEPT)
    np.testing.assert_allclose(
        schedule.log_posterior_variance[1:], np.log(posterior[1:]), rtol=1e-3
    )
    assert schedule.log_posterior_variance[0] == schedule.log_posterior_variance[1]


def test_v_is_that_of_its_paper() -> None:
    """v = α·ε − σ·x_0, and x_0 = α·x_t − σ·v, at every noise (Salimans & Ho 2022)."""
    schedule = NoiseSchedule(T, "v")
    draw = torch.Generator().manual_seed(0)
    start, noise = torch.rand(2, T, 1, 4, 4, generator=draw)
    t = torch.arange(T)
    v = schedule.target(start, noise, t)
    alpha, sigma = KEPT[:, None] ** 0.5, (1 - KEPT[:, None]) ** 0.5
    expected = alpha * noise.flatten(1).numpy() - sigma * start.flatten(1).numpy()
    np.testing.assert_allclose(v.flatten(1), expected, atol=1e-5)
    found = schedule.start(schedule.noisy(start, noise, t), v, t)
    torch.testing.assert_close(found, start, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_loss_is_of_what_is_predicted(prediction: Parametrization) -> None:
    """Of a network that gives zeros: the mean square of the target itself."""
    schedule = NoiseSchedule(T, prediction)
    ids = torch.arange(40)
    spy, losses = ask(HybridLoss(schedule, 3, seed=1, class_dropout=0.0, vlb_weight=0.0), ids)
    kept = torch.from_numpy(KEPT).float()[spy.t][:, None, None, None]
    start = 2 * (ids % 7 / 7).float()[:, None, None, None].expand(-1, 1, 4, 4) - 1
    noise = (spy.noisy - kept**0.5 * start) / (1 - kept) ** 0.5
    wanted = noise if prediction == "epsilon" else kept**0.5 * noise - (1 - kept) ** 0.5 * start
    expected = wanted.square().flatten(1).mean(1)
    torch.testing.assert_close(losses.per_sample, expected, rtol=1e-3, atol=1e-4)


def test_noise_is_put_on_and_taken_off(schedule: NoiseSchedule) -> None:
    draw = torch.Generator().manual_seed(0)
    start, noise = torch.rand(2, T, 1, 4, 4, generator=draw)
    t = torch.arange(T)
    noisy = schedule.noisy(start, noise, t)
    expected = KEPT[:, None] ** 0.5 * start.flatten(1).numpy()
    expected += (1 - KEPT[:, None]) ** 0.5 * noise.flatten(1).numpy()
    np.testing.assert_allclose(noisy.flatten(1), expected, atol=1e-5)
    early = t < T - 5  # at the end there is next to nothing of the start in it
    torch.testing.assert_close(
        schedule.start(noisy, noise, t)[early], start[early], atol=1e-3, rtol=0
    )


def plain_term(x0: float, xt: float, eps: float, v: float, t: int) -> float:
    """The bound's term in bits, of one pixel, by scipy."""
    before = KEPT[t - 1] if t else 1.0
    posterior = BETAS[max(t, 1)] * (1 - KEPT[max(t, 1) - 1]) / (1 - KEPT[max(t, 1)])
    of_start = BETAS[t] * before**0.5 / (1 - KEPT[t])
    of_noisy = (1 - before) * (1 - BETAS[t]) ** 0.5 / (1 - KEPT[t])
    guess = (xt - (1 - KEPT[t]) ** 0.5 * eps) / KEPT[t] ** 0.5
    mean = of_start * guess + of_noisy * xt
    share = (v + 1) / 2
    variance = math.exp(share * math.log(BETAS[t]) + (1 - share) * math.log(posterior))
    if t == 0:
        normal = stats.norm(mean, variance**0.5)
        low = -np.inf if x0 < -0.999 else x0 - 1 / 255
        high = np.inf if x0 > 0.999 else x0 + 1 / 255
        return -math.log(max(normal.cdf(high) - normal.cdf(low), 1e-12)) / math.log(2)
    true = of_start * x0 + of_noisy * xt
    ratio = posterior / variance
    return 0.5 * (ratio - 1 - math.log(ratio) + (true - mean) ** 2 / variance) / math.log(2)


@pytest.mark.parametrize("t", [0, 1, 7, T - 10])
@pytest.mark.parametrize("level", [0, 100, 255])
def test_the_bound_is_that_of_scipy(schedule: NoiseSchedule, t: int, level: int) -> None:
    x0, true_noise, eps, v = level / 127.5 - 1, 0.4, 0.37, 0.3
    xt = KEPT[t] ** 0.5 * x0 + (1 - KEPT[t]) ** 0.5 * true_noise
    one = torch.ones(1, 1, 1, 1)
    found = Denoised(one * eps, one * v)
    term = bound_term(schedule, one * x0, one * xt, found, torch.tensor([t]))
    assert term.item() == pytest.approx(plain_term(x0, xt, eps, v, t), rel=2e-2, abs=1e-3)


def test_the_bound_teaches_the_variance_alone(schedule: NoiseSchedule) -> None:
    noise = torch.zeros(3, 1, 2, 2, requires_grad=True)
    variance = torch.zeros(3, 1, 2, 2, requires_grad=True)
    images = torch.zeros(3, 1, 2, 2)
    t = torch.tensor([0, 5, 20])
    bound_term(schedule, images, images + 0.1, Denoised(noise, variance), t).sum().backward()
    assert noise.grad is None and variance.grad is not None and (variance.grad != 0).all()


class Spy:
    """A model that remembers what it was asked."""

    def __call__(self, noisy: Tensor, t: Tensor, labels: Tensor) -> Denoised:
        self.noisy, self.t, self.labels = noisy, t, labels
        return Denoised(torch.zeros_like(noisy), torch.zeros_like(noisy))


def ask(loss: HybridLoss, ids: Tensor) -> tuple[Spy, Losses]:
    spy = Spy()
    images = (ids % 7 / 7).float()[:, None, None, None].expand(-1, 1, 4, 4)
    hidden = torch.zeros(len(ids), dtype=torch.bool)
    return spy, loss(spy, Batch(images, ids % 3, ids, hidden), 0.0)


def test_draws_belong_to_seed_step_and_sample(schedule: NoiseSchedule) -> None:
    loss = HybridLoss(schedule, 3, 5, 0.5, 0.001)
    ids = torch.arange(40)
    loss.begin_step(7)
    whole, losses = ask(loss, ids)
    part, part_losses = ask(loss, ids[10:20])
    for name in ("noisy", "t", "labels"):
        assert torch.equal(getattr(whole, name)[10:20], getattr(part, name))
    torch.testing.assert_close(losses.per_sample[10:20], part_losses.per_sample)
    loss.begin_step(8)
    later, _ = ask(loss, ids)
    assert (later.t != whole.t).any()
    again = HybridLoss(schedule, 3, 5, 0.5, 0.001)
    again.begin_step(8)
    assert torch.equal(ask(again, ids)[0].noisy, later.noisy)
    assert losses.prediction is None and set(losses.metrics) == {"mse", "vlb"}


def test_timesteps_cover_everything_and_labels_are_hidden_as_often_as_asked(
    schedule: NoiseSchedule,
) -> None:
    loss = HybridLoss(schedule, 3, 5, 0.25, 0.001)
    spy, _ = ask(loss, torch.arange(4000))
    assert set(spy.t.tolist()) == set(range(T))
    hidden = (spy.labels == 3).float().mean().item()
    assert hidden == pytest.approx(0.25, abs=0.03)
    kept = spy.labels != 3
    assert torch.equal(spy.labels[kept], (torch.arange(4000) % 3)[kept])
