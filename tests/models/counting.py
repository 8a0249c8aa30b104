"""How many steps of power iteration are asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.models import network


def iterations_asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the iterations of every estimate of a network from now on."""
    counts: list[int] = []
    plain = network.estimate_norms

    def counted(*arguments: Any) -> torch.Tensor:
        counts.append(arguments[1])
        return plain(*arguments)

    monkeypatch.setattr(network, "estimate_norms", counted)
    return counts
