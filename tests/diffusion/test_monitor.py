"""What the monitor compares with."""

import torch

from pipeline.config import DiffusionConfig, MonitorConfig
from pipeline.data.loader import open_block_loader
from pipeline.diffusion.monitor import SampleMonitor
from tests.diffusion.tiny import TIMESTEPS, denoiser

CPU = torch.device("cpu")


class Judge:
    """Whose one feature is the label of the image that it is shown."""

    def __init__(self, everything: torch.Tensor) -> None:
        self.everything, self.seen = everything, list[int]()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        for image in images:
            same = (self.everything == image).flatten(1).all(1)
            self.seen.append(int(same.nonzero()[0]))
        return images.flatten(1).double()


def test_the_reference_is_from_all_over_the_set() -> None:
    """A folder is sorted by class: its first images are of its first classes."""
    loader = open_block_loader("digits", "train", 8)
    count = loader.info.num_samples
    judge = Judge(loader.pictures(list(range(count))))
    diffusion = DiffusionConfig(timesteps=TIMESTEPS, monitor=MonitorConfig(reference=300, steps=25))
    looks = SampleMonitor(denoiser(), diffusion, judge, loader, CPU)  # type: ignore[arg-type]
    moments = looks._moments_of_training(judge)  # type: ignore[arg-type]
    loader.close()
    assert len(judge.seen) == 300 and moments._sums[0] == 300
    gaps = torch.tensor(judge.seen).diff()
    assert judge.seen[0] == 0 and judge.seen[-1] == count - 1 and gaps.max() <= 5


def test_more_steps_than_differ_are_lowered() -> None:
    loader = open_block_loader("digits", "train", 8)
    for timesteps in (10, 25):
        diffusion = DiffusionConfig(timesteps=timesteps, monitor=MonitorConfig(steps=25))
        looks = SampleMonitor(denoiser(), diffusion, None, loader, CPU)
        assert 0 < looks._sampler.settings.steps < timesteps
    loader.close()
