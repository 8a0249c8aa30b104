"""The run directory: whose it is, and whether a run may go on in it.

Notable: `--max-steps` works in `NAME.trial`, which is emptied each time, and never touches the run
itself; so a recipe can be tried, changed and tried again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import config as configs
from pipeline.config import RunConfig
from pipeline.distributed import current_world, together

MAY_CHANGE = {
    "name",
    "output",
    "task",
    "engine",
    "deepspeed",
    "data.backend",
    "data.workers",
    "training.accumulation",
    "training.validate_every",
    "training.log_every",
    "training.log_samples",
    "checkpoint",
    "certification",
    "diffusion.monitor",
    "sampling",
    "cluster",
}
"""Keys that change neither the weights nor a logged number, so that a run may go on without them.
(`name` and `output` only say where it lies; another engine or accumulation, like another number of
processes, adds the same numbers in another order.)"""


def directory_of(config: RunConfig, trial: bool) -> Path:
    """Where a run, or its trial, lies."""
    directory = config.directory
    return directory.with_name(directory.name + ".trial") if trial else directory


def prepare(config: RunConfig, directory: Path, fresh: bool) -> None:
    """Make the run directory and write config.yaml. A collective.

    Args:
        config: of this start.
        directory: from `directory_of`.
        fresh: remove what an earlier start left.

    Raises:
        ValueError: checkpoints of another config are there, or it cannot be written.
    """
    with together(), writing(directory):
        if current_world().is_main:
            if fresh and directory.exists():
                shutil.rmtree(directory)
            directory.mkdir(parents=True, exist_ok=True)
            refuse_other_run(config, directory)
            temporary = directory / ".config.yaml.tmp"
            configs.save(config, temporary)
            temporary.replace(directory / "config.yaml")


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Surrounds the first writing into a run directory.

    Raises:
        ValueError: it cannot be written.
    """
    try:
        yield
    except OSError as failure:
        raise ValueError(
            f"output {str(directory)!r} cannot be written ({failure.strerror}): choose another "
            "--output"
        ) from failure


def refuse_other_run(config: RunConfig, directory: Path) -> None:
    """Raise if there are checkpoints to go on from, and they are of another run.

    Raises:
        ValueError: they are, naming the first key that differs.
    """
    path = directory / "config.yaml"
    if not path.exists() or not any(directory.glob("checkpoints/step_*")):
        return  # a start that never reached a checkpoint binds nobody
    difference = configs.first_difference(configs.load(path), config, MAY_CHANGE)
    if difference:
        raise ValueError(
            f"{directory} holds a run of another config ({difference}): set it back to go on with "
            "that run, or give this one another --name"
        )
