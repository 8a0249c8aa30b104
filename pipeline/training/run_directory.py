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
from pipeline.data.base import GeneratedInfo
from pipeline.distributed import current_world, gather_objects, together

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

FOUND = {"data.generated.sha256"}
"""Keys that a run fills in when it starts, from what it finds."""


def directory_of(config: RunConfig, trial: bool) -> Path:
    """Where a run, or its trial, lies."""
    directory = config.directory
    return directory.with_name(directory.name + ".trial") if trial else directory


def with_generated(config: RunConfig, info: GeneratedInfo | None) -> RunConfig:
    """The config with the sha256 of the generated images that were found. A collective.

    Raises:
        ValueError: they are not the same on all ranks.
    """
    if info is None:
        return config
    found = gather_objects(info.sha256)
    other = next((rank for rank, sha256 in enumerate(found) if sha256 != found[0]), None)
    if other is not None:
        raise ValueError(
            f"data.generated.path {info.spec} is another set on rank {other} ({found[other]}) than "
            f"on rank 0 ({found[0]}): copy the same files to every node"
        )
    assert config.data.generated is not None
    generated = config.data.generated.model_copy(update={"sha256": info.sha256})
    data = config.data.model_copy(update={"generated": generated})
    return config.model_copy(update={"data": data})


def generated_facts(config: RunConfig) -> list[tuple[str, str]]:
    """What generated images training used, for the report's table; empty if none."""
    generated = config.data.generated
    if generated is None:
        return []
    path = generated.path if isinstance(generated.path, str) else ", ".join(generated.path)
    return [
        ("generated images in every batch", path),
        ("real : generated", generated.ratio.replace(":", " : ")),
        ("sha256 of the generated images", generated.sha256 or "not known"),
    ]


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
    recorded, generated = configs.load(path), config.data.generated
    known = generated is not None and generated.sha256 is not None
    may_change = MAY_CHANGE if known else MAY_CHANGE | FOUND
    difference = configs.first_difference(recorded, config, may_change)
    if difference and difference.startswith("data.generated.sha256"):
        assert recorded.data.generated is not None
        raise ValueError(
            f"data.generated.path {recorded.data.generated.path} is no longer the set that the run "
            f"in {directory} is trained with ({difference}): restore it to go on with that run, or "
            "give this one another --name"
        )
    if difference:
        raise ValueError(
            f"{directory} holds a run of another config ({difference}): set it back to go on with "
            "that run, or give this one another --name"
        )
