"""The objectives by name, for configs."""

from __future__ import annotations

from typing import Any

from pipeline.objectives.adversarial import ProjectedGradient, Trades
from pipeline.objectives.base import Objective
from pipeline.objectives.crm import CertifiedRadius
from pipeline.objectives.cross_entropy import CrossEntropy
from pipeline.objectives.crt import CurvatureTraining
from pipeline.objectives.emma import Emma
from pipeline.objectives.gaussian_noise import GaussianNoise
from pipeline.objectives.gloro import GloroCrossEntropy, GloroTrades
from pipeline.objectives.margins import FixedMargin, LipschitzMargin
from pipeline.objectives.multi_margin import MultiMargin
from pipeline.registry import Registry

_OBJECTIVES: Registry[Objective] = Registry("objective")
_OBJECTIVES.add("emma", Emma)
_OBJECTIVES.add("cross_entropy", CrossEntropy)
_OBJECTIVES.add("multi_margin", MultiMargin)
_OBJECTIVES.add("gloro_ce", GloroCrossEntropy)
_OBJECTIVES.add("gloro_trades", GloroTrades)
_OBJECTIVES.add("fixed_margin", FixedMargin)
_OBJECTIVES.add("lmt", LipschitzMargin)
_OBJECTIVES.add("crm", CertifiedRadius)
_OBJECTIVES.add("crt", CurvatureTraining)
_OBJECTIVES.add("pgd", ProjectedGradient)
_OBJECTIVES.add("trades", Trades)
_OBJECTIVES.add("gaussian_noise", GaussianNoise)


def list_objectives() -> list[str]:
    """The names that `build_objective` takes, sorted."""
    return _OBJECTIVES.names()


def build_objective(name: str, **options: Any) -> Objective:
    """Build an objective; a config's `objective` section is exactly these arguments.

    Raises:
        ValueError: an unknown name or option, with the near miss, or an option out of range.
    """
    return _OBJECTIVES.build(name, **options)
