"""Peak memory: what was held and given back still counts."""

import torch

from pipeline.training.peak_memory import peak_memory

CPU = torch.device("cpu")


def test_what_was_held_counts() -> None:
    before = peak_memory(CPU)
    assert 0.05 < before < 100
    needed = int((before + 0.25) * 1e9)  # more than there ever was
    held = torch.ones(needed, dtype=torch.uint8)
    del held
    assert before + 0.2 < peak_memory(CPU) < 2 * before + 1
