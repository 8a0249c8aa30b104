"""Batches from the loader to the training device, one ahead of the step that needs them.

Notable:
- On a GPU the copy goes from pinned memory on a stream of its own, as uint8, and becomes float32
  there: while step n computes, batch n + 1 crosses the bus, and the main stream only waits for an
  event that is long past.
- `record_stream` tells the allocator that the main stream still reads what the other one made;
  without it the memory could be given away too early.
- On the CPU there is nothing to overlap: batches are converted when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pipeline.types import Batch


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches in order on `device`, images float32 in [0, 1] (`Batch.to`).

    Args:
        batches: on the CPU, uint8. Closed when the iteration is left early.
        device: of the model.
    """
    try:
        if device.type == "cuda":
            yield from _copied_ahead(batches, device)
        else:
            for batch in batches:
                yield batch.to(device)
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()


def _copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    side = torch.cuda.Stream(device)
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        pinned = Batch(*(field.pin_memory() for field in batch.fields()))
        with torch.cuda.stream(side):
            copy = pinned.to(device)
            done = torch.cuda.Event()
            done.record(side)
        if ahead is not None:
            yield _handed_over(*ahead, device)
        ahead = copy, done
    if ahead is not None:
        yield _handed_over(*ahead, device)


def _handed_over(batch: Batch, done: torch.cuda.Event, device: torch.device) -> Batch:
    """The batch, safe to use on the main stream."""
    main = torch.cuda.current_stream(device)
    main.wait_event(done)
    for field in batch.fields():
        field.record_stream(main)
    return batch
