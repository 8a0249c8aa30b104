"""Sweeps: one config over several seeds and grid points, and tables of mean ± sd."""

from pipeline.sweep.budget import LENGTH, divide
from pipeline.sweep.comparison import write_comparison
from pipeline.sweep.conduct import Outcome, command_of, conduct
from pipeline.sweep.grid import parse_axis
from pipeline.sweep.plan import Sweep, is_finished, plan
from pipeline.sweep.processes import launcher
from pipeline.training.guards import NonFiniteError

__all__ = ["LENGTH", "NonFiniteError", "Outcome", "Sweep", "command_of", "conduct", "divide",
           "is_finished", "launcher", "parse_axis", "plan", "write_comparison"]  # fmt: skip
