"""Equal time for all networks of a sweep: `training.steps` of each point from its measured step.

Notable:
- What was measured is kept in `budget.json` in the sweep's directory. The same command again takes
  it from there, so that it goes on with the same runs; only new points are measured.
- The time is that of forward, backward and update. Schedules follow the steps, so that a slow
  network has the whole ramp and the whole decay too, in fewer steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.certify.block_store import write_atomically
from pipeline.config import RunConfig
from pipeline.sweep.grid import Axis, Point
from pipeline.sweep.plan import Sweep
from pipeline.sweep.step_cost import StepCost, measure

LENGTH = "training.steps"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Share:
    """What a point gets of the time."""

    settings: dict[str, str]
    """Of the point, without `training.steps`."""
    steps: int
    images_per_second: float
    cost: StepCost


def file_of(sweep: Sweep) -> Path:
    """Where the measurements of a sweep are kept."""
    return sweep.directory / "budget.json"


def divide(sweep: Sweep, seconds: float, say: Say, keep: bool = True) -> list[Axis]:
    """The grid of the sweep with `training.steps` for every point.

    Args:
        sweep: as planned without a budget.
        seconds: of training, for each run.
        say: told what is being measured.
        keep: write `budget.json`.

    Returns:
        One axis, whose keys go in step.

    Raises:
        ValueError: the length is given already, the sweep was begun with another budget, or not
            even a step fits.
    """
    if not seconds > 0:
        raise ValueError(f"--budget {seconds:g} must be a number of seconds above 0")
    if LENGTH in sweep.keys or any(run.config.training.steps for run in sweep.runs):
        raise ValueError(f"{LENGTH} is what --budget works out: drop one of them")
    shares = {_words(share.settings): share for share in read(sweep, seconds)}
    for point in sweep.points:
        settings = dict(point.settings)
        if _words(settings) not in shares:
            say(f"measuring a step of {_words(settings) or sweep.name}")
            config = next(run.config for run in sweep.runs if run.point == point)
            shares[_words(settings)] = _share(settings, measure(config), config, seconds)
            if keep:
                _write(sweep, seconds, list(shares.values()))
    keys = (*sweep.keys, LENGTH)
    values = [
        (*(value for _, value in point.settings), str(shares[_words(dict(point.settings))].steps))
        for point in sweep.points
    ]
    return [Axis(keys, tuple(values))]


def read(sweep: Sweep, seconds: float | None = None) -> list[Share]:
    """What was measured for this sweep; nothing where nothing was.

    Raises:
        ValueError: it was for another budget than `seconds`.
    """
    path = file_of(sweep)
    if not path.is_file():
        return []
    stored: dict[str, Any] = json.loads(path.read_text())
    if seconds is not None and stored["seconds"] != seconds:
        raise ValueError(
            f"{path} is for --budget {stored['seconds']:g}, not {seconds:g}: set it back to go on "
            "with that sweep, or give this one another --name"
        )
    return [Share(**{**share, "cost": StepCost(**share["cost"])}) for share in stored["points"]]


def share_of(shares: Sequence[Share], point: Point) -> Share | None:
    """The measurements of a point, which has `training.steps` among its settings."""
    settings = {key: value for key, value in point.settings if key != LENGTH}
    return next((share for share in shares if share.settings == settings), None)


def _share(settings: dict[str, str], cost: StepCost, config: RunConfig, seconds: float) -> Share:
    steps = round(seconds / cost.seconds)
    if steps < 1:
        raise ValueError(
            f"--budget {seconds:g}: a step of {_words(settings)} takes {cost.seconds:.3g} seconds"
        )
    return Share(settings, steps, config.training.batch_size / cost.seconds, cost)


def _words(settings: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())


def _write(sweep: Sweep, seconds: float, shares: list[Share]) -> None:
    content = {"seconds": seconds, "points": [asdict(share) for share in shares]}
    write_atomically(file_of(sweep), json.dumps(content, indent=1) + "\n")
