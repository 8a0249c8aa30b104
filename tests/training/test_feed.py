"""The feed gives the loader's batches, in order, and leaves the loader closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pipeline.training.feed import on_device
from pipeline.types import Batch


def batch(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=generator)
    ids = torch.arange(4) + 4 * number
    return Batch(images, ids % 3, ids, torch.zeros(4, dtype=torch.bool))


def check(device: torch.device) -> None:
    wanted = [batch(number) for number in range(5)]
    found = list(on_device(iter(wanted), device))
    assert len(found) == 5
    for one, other in zip(found, wanted, strict=True):
        assert one.images.device.type == device.type and one.images.dtype == torch.float32
        assert torch.equal(one.images.cpu(), other.images / 255)
        assert torch.equal(one.sample_ids.cpu(), other.sample_ids)


def test_on_the_cpu() -> None:
    check(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_on_a_gpu() -> None:
    check(torch.device("cuda"))


def test_no_batches() -> None:
    assert list(on_device(iter([]), torch.device("cpu"))) == []


def test_the_loader_is_closed_when_the_epoch_is_left() -> None:
    closed = []

    def loader() -> Iterator[Batch]:
        try:
            for number in range(100):
                yield batch(number)
        finally:
            closed.append(True)

    feed = on_device(loader(), torch.device("cpu"))
    next(feed)
    feed.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_an_error_of_the_loader_comes_out() -> None:
    def loader() -> Iterator[Batch]:
        yield batch(0)
        raise RuntimeError("disk on fire")

    feed = on_device(loader(), torch.device("cpu"))
    next(feed)
    with pytest.raises(RuntimeError, match="disk on fire"):
        next(feed)
