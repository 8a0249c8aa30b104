import pytest
import torch
from diffusers import DDIMScheduler

from pipeline.diffusion.draws import START, keys, normal
from pipeline.diffusion.sampler import classes_and_numbers
from tests.diffusion.tiny import TIMESTEPS, denoiser, sampler

LABELS, NUMBERS = classes_and_numbers(torch.arange(12), 10)


def test_classes_take_turns() -> None:
    assert LABELS.tolist() == [*range(10), 0, 1] and NUMBERS.tolist() == [0] * 10 + [1, 1]


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_ddim_is_the_plain_loop_with_two_forwards(guidance: float) -> None:
    network = denoiser()
    found = sampler(network, sampler="ddim", guidance=guidance)(LABELS, NUMBERS)

    scheduler = DDIMScheduler(
        TIMESTEPS, beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing",
        clip_sample=True,
    )  # fmt: skip
    scheduler.set_timesteps(4)
    x = normal(keys(START, 0, LABELS, NUMBERS), (1, 8, 8))
    for t in scheduler.timesteps:
        given = network(x, t.expand(12), LABELS).noise
        free = network(x, t.expand(12), torch.full_like(LABELS, 10)).noise
        noise = free + guidance * (given - free)
        x = scheduler.step(noise, t, x, use_clipped_model_output=True).prev_sample
    expected = ((x.clamp(-1, 1) + 1) * 127.5).round()
    assert found.shape == (12, 1, 8, 8) and found.dtype == torch.uint8
    assert (found.float() - expected).abs().max() <= 1


@pytest.mark.parametrize("kind", ["ddim", "dpm++"])
def test_samples_depend_on_seed_class_and_number(kind: str) -> None:
    network = denoiser()
    one = sampler(network, sampler=kind)(LABELS, NUMBERS)
    assert torch.equal(one, sampler(network, sampler=kind)(LABELS, NUMBERS))
    part = sampler(network, sampler=kind)(LABELS[4:9], NUMBERS[4:9])
    assert (one[4:9].int() - part.int()).abs().max() <= 1, "another batch: up to rounding"
    other = sampler(network, sampler=kind, seed=1)(LABELS, NUMBERS)
    assert (other != one).float().mean() > 0.5
    assert len({image.numpy().tobytes() for image in one}) == 12


def test_dpm_solver_finds_a_known_image() -> None:
    """A perfect denoiser of one image leads every sample to that image."""
    network = denoiser()
    target = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    scheduler = sampler(network).settings.scheduler()

    def perfect(noisy: torch.Tensor, t: torch.Tensor, _: torch.Tensor) -> object:
        kept = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        noise = (noisy - kept.sqrt() * target) / (1 - kept).sqrt()
        return type("Found", (), {"noise": noise})

    for kind in ("ddim", "dpm++"):
        drawer = sampler(network, sampler=kind, steps=10)
        drawer._forward = perfect
        expected = ((target + 1) * 127.5).round()
        assert (drawer(LABELS, NUMBERS) - expected).abs().max() <= 1


def test_more_steps_than_the_training_had_are_refused() -> None:
    with pytest.raises(ValueError, match="take 40 or less"):
        sampler(denoiser(), steps=41)
