"""The task `ddpm_train`: a denoiser on the training loop that classifiers train on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from pipeline import distributed
from pipeline.config import RunConfig
from pipeline.data.base import BlockLoader, DatasetInfo
from pipeline.data.loader import open_block_loader, open_train_loader
from pipeline.data.mixing import check_batch_size
from pipeline.diffusion.average import WeightAverage
from pipeline.diffusion.classifier import Judge
from pipeline.diffusion.monitor import SampleMonitor
from pipeline.diffusion.network import build_denoiser
from pipeline.diffusion.noise_schedule import NoiseSchedule
from pipeline.diffusion.objective import HybridLoss
from pipeline.diffusion.training_data import TrainingData
from pipeline.rank_log import open_rank_log
from pipeline.training.build_engine import build_engine
from pipeline.training.callbacks import Callback
from pipeline.training.checkpointing import Checkpointing
from pipeline.training.determinism import make_deterministic
from pipeline.training.display import Display
from pipeline.training.loop import Loop, Plan
from pipeline.training.run_directory import directory_of, prepare, writing
from pipeline.training.sample_log import SampleLog
from pipeline.training.schedules import learning_rate_of
from pipeline.training.session import train_on
from pipeline.training.stop_request import stop_requests
from pipeline.training.telemetry import Telemetry

AVERAGE = "average"
"""The part of a checkpoint that holds the averaged weights."""


def train_generator(config: RunConfig, max_steps: int | None = None) -> str | None:
    """Train, resuming automatically. Every process of the launch calls it.

    Args:
        max_steps: as `pipeline.run.main`.

    Returns:
        What it was left on before its end; None where it is finished.

    Raises:
        ValueError: something in the config, the data or the run directory is wrong.
        NonFiniteError: a loss or gradient was not finite.
    """
    world = distributed.start()
    training, diffusion = config.training, config.diffusion
    check_batch_size(training.batch_size, world.size, training.accumulation)
    check_engine(config)
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"--max-steps {max_steps} must be at least 1")
    directory = directory_of(config, trial=max_steps is not None)
    make_deterministic(config.seed)
    network = build_denoiser(config.model)
    with ExitStack() as stack:
        with distributed.together():  # what is missing on one node
            loader = open_train_loader(
                config.data, config.model.image_size, training.batch_size, config.seed, world
            )
            stack.callback(loader.close)
            exact = open_training_images(config)
            stack.callback(exact.close)
            check_images(config, exact.info)
        plan = Plan(
            epochs=training.epochs,
            steps=training.steps,
            batch_size=training.batch_size,
            accumulation=training.accumulation,
            learning_rate=learning_rate_of(config, loader.steps_per_epoch),
            epsilon=lambda _: 0.0,
            clip_norm=config.optimizer.clip_norm,
            max_steps=max_steps,
        )
        prepare(config, directory, fresh=max_steps is not None)
        with distributed.together(), writing(directory):
            open_rank_log(directory)
        stop = stack.enter_context(stop_requests())
        distributed.together_while(lambda: _note(exact, directory), stop.leave_if_asked)

        device = distributed.local_device(world)
        average = WeightAverage(network, diffusion.ema, device)
        engine = build_engine(network, config)
        schedule = NoiseSchedule(diffusion.timesteps, diffusion.prediction).to(engine.device)
        objective = HybridLoss(
            schedule,
            config.model.num_classes,
            config.seed,
            diffusion.class_dropout,
            diffusion.vlb_weight,
        )
        total_steps = training.total_steps(loader.steps_per_epoch)
        samples = [SampleLog(directory)] if training.log_samples else []
        telemetry = Telemetry(directory, [], training.log_every)
        checkpointing = Checkpointing(
            directory / "checkpoints",
            engine,
            {AVERAGE: average},
            loader,
            config.model_dump(mode="json"),
            records=[*samples, telemetry],
            **config.checkpoint.model_dump(),
        )
        judge = _judge(config, exact.info)
        callbacks: list[Callback] = [
            *samples,
            average,
            SampleMonitor(average.model, diffusion, judge, exact, engine.device),
            telemetry,
            Display(min(max_steps or total_steps, total_steps), training.batch_size),
            checkpointing,  # last: it saves what the others have written
        ]
        loop = Loop(engine, objective, loader, plan, callbacks, stop)
        return train_on(loop, checkpointing, directory, stop)


def check_engine(config: RunConfig) -> None:
    """Refuse what no generator trains with, whatever its data.

    Raises:
        ValueError: ZeRO-3, which leaves no rank the whole weights between steps; `data.generated`;
            a guided monitor where no label is hidden.
    """
    if config.data.generated is not None:
        raise ValueError("data.generated is set, and a generator learns real images: leave it out")
    if config.engine == "deepspeed" and config.deepspeed.stage == 3:
        raise ValueError(
            "deepspeed.stage is 3, which leaves no rank the whole weights that a generator's "
            "average needs after each step: take 2"
        )
    monitor = config.diffusion.monitor
    if monitor.images:
        check_guidance(config, "diffusion.monitor.guidance", monitor.guidance)


def check_guidance(config: RunConfig, key: str, guidance: float) -> None:
    """Refuse guidance by a generator that has not learnt to do without a label.

    Args:
        config: of the generator's run.
        key: of the config, that has `guidance`.

    Raises:
        ValueError: no label was hidden from it, and guidance is not 1.
    """
    if guidance != 1 and config.diffusion.class_dropout == 0:
        raise ValueError(
            f"{key} is {guidance:g}, and diffusion.class_dropout is 0, so that the generator never "
            f"learns images without a label: set {key} to 1, or train with a class_dropout above 0"
        )


def _note(exact: BlockLoader, directory: Path) -> None:
    with writing(directory):
        TrainingData.note(exact, directory)


def open_training_images(config: RunConfig) -> BlockLoader:
    """The training set's exact pixels: for its hash, features and nearest neighbours.

    Raises:
        ValueError: it is missing, of another size, or compressed.
    """
    spec = config.data.train
    if spec is None:
        raise ValueError(
            "key 'data.train' is missing: add it to the file or give --data.train VALUE"
        )
    return open_block_loader(spec, "train", config.model.image_size, config.data)


def check_images(config: RunConfig, info: DatasetInfo) -> None:
    """Refuse images that the network does not take.

    Raises:
        ValueError: other channels or classes.
    """
    model = config.model
    channels = info.image_shape[0]
    if channels != model.in_channels:
        raise ValueError(
            f"data.train {info.spec} has {channels} channels, and model.in_channels is "
            f"{model.in_channels}: set it to {channels}"
        )
    if info.num_classes != model.num_classes:
        raise ValueError(
            f"data.train {info.spec} has {info.num_classes} classes, and model.num_classes is "
            f"{model.num_classes}: set it to {info.num_classes}"
        )


def _judge(config: RunConfig, info: DatasetInfo) -> Judge | None:
    """The classifier whose features the monitor compares."""
    run = config.diffusion.monitor.classifier
    if run is None:
        return None
    judge = Judge(Path(run), distributed.local_device(distributed.current_world()))
    judge.check(info.image_shape, info.class_names)
    return judge
