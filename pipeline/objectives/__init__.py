"""Losses that training minimises, by name."""

from pipeline.objectives.base import Losses, Objective, measure
from pipeline.objectives.registry import build_objective, list_objectives

__all__ = ["Losses", "Objective", "build_objective", "list_objectives", "measure"]
