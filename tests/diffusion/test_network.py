"""The denoiser on patches: the UNet sees the pixels of a patch as channels."""

from pathlib import Path

import pytest
import torch

from pipeline import config
from pipeline.diffusion.network import Denoiser, build_denoiser
from tests.diffusion.tiny import sampler, settings


def patched(**options: object) -> Denoiser:
    torch.manual_seed(1)
    model = settings(Path("x")).model.model_dump() | {"patch": 2, **options}
    return build_denoiser(config.ModelConfig(**model)).eval()


@torch.no_grad()
def test_a_pixel_comes_back_to_its_place() -> None:
    network = patched()
    noisy, labels = torch.randn(3, 1, 8, 8), torch.tensor([0, 4, 10])
    steps = torch.tensor([0, 7, 39])
    patches = torch.stack([noisy[:, 0, i::2, j::2] for i in range(2) for j in range(2)], 1)
    output = network.unet(patches, steps, class_labels=labels).sample
    found = network(noisy, steps, labels)
    for row in range(2):
        for column in range(2):
            channel = 2 * row + column
            part = (slice(None), 0, slice(row, None, 2), slice(column, None, 2))
            assert torch.equal(found.predicted[part], output[:, channel])
            assert torch.equal(found.variance[part], output[:, 4 + channel])


def test_it_draws_images_of_their_own_size() -> None:
    draw = sampler(patched())
    images = draw(torch.arange(4), torch.zeros(4, dtype=torch.int64))
    assert images.shape == (4, 1, 8, 8) and images.dtype == torch.uint8


def test_sizes_count_from_patches() -> None:
    network = patched(multipliers=[1, 1], attention=[4], head_channels=4)
    assert network.unet.config.sample_size == 4
    assert network.unet.config.down_block_types[0] == "AttnDownBlock2D"
    with pytest.raises(ValueError, match="images of 4 patches of 2 pixels cannot be halved 3 tim"):
        patched(multipliers=[1, 1, 1, 1])
