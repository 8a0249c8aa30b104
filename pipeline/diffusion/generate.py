"""The task `ddpm_sample`: from a generator's run to a file of labelled samples and its data card.

Notable:
- Killed at any moment, the same call goes on: batches that are drawn stay, the file is written
  beside and renamed. More samples of the same settings repeat those that there were.
- The file is written by rank 0 in a thread, while all ranks meet every few seconds: however long it
  takes, nobody waits longer in a collective.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pipeline import config as configs
from pipeline import distributed
from pipeline.checkpoint import load_chosen, load_model
from pipeline.config import RunConfig, SamplingConfig, checked
from pipeline.data.betons.files import read_card
from pipeline.data.betons.storage import storage_of
from pipeline.data.betons.write import check_out, write_source
from pipeline.data.sources import Source
from pipeline.diffusion.average import UPDATES
from pipeline.diffusion.choice import Choice
from pipeline.diffusion.classifier import Judge, weights_sha256
from pipeline.diffusion.draw import Draw
from pipeline.diffusion.network import Denoiser, build_denoiser
from pipeline.diffusion.npz import ForeignSamples, write_npz
from pipeline.diffusion.provenance import RealImages, similarity
from pipeline.diffusion.sampler import Sampler, Settings
from pipeline.diffusion.source import DrawnSource
from pipeline.diffusion.store import DrawnBatches
from pipeline.diffusion.train import AVERAGE, check_guidance
from pipeline.diffusion.training_data import TrainingData
from pipeline.progress import say
from pipeline.training.determinism import make_deterministic


def sampling_of(run: Path, given: Mapping[str, Any]) -> SamplingConfig:
    """The section `sampling` of a run's own config, with what is given in its place.

    Args:
        run: directory of a run; of one without a config the defaults are taken.
        given: keys of the section, as a command line has them.

    Raises:
        ValueError: a value is out of range, or the run's config cannot be read.
    """
    file, usual = run / "config.yaml", SamplingConfig()
    if file.is_file():
        usual = configs.load(file).sampling
    return checked(SamplingConfig, usual.model_dump(exclude={"out", "force"}) | dict(given))


def generate(
    run: Path, sampling: SamplingConfig, leave_if_asked: Callable[[], None] = lambda: None
) -> dict[str, Any] | None:
    """Draw samples and write them. Every process of the launch calls it.

    Args:
        run: directory of a finished or unfinished run of the task `ddpm_train`.
        sampling: what to draw.
        leave_if_asked: called between pieces of work; leaves by raising what is no `Exception`.

    Returns:
        The data card, on rank 0.

    Raises:
        ValueError: no such run, settings that cannot be, a file that is there already.
    """
    world = distributed.start()
    device = distributed.local_device(world)
    with distributed.together():
        out = check_target(run, sampling)
        config, trained_on = _run_of_generator(run)
        check_guidance(config, "sampling.guidance", sampling.guidance)
    store = DrawnBatches(out)
    there = distributed.on_main(lambda: _finished(run, sampling))
    if there is not None:
        if world.is_main:
            store.clear()
        return there if world.is_main else None
    make_deterministic(sampling.seed)
    network, checkpoint = load_network(run, config, sampling.checkpoint, device)
    settings = Settings(
        config.diffusion.timesteps,
        sampling.steps,
        sampling.sampler,
        sampling.guidance,
        sampling.seed,
        sampling.precision == "bf16" or (sampling.precision == "auto" and device.type == "cuda"),
        config.diffusion.prediction,
    )
    sampler = Sampler(network, settings, device, sampling.compile)
    judge = _filter(sampling, trained_on, device)
    facts: dict[str, Any] = {
        "generator": str(run),
        "checkpoint": checkpoint,
        "weights_sha256": weights_sha256(network),
        "training_data": trained_on.on_card(),
        "drawn": asdict(settings)
        | {"batch_size": sampling.batch_size, "compile": sampling.compile},
        "filter": None if judge is None else _filter_facts(sampling, judge),
        "versions": {name: metadata.version(name) for name in ("torch", "diffusers")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
    with ExitStack() as stack:
        real: RealImages | None = None
        if sampling.nearest:
            with distributed.together():  # what is missing on one node
                real = RealImages(config, trained_on)
                stack.callback(real.close)
        with distributed.together():
            if world.is_main:
                out.parent.mkdir(parents=True, exist_ok=True)
                store.claim(_identity(facts), sampling.force)
        begins = distributed.on_main(lambda: bool(store.missing(1)))
        if real is not None and begins:
            real.check(leave_if_asked)
        began = time.monotonic()
        choice = Draw(
            sampler,
            store,
            sampling.count,
            sampling.batch_size,
            network.num_classes,
            judge,
            None if sampling.filter is None else sampling.filter.confidence,
            leave_if_asked,
        ).run(world)
        say(f"drew {sampling.count:,} samples, {time.monotonic() - began:.0f} s in this start")
        _report_filter(choice)
        names, all_settings = trained_on.class_names, facts["drawn"] | facts
        source = DrawnSource(store, sampling.batch_size, choice.indices, names, all_settings)
        facts |= {"dropped_by_filter": choice.dropped, "asked": _asked(sampling)}
        if real is not None:
            picture = out.with_name(out.name + ".pairs.png")
            facts["similarity"] = similarity(
                source, real, sampling.nearest, device, world, picture, leave_if_asked
            )
    card = distributed.together_while(
        lambda: _write(source, f"ddpm:{run}", out, facts), leave_if_asked
    )
    if world.is_main:
        store.clear()
    return card


def convert(
    npz: Path,
    run: Path,
    out: Path,
    classifier: Path | None,
    force: bool,
    leave_if_asked: Callable[[], None] = lambda: None,
) -> None:
    """Write somebody else's samples, an .npz with `image` and `label`, as a .beton. Rank 0 does.

    Args:
        run: of a generator on the same data, for its classes and size.
        classifier: run directory of one that checks the order of the classes.
        leave_if_asked: as in `generate`.

    Raises:
        ValueError: as `ForeignSamples`, or the file is there.
    """
    world = distributed.start()
    device = distributed.local_device(world)
    with distributed.together():
        check_out(out, force)
        _, trained_on = _run_of_generator(run)
    channels, height, width = trained_on.image_shape
    shape = (channels, height, width)
    judge = None if classifier is None else Judge(classifier, device)
    if judge is not None:
        judge.check(shape, trained_on.class_names)

    def work() -> None:
        source = ForeignSamples(npz, trained_on.class_names, shape, judge)
        write_source(source, f"npz:{npz}", "train", storage_of("exact"), out)

    distributed.together_while(work, leave_if_asked)


def check_target(run: Path, sampling: SamplingConfig) -> Path:
    """The file to be, or one that is there from this very draw, killed before its end.

    Raises:
        ValueError: none is named, it has another ending, or it is there.
    """
    if sampling.out is None:
        raise ValueError("key 'sampling.out' is missing: give a .beton or .npz file")
    out = Path(sampling.out)
    if out.suffix not in (".beton", ".npz"):
        raise ValueError(f"--out {out} must end in .beton or .npz")
    if out.exists() and not sampling.force and _finished(run, sampling) is None:
        raise ValueError(f"{out} exists: give --force to replace it, or another --out")
    return out


def load_network(
    run: Path, config: RunConfig, checkpoint: str, device: torch.device
) -> tuple[Denoiser, int]:
    """The network with its averaged weights, and the step that they are of. A collective.

    Raises:
        ValueError: no such checkpoint, or none of this generator.
    """
    network = build_denoiser(config.model)
    chosen = load_chosen(run / "checkpoints", checkpoint, say)
    load_model(chosen.tensors, network, AVERAGE, besides={UPDATES})
    say(f"drawing from {run} as it was after step {chosen.step}")
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval(), chosen.step


def _run_of_generator(run: Path) -> tuple[RunConfig, TrainingData]:
    trained_on = TrainingData.read(run)
    return configs.load(run / "config.yaml"), trained_on


def _filter(
    sampling: SamplingConfig, trained_on: TrainingData, device: torch.device
) -> Judge | None:
    if sampling.filter is None:
        return None
    judge = Judge(Path(sampling.filter.classifier), device)
    judge.check(trained_on.image_shape, trained_on.class_names)
    return judge


def _filter_facts(sampling: SamplingConfig, judge: Judge) -> dict[str, Any]:
    assert sampling.filter is not None
    return {
        "classifier": judge.name,
        "weights_sha256": judge.weights_sha256,
        "confidence": sampling.filter.confidence,
    }


def _identity(facts: dict[str, Any]) -> dict[str, Any]:
    """All that the drawn batches depend on; the confidence that is asked for is not among it."""
    judge = None if facts["filter"] is None else facts["filter"]["weights_sha256"]
    kept = ("weights_sha256", "versions", "device")
    return {key: facts[key] for key in kept} | facts["drawn"] | {"classifier_sha256": judge}


def _asked(sampling: SamplingConfig) -> dict[str, Any]:
    """What was asked for, but for the place."""
    return sampling.model_dump(mode="json", exclude={"out", "force"})


def _finished(run: Path, sampling: SamplingConfig) -> dict[str, Any] | None:
    """The card of a file that is whole, where the draw was killed before its folder was gone."""
    out = Path(sampling.out or "")
    if sampling.force or not (out.is_file() and DrawnBatches(out).folder.is_dir()):
        return None
    card = read_card(out)
    same = card.get("generator") == str(run) and card.get("asked") == _asked(sampling)
    return card if same else None


def _report_filter(choice: Choice) -> None:
    if choice.dropped:
        tried = choice.dropped + len(choice.indices)
        say(f"the filter dropped {choice.dropped:,} of {tried:,} ({choice.dropped / tried:.1%})")


def _write(source: Source, spec: str, out: Path, facts: dict[str, Any]) -> dict[str, Any]:
    if out.suffix == ".npz":
        return write_npz(source, spec, out, facts)
    return write_source(source, spec, "train", storage_of("exact"), out, facts=facts)
