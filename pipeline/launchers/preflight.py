"""What can be known of a job before it is queued: every mistake found here costs no waiting."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline import config as configs
from pipeline.config import RunConfig
from pipeline.data.base import GeneratedInfo
from pipeline.data.classes import select_classes
from pipeline.data.generated import classes_of_generated, open_generated
from pipeline.data.mixing import check_batch_size
from pipeline.data.pictures import Pictures, Preset, SubsetPictures, open_pictures
from pipeline.data.sources import FORMS, Split
from pipeline.diffusion.classifier import check_classifier, config_of
from pipeline.diffusion.generate import check_target
from pipeline.diffusion.network import build_denoiser
from pipeline.diffusion.sampler import Settings
from pipeline.diffusion.train import check_engine, check_guidance
from pipeline.diffusion.training_data import TrainingData
from pipeline.launchers import scheduler
from pipeline.launchers.folder import JobFolder
from pipeline.launchers.scheduler import Partition, SchedulerError
from pipeline.launchers.slurm import job_parent
from pipeline.models import model_of
from pipeline.objectives import build_objective
from pipeline.training.run_directory import refuse_other_run, with_generated
from pipeline.training.schedules import EpsilonRamp, learning_rate_of


@dataclass(frozen=True)
class ActiveJob:
    """A job that trains this run, or waits to."""

    folder: JobFolder
    job: str
    state: str


def check_run(config: RunConfig) -> None:
    """Network, objective, schedules, batch, data and run directory.

    Raises:
        ValueError: one of them cannot work.
    """
    if config.task.startswith("ddpm"):
        _check_generator(config)
    else:
        _check_network(config)
    trains = config.task in ("train", "ddpm_train")
    if trains:
        training = config.training
        ratio = None if config.data.generated is None else config.data.generated.parts
        check_batch_size(training.batch_size, config.cluster.tasks, training.accumulation, ratio)
        preset: Preset = "train" if config.task == "train" else "exact"
        real = _check_data(config, "data.train", config.data.train, "train", preset)
        _check_schedules(config, real)
        config = _check_generated(config, real)
    if not config.task.startswith("ddpm"):
        _check_data(config, "data.val", config.data.val, "val", "exact")
    if trains:
        _check_directory(config.directory)
        refuse_other_run(config, config.directory)
    elif not (config.directory / "config.yaml").is_file():
        raise ValueError(f"{config.directory} holds no run to {config.task}: give its --name")


def _check_schedules(config: RunConfig, real: Pictures | None) -> None:
    """Warm-up and ramp, by the steps of an epoch where the images are known, else by epochs."""
    steps, training, data = 1, config.training, config.data
    if real is not None:
        count = len(real.labels)
        if data.classes is not None:
            count = len(select_classes(data.classes, real.class_names, real.labels).samples)
        ratio = (1, 0) if data.generated is None else data.generated.parts
        steps = max(count // (training.batch_size // sum(ratio) * ratio[0]), 1)
    learning_rate_of(config, steps)
    EpsilonRamp.of(config, steps)


def _check_generator(config: RunConfig) -> None:
    """The denoiser without its numbers, what it trains on, or what is drawn from it."""
    with torch.device("meta"):
        build_denoiser(config.model)
    if config.task == "ddpm_train":
        check_engine(config)
        monitor = config.diffusion.monitor
        if monitor.images and monitor.classifier is not None:
            config_of(Path(monitor.classifier))
        return
    sampling, out = config.sampling, check_target(config.directory, config.sampling)
    trained_on = TrainingData.read(config.directory)
    generator = configs.load(config.directory / "config.yaml")
    Settings(generator.diffusion.timesteps, sampling.steps, sampling.sampler).scheduler()
    check_guidance(generator, "sampling.guidance", sampling.guidance)
    if sampling.filter is not None:
        judge = Path(sampling.filter.classifier)
        check_classifier(judge, trained_on.image_shape, trained_on.class_names)
    if sampling.nearest:
        _check_data(generator, "data.train", generator.data.train, "train", "exact")
        if generator.data.val is not None:
            _check_data(generator, "data.val", generator.data.val, "val", "exact")
    _check_directory(out.parent)


def active_job(config: RunConfig) -> ActiveJob | None:
    """The newest job of this run that waits or runs. Two would spoil each other's work.

    Raises:
        ValueError: SLURM does not answer.
    """
    for submission in reversed(JobFolder.all_in(job_parent(config))):
        job = submission.job()
        if job is None or not job.isdigit():  # none, or one of --local
            continue
        try:
            facts = scheduler.show(job)
        except SchedulerError as error:
            raise ValueError(f"SLURM does not answer: {error}") from None
        if facts is not None and facts.is_alive:
            return ActiveJob(submission, job, facts.state)
    return None


def fit_to_cluster(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Check nodes, GPUs and time against the partition.

    Returns:
        The config, with a time limit that the partition allows; what a person should know.

    Raises:
        ValueError: the partition is unknown or has not what is asked for; or SLURM does not answer.
    """
    cluster = config.cluster
    try:
        known = scheduler.partitions()
    except SchedulerError as error:
        raise ValueError(f"SLURM does not answer: {error}") from None
    chosen = _chosen(cluster.partition, known)
    if not chosen:  # no default partition: SLURM will say so
        return config, []
    names = ",".join(partition.name for partition in chosen)
    nodes = max(partition.nodes for partition in chosen)
    if cluster.nodes > nodes:
        raise ValueError(
            f"cluster.nodes {cluster.nodes}: partition {names} has {nodes}: take at most that many"
        )
    gpus = max(partition.gpus_per_node for partition in chosen)
    if cluster.gpus_per_node > gpus:
        mend = (
            f"take --gpus-per-node {gpus}"
            if gpus
            else "take --gpus-per-node 0 and set cluster.tasks_per_node"
        )
        raise ValueError(
            f"cluster.gpus_per_node {cluster.gpus_per_node}: nodes of partition {names} have "
            f"{gpus}: {mend}"
        )
    limits = [partition.minutes for partition in chosen]
    limit = None if None in limits else max(minutes for minutes in limits if minutes is not None)
    if limit is None or 0 < cluster.minutes <= limit:
        return config, []
    if 60 * limit <= cluster.signal_seconds:
        raise ValueError(
            f"cluster.signal_seconds {cluster.signal_seconds}: partition {names} ends jobs after "
            f"{limit} minutes, which leaves nothing: set it lower"
        )
    shorter = config.model_copy(update={"cluster": cluster.model_copy(update={"time": limit})})
    note = (
        f"partition {names} ends jobs after {limit} minutes, and cluster.time is {cluster.time}: "
        "the run will be a chain of jobs of that length"
    )
    return shorter, [note]


def _chosen(names: str | None, known: dict[str, Partition]) -> list[Partition]:
    """The partitions named, or the default one."""
    if names is None:
        return [partition for partition in known.values() if partition.is_default]
    for name in names.split(","):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"cluster.partition {name!r} is not one of this cluster: {mend}")
    return [known[name] for name in names.split(",")]


def _check_network(config: RunConfig) -> None:
    """Build the network without its numbers, which takes no memory, and the objective."""
    with torch.device("meta"):
        model_of(config.model)
    build_objective(config.objective.name, **config.objective.options)


def _check_directory(directory: Path) -> None:
    """Whether the run directory, or what it is to be made in, can be written."""
    place = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise ValueError(
            f"output {str(directory)!r} cannot be written (nothing can be made in {place}): choose "
            "another --output"
        )


def _check_data(
    config: RunConfig, key: str, spec: str | None, split: Split, preset: Preset
) -> Pictures | None:
    """Look for a data set, and into it where that takes no time: then it is what is returned."""
    if spec is None:
        raise ValueError(f"key {key!r} is missing: add it to the file or give --{key} VALUE")
    kind, _, path = spec.partition(":")
    if kind in FORMS and path:
        if not Path(path).exists():  # opening it may mean to list a million files
            raise ValueError(f"{key} {spec}: there is no {path}")
        return None
    try:
        any_size = config.data.augmentation.resized_crop is not None
        return open_pictures(spec, split, config.model.image_size, preset, any_size)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _check_generated(config: RunConfig, real: Pictures | None) -> RunConfig:
    """Look for the generated images, and compare them with the real ones where these are open.

    Returns:
        The config with their sha256, as a run completes it.
    """
    data = config.data
    if data.generated is None:
        return config
    path = data.generated.path
    if isinstance(path, str) and path.partition(":")[0] in FORMS:  # an archive may be large
        _check_data(config, "data.generated.path", path, "train", "train")
        return config
    found = open_generated(data, config.model.image_size, stage=False)
    if real is not None:
        chosen = real
        if data.classes is not None:
            chosen = SubsetPictures(
                real, select_classes(data.classes, real.class_names, real.labels)
            )
        classes_of_generated(data, found, real, chosen)
    facts = GeneratedInfo(
        found.spec, len(found.pictures.labels), data.generated.parts, found.sha256
    )
    return with_generated(config, facts)
