"""Composes a run from its config: trains and certifies, certifies what was trained, or generates.

Read this file to see the whole pipeline. Notable: the same command again goes on where the run was
killed; on a finished run it certifies what is not yet certified, and does nothing else.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from pipeline import config as configs
from pipeline import distributed
from pipeline.certify import Certificate, certify
from pipeline.certify.methods import PRODUCT, check_method
from pipeline.checkpoint import load_chosen, load_model
from pipeline.config import RunConfig
from pipeline.data.loader import BlockLoader, DatasetInfo, open_block_loader, open_train_loader
from pipeline.data.mixing import check_batch_size
from pipeline.diffusion.generate import check_target, generate
from pipeline.diffusion.store import DrawnBatches
from pipeline.diffusion.train import train_generator
from pipeline.diffusion.training_data import TrainingData
from pipeline.models import LipschitzNetwork, model_of
from pipeline.models.slope_network import SlopeNetwork
from pipeline.models.slope_resnet import SlopeResidualNetwork
from pipeline.objectives import build_objective
from pipeline.outcome import FINISHED, Outcome, recorded
from pipeline.progress import say
from pipeline.rank_log import open_rank_log
from pipeline.training.account import Account, account_of
from pipeline.training.attempts import DRAWING
from pipeline.training.build_engine import build_engine
from pipeline.training.callbacks import Callback
from pipeline.training.checkpointing import Checkpointing
from pipeline.training.determinism import make_deterministic
from pipeline.training.display import Display
from pipeline.training.loop import Loop, Plan
from pipeline.training.run_directory import (
    directory_of,
    generated_facts,
    prepare,
    with_generated,
    writing,
)
from pipeline.training.sample_log import SampleLog
from pipeline.training.schedules import EpsilonRamp, learning_rate_of
from pipeline.training.session import train_on
from pipeline.training.stop_request import stop_requests
from pipeline.training.telemetry import Telemetry
from pipeline.training.threatening import ThreateningClasses
from pipeline.training.validation import ValidationCallback
from pipeline.types import Epsilon


def main(config: RunConfig, max_steps: int | None = None) -> Outcome:
    """Do what the config says. Every process of the launch calls it.

    Args:
        config: the run.
        max_steps: try the recipe: the first so many steps exactly as the whole run makes them, in
            the directory `NAME.trial`, which is emptied first; no certification.

    Returns:
        Whether it finished, or what made it leave early; the same call goes on from there.

    Raises:
        ValueError: something in the config, the data or the run directory is wrong.
        NonFiniteError: a loss or gradient was not finite.
        StopRequestedError: somebody asked during certification; the same call goes on.
    """
    distributed.start(config.cluster.silence, config.cluster.collective_timeout)
    with stop_requests():
        if max_steps is not None:
            return _trained(config, max_steps)  # a trial is no attempt at the run
        return recorded(config.directory, lambda: _work(config))


def _work(config: RunConfig) -> Outcome:
    """The task, in its run directory."""
    if config.task in ("train", "ddpm_train"):
        return _trained(config)
    if config.task == "ddpm_sample":
        return _drawn(config)
    if (config.directory / "config.yaml").exists():  # else it is no run, and gets no log
        open_rank_log(config.directory)
    certify_run(config.directory, config.data.val, config.certification.epsilons)
    return FINISHED


def _trained(config: RunConfig, max_steps: int | None = None) -> Outcome:
    """A classifier or a generator."""
    if config.task == "ddpm_train":
        return Outcome(train_generator(config, max_steps))
    return train(config, max_steps)


def _drawn(config: RunConfig) -> Outcome:
    """Samples of the run's generator."""
    run = config.directory
    folder = DrawnBatches(check_target(run, config.sampling)).folder
    TrainingData.read(run)  # else it is no generator, and gets no log
    with distributed.together(), writing(run):
        open_rank_log(run)
        if distributed.current_world().is_main:
            (run / DRAWING).write_text(f"{folder.absolute()}\n")
    with stop_requests() as stop:
        generate(run, config.sampling, stop.leave_if_asked)
    return FINISHED


def train(config: RunConfig, max_steps: int | None = None) -> Outcome:
    """Train, resuming automatically, and certify at the end. See `main`."""
    world = distributed.start()
    training = config.training
    ratio = None if config.data.generated is None else config.data.generated.parts
    check_batch_size(training.batch_size, world.size, training.accumulation, ratio)
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"--max-steps {max_steps} must be at least 1")
    directory = directory_of(config, trial=max_steps is not None)
    make_deterministic(config.seed)
    model = model_of(config.model)
    _refuse_late_refusal(config, model)
    objective = build_objective(config.objective.name, **config.objective.options)
    with ExitStack() as stack:
        with distributed.together():  # what is missing on one node
            loader = open_train_loader(
                config.data, config.model.image_size, training.batch_size, config.seed, world
            )
            stack.callback(loader.close)
            val = _open_val(config, config.data.val)
            stack.callback(val.close)
            for key, info in (("data.train", loader.info), ("data.val", val.info)):
                _check_data(config, key, info)
        generated = loader.info.generated
        config = with_generated(config, generated)
        plan = Plan(
            epochs=training.epochs,
            steps=training.steps,
            batch_size=training.batch_size,
            accumulation=training.accumulation,
            learning_rate=learning_rate_of(config, loader.steps_per_epoch),
            epsilon=EpsilonRamp.of(config, loader.steps_per_epoch),
            clip_norm=config.optimizer.clip_norm,
            max_steps=max_steps,
            generated=0 if generated is None else generated.of_batch(training.batch_size),
        )
        prepare(config, directory, fresh=max_steps is not None)
        with distributed.together(), writing(directory):
            open_rank_log(directory)

        engine = build_engine(model, config)
        threatening = ThreateningClasses(loader.info.num_samples, engine.device)
        total_steps = training.total_steps(loader.steps_per_epoch)
        samples = [SampleLog(directory)] if training.log_samples else []
        telemetry = Telemetry(directory, model.norm_names, training.log_every)
        checkpointing = Checkpointing(
            directory / "checkpoints",
            engine,
            {"threatening_classes": threatening},
            loader,
            config.model_dump(mode="json"),
            records=[*samples, telemetry],
            **config.checkpoint.model_dump(),
        )
        target = Epsilon.parse(config.epsilon.target)
        callbacks: list[Callback] = [
            *samples,
            threatening,
            ValidationCallback(engine, val, target, training.validate_every),
            telemetry,
            Display(min(max_steps or total_steps, total_steps), training.batch_size),
            checkpointing,  # last: it saves what the others have written
        ]
        stop = stack.enter_context(stop_requests())
        loop = Loop(engine, objective, loader, plan, callbacks, stop)
        left_on = train_on(loop, checkpointing, directory, stop)
        if left_on is not None or max_steps is not None:
            return Outcome(left_on)
        account = account_of(directory) if world.is_main else None
        if account is not None:
            say(f"trained {total_steps} steps: {account.sentence()}")
        if config.certification.at_end:
            with engine.whole_model():
                network = model.export(world)
            epsilons = config.certification.epsilons
            certify(
                network,
                val,
                epsilons,
                directory / "certificate",
                config=config,
                tight=config.certification.tight,
                leave_if_asked=stop.leave_if_asked,
                training=_facts(config, account),
            )
    return FINISHED


def certify_run(
    directory: Path,
    data: str | None = None,
    epsilons: list[str] | None = None,
    out: Path | None = None,
    force: bool = False,
    checkpoint: str = "newest",
    tight: bool = False,
) -> Certificate:
    """Certify a checkpoint of a run.

    Args:
        directory: the run directory.
        data: dataset spec; by default the run's `data.val`.
        epsilons: by default the run's.
        out: the certificate directory; by default `certificate/` in the run directory.
        force: replace a certificate of something else.
        tight: tight norm bounds also where the run's config does not ask for them.
        checkpoint: "newest"; "best" by the estimate of VRA in training; or a step, such as "500".

    Raises:
        ValueError: there is no run or no such checkpoint, or as `pipeline.certify.certify`.
        StopRequestedError: somebody asked; the same call goes on from the blocks that are done.
    """
    world = distributed.start()
    config = configs.load(directory / "config.yaml")
    chosen = load_chosen(directory / "checkpoints", checkpoint, say)
    model = model_of(config.model)
    load_model(chosen.tensors, model)
    say(f"certifying {directory} as it was after step {chosen.step}")
    with distributed.together():
        loader = _open_val(config, data or config.data.val)
    account = account_of(directory) if world.is_main else None
    try:
        with stop_requests() as stop:
            return certify(
                model.export(world),
                loader,
                epsilons or config.certification.epsilons,
                out or directory / "certificate",
                config=config,
                tight=tight or config.certification.tight,
                force=force,
                leave_if_asked=stop.leave_if_asked,
                training=_facts(config, account),
            )
    finally:
        loader.close()


def _refuse_late_refusal(config: RunConfig, model: LipschitzNetwork) -> None:
    """A network that gets no certificate says so before it trains, not after.

    Raises:
        ValueError: it gets none, and the run wants one.
    """
    if config.task != "train" or not config.certification.at_end:
        return
    reason = model.refusal()
    if reason is not None:
        raise ValueError(f"{reason}; to train without a certificate set certification.at_end false")
    method = config.certification.method
    if method != PRODUCT:
        if not isinstance(model, SlopeNetwork | SlopeResidualNetwork):
            raise ValueError(
                f"certification.method {method} is for the models cnn, mlp and slope_resnet, not "
                f"{config.model.name}: take product"
            )
        check_method(method, model.export())


def _facts(config: RunConfig, account: Account | None) -> list[tuple[str, str]]:
    """How the network was trained, for the report."""
    return generated_facts(config) + ([] if account is None else account.facts())


def _open_val(config: RunConfig, spec: str | None) -> BlockLoader:
    """The validation set."""
    if spec is None:
        raise ValueError("key 'data.val' is missing: add it to the file or give --data.val VALUE")
    return open_block_loader(spec, "val", config.model.image_size, config.data)


def _check_data(config: RunConfig, key: str, info: DatasetInfo) -> None:
    """Refuse images that the model does not take."""
    model = config.model
    wanted = (model.in_channels, model.image_size, model.image_size)
    if tuple(info.image_shape) != wanted:
        has, takes = ("x".join(map(str, shape)) for shape in (info.image_shape, wanted))
        raise ValueError(
            f"{key} {info.spec} has images of {has} (channels x height x width), and the model "
            f"takes {takes}: set model.in_channels and model.image_size"
        )
    if info.num_classes != model.num_classes:
        raise ValueError(
            f"{key} {info.spec} has {info.num_classes} classes, and model.num_classes is "
            f"{model.num_classes}"
        )
