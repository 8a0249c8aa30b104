import pytest
import torch
from diffusers import DDIMScheduler

from pipeline.diffusion.draws import START, keys, normal
from pipeline.diffusion.network import Denoised
from pipeline.diffusion.parametrization import IN_DIFFUSERS
from pipeline.diffusion.sampler import Settings, classes_and_numbers
from tests.diffusion.tiny import TIMESTEPS, denoiser, sampler

LABELS, NUMBERS = classes_and_numbers(torch.arange(12), 10)


def test_classes_take_turns() -> None:
    assert LABELS.tolist() == [*range(10), 0, 1] and NUMBERS.tolist() == [0] * 10 + [1, 1]


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_ddim_is_the_plain_loop_with_two_forwards(guidance: float, prediction: str) -> None:
    network = denoiser()
    draw = sampler(network, sampler="ddim", guidance=guidance, prediction=prediction)
    found = draw(LABELS, NUMBERS)

    scheduler = DDIMScheduler(
        TIMESTEPS, beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing",
        clip_sample=True, prediction_type=IN_DIFFUSERS[prediction],
    )  # fmt: skip
    scheduler.set_timesteps(4)
    x = normal(keys(START, 0, LABELS, NUMBERS), (1, 8, 8))
    for t in scheduler.timesteps:
        given = network(x, t.expand(12), LABELS).predicted
        free = network(x, t.expand(12), torch.full_like(LABELS, 10)).predicted
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


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_dpm_solver_finds_a_known_image(prediction: str) -> None:
    """A perfect denoiser of one image leads every sample to that image."""
    network = denoiser()
    target = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    scheduler = sampler(network).settings.scheduler()

    def perfect(noisy: torch.Tensor, t: torch.Tensor, _: torch.Tensor) -> object:
        kept = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        noise = (noisy - kept.sqrt() * target) / (1 - kept).sqrt()
        v = kept.sqrt() * noise - (1 - kept).sqrt() * target
        return type("Found", (), {"predicted": noise if prediction == "epsilon" else v})

    for kind in ("ddim", "dpm++"):
        drawer = sampler(network, sampler=kind, steps=10, prediction=prediction)
        drawer._forward = perfect
        expected = ((target + 1) * 127.5).round()
        assert (drawer(LABELS, NUMBERS) - expected).abs().max() <= 1


@pytest.mark.parametrize("kind", ["ddim", "dpm++"])
@pytest.mark.parametrize("timesteps", [3, 40, 100, 1000, 4000])
def test_the_most_steps_are_those_that_differ(timesteps: int, kind: str) -> None:
    most = Settings(timesteps, 1, kind).most_steps()  # type: ignore[arg-type]
    for steps in {most, min(most, 25), max(most - 3, 1)}:
        scheduler = Settings(timesteps, steps, kind).scheduler()  # type: ignore[arg-type]
        assert len(set(scheduler.timesteps.tolist())) == len(scheduler.timesteps) == steps
        assert scheduler.timesteps.min() >= 0
    with pytest.raises(ValueError, match=rf"sampling\.steps {most + 1} .* take {most} or less"):
        Settings(timesteps, most + 1, kind).scheduler()  # type: ignore[arg-type]


def test_ddim_has_no_step_more_by_rounding() -> None:
    for steps in (29, 31, 58, 62, 97):  # 100 / 29 29 times is not 100
        assert Settings(100, steps, "ddim").scheduler().timesteps.min() >= 0


def test_the_most_steps_draw_pictures() -> None:
    network = denoiser()
    most = sampler(network).settings.most_steps()
    few, many = (sampler(network, steps=steps)(LABELS, NUMBERS) for steps in (most // 2, most))
    assert (few.float() - many.float()).abs().mean() < 40 and many.float().std() > 20


def test_samples_that_are_not_finite_are_no_black_ones() -> None:
    drawer = sampler(denoiser())
    plain = drawer._forward

    def broken(noisy: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> Denoised:
        found = plain(noisy, t, labels)
        found.predicted[3] = torch.nan
        return found  # type: ignore[no-any-return]

    drawer._forward = broken
    with pytest.raises(ValueError, match="sample 0 of class 3 has pixels that are not finite"):
        drawer(LABELS, NUMBERS)
