"""What a sweep would run: every point and seed, checked before the first one starts.

Notable:
- A run is finished when its certificate is there and its config is the planned one. A run that was
  begun with another config, in this sweep's directory, is an error and nothing is started.
- Models and objectives are built once for each point, without memory (on torch's `meta` device), so
  that a misspelt option of the model is found now and not in the third run at night.
- The runs read a copy of the config file in the sweep's directory: editing the original while a
  sweep is under way changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline import config as configs
from pipeline.config import RunConfig
from pipeline.models import model_of
from pipeline.objectives import build_objective
from pipeline.sweep.grid import Axis, Point, product, run_name
from pipeline.training.run_directory import FOUND, MAY_CHANGE

_LONGEST_NAME = 200  # bytes; file systems take 255, and runs add endings such as .trial


@dataclass(frozen=True)
class Run:
    """One process to be: a point of the grid with a seed."""

    name: str
    """Of its directory in the sweep's, `width=8_seed0`."""
    point: Point
    seed: int
    config: RunConfig
    overrides: tuple[str, ...]
    """What launch/train.py is given besides `--config`."""

    @property
    def certificate(self) -> Path:
        """Its certificate directory."""
        return self.config.directory / "certificate"


@dataclass(frozen=True)
class Sweep:
    """Every run of a sweep, and where it lies."""

    name: str
    directory: Path
    """`output/NAME.sweep`; each run has a directory in it."""
    source: Path
    """The config file."""
    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    runs: tuple[Run, ...]

    @property
    def config_copy(self) -> Path:
        """The copy of the config file that the runs read."""
        return self.directory / "config.yaml"

    @property
    def keys(self) -> list[str]:
        """The grid's keys, in order."""
        return [key for axis in self.axes for key in axis.keys]


def plan(
    source: Path,
    overrides: Sequence[str],
    axes: Sequence[Axis],
    seeds: Sequence[int],
    open_keys: Sequence[str] = (),
) -> Sweep:
    """Work out every run and check all that can be checked before one starts. Writes nothing.

    Args:
        source: the config file.
        overrides: `--key value` words for all runs, as `pipeline.config.load` takes them.
        axes: of the grid.
        seeds: of each point.
        open_keys: not settled yet (`budget`): runs that lie there may differ in them.

    Raises:
        ValueError: a key or value that some point's config does not take, runs that are the same
            or cannot be told apart, or runs of another config in the sweep's directory.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {' '.join(map(str, seeds))}: a seed is given twice")
    points = product(axes)
    words = list(overrides)
    _check_keys(words, axes)
    name = configs.load(source, [*words, *points[0].overrides]).name
    runs = tuple(_run(source, words, point, seed, name) for point in points for seed in seeds)
    _check_names(runs)
    _check_models(runs)
    directory = runs[0].config.directory.parent
    sweep = Sweep(name, directory, source, tuple(axes), tuple(points), runs)
    _refuse_other_sweep(sweep, {*sweep.keys, *open_keys})
    return sweep


def is_finished(run: Run) -> bool:
    """Whether its certificate is there. (`plan` has seen that it is of the planned config.)"""
    return (run.certificate / "certificate.json").is_file()


def difference(run: Run) -> str | None:
    """How what lies in the run's directory differs from what is planned; None if it does not.

    Raises:
        ValueError: its config.yaml cannot be read.
    """
    if is_finished(run):
        recorded, may_change = run.certificate, MAY_CHANGE - {"certification"} | FOUND
    elif _begun(run.config.directory):
        recorded, may_change = run.config.directory, MAY_CHANGE | FOUND
    else:
        return None
    return configs.first_difference(configs.load(recorded / "config.yaml"), run.config, may_change)


def _run(source: Path, words: list[str], point: Point, seed: int, sweep: str) -> Run:
    name = run_name(point, seed)
    if len(name.encode()) > _LONGEST_NAME:
        raise ValueError(
            f"--grid: the run name {name[:60]}... is too long for a folder: shorten the values"
        )
    ours = [*point.overrides, f"--name={sweep}.sweep/{name}", f"--seed={seed}"]
    config = configs.load(source, [*words, *ours])
    if config.task != "train":
        raise ValueError(f"task is {config.task!r}, and a sweep trains: take --task train")
    if not config.certification.at_end:
        raise ValueError(
            "certification.at_end is false, and a sweep's tables are made of certificates: take "
            "--certification.at_end true"
        )
    return Run(name, point, seed, config, (*words, *ours))


def _check_keys(words: list[str], axes: Sequence[Axis]) -> None:
    """Refuse keys that are the sweep's own, or that are given on both sides."""
    given = {word[2:].partition("=")[0].replace("-", "_") for word in words if word[:2] == "--"}
    swept = {key for axis in axes for key in axis.keys}
    if "seed" in given | swept:
        raise ValueError("seed is given by --seeds 0 1 2, not as a key")
    for key in ("name", "output", "task"):
        if key in swept:
            raise ValueError(f"--grid {key}: it says where a run lies or what it is, sweep others")
    both = sorted(given & swept)
    if both:
        raise ValueError(f"{both[0]} is given twice, by --{both[0]} and by --grid: drop one")


def _check_names(runs: Sequence[Run]) -> None:
    """Refuse runs that are the same, or whose folders would be."""
    folders: dict[str, Run] = {}
    contents: dict[str, Run] = {}
    for run in runs:
        content = json.dumps(run.config.model_copy(update={"name": ""}).model_dump(mode="json"))
        twin = contents.setdefault(content, run)
        if twin is not run:
            raise ValueError(
                f"--grid: {_words(twin.point)} and {_words(run.point)} are the same: drop one"
            )
        twin = folders.setdefault(run.name.casefold(), run)  # some file systems fold case
        if twin is not run:
            raise ValueError(
                f"--grid: {_words(twin.point)} and {_words(run.point)} would share the folder "
                f"{run.name}: sweep them under two names (--name)"
            )


def _words(point: Point) -> str:
    return " ".join(f"{key}={value}" for key, value in point.settings)


def _check_models(runs: Sequence[Run]) -> None:
    """Build what each different section describes, once."""
    models = {json.dumps(run.config.model.model_dump()): run.config.model for run in runs}
    with torch.device("meta"):
        for model in models.values():
            model_of(model)
    objectives = {json.dumps(run.config.objective.model_dump()): run for run in runs}
    for run in objectives.values():
        build_objective(run.config.objective.name, **run.config.objective.options)


def _begun(directory: Path) -> bool:
    """Whether there is a checkpoint; a start that reached none binds nobody."""
    return any(directory.glob("checkpoints/step_*")) and (directory / "config.yaml").is_file()


def _refuse_other_sweep(sweep: Sweep, keys: set[str]) -> None:
    """Raise if runs of another config lie in the sweep's directory."""
    found = {run.config.directory: difference(run) for run in sweep.runs}
    for directory in sorted(path.parent for path in sweep.directory.glob("*/config.yaml")):
        if directory not in found and _begun(directory):  # other seeds or values; all else agrees
            found[directory] = configs.first_difference(
                configs.load(directory / "config.yaml"),
                sweep.runs[0].config,
                MAY_CHANGE | FOUND | {"seed", *keys},
            )
    for directory, differs in found.items():
        if differs:
            raise ValueError(
                f"{directory} is a run of another config ({differs}): set it back to go on with "
                "that sweep, or give this one another --name"
            )
