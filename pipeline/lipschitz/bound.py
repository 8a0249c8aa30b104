"""NormBound: a number proved not to be below an operator norm, and how it was proved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NormBound:
    """An upper bound of an l2 operator norm that holds in spite of all rounding."""

    value: float
    """float64; infinite where nothing could be proved, never below the true norm."""
    method: str
    """How it was proved, e.g. "torus-cholesky", "exact" (the constant of MinMax)."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values that let another program repeat the proof (torus size, twist, slack)."""
