"""Smooths the network of a certificate over a data set, or over a part of it.

Notable:
- Each finished row is on disk; a killed pass goes on where it was when it is repeated.
- The base classifier runs in float32, as the field's do: nothing here is a proof.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline import distributed
from pipeline.certify.arithmetic import default_threads, device_name
from pipeline.certify.certificate import (
    Certificate,
    certificate_in,
    load_network,
    read_certificate,
)
from pipeline.certify.images import check_images
from pipeline.certify.smoothing.record import (
    CLAIM,
    FORMAT,
    RECORD,
    TABLE,
    Record,
    RowStore,
    parse_rows,
    read_record,
    write_record,
    write_table,
)
from pipeline.certify.smoothing.sampling import SmoothingPass
from pipeline.certify.smoothing.smoothed import ABSTAIN, Settings
from pipeline.config import DataConfig
from pipeline.data.loader import open_block_loader
from pipeline.progress import say
from pipeline.types import Epsilon


def smooth(
    directory: Path,
    out_dir: Path,
    settings: Settings,
    data: str | None = None,
    epsilons: Sequence[str] | None = None,
    images: int | None = None,
    every: int = 1,
    threads: int | None = None,
    force: bool = False,
    leave_if_asked: Callable[[], None] = lambda: None,
) -> Record:
    """Certify images by randomized smoothing of a network; writes smoothing.json and images.tsv.

    Every process of a launch calls this; they share the images, and rank 0 writes the tables.

    Args:
        directory: a certificate directory, or a run with one in `certificate/`.
        out_dir: made if missing.
        settings: σ, N, N0, α, seed.
        data: dataset spec; by default that of the certificate.
        epsilons: radii to report; by default those of the certificate.
        images: at most so many.
        every: take each so many-th image, as Cohen et al. do.
        threads: images at a time in this process; by default its share of the cores, 1 on a GPU.
        force: replace a finished pass with other settings.
        leave_if_asked: called whenever a row is stored; leaves by raising what is no `Exception`.

    Returns:
        What smoothing.json holds; equal on every rank.

    Raises:
        ValueError: no certificate there, images that the network does not take, an option out of
            range, or another finished pass in `out_dir`.
        RuntimeError: another rank failed.
    """
    world = distributed.start()
    device = distributed.local_device(world)
    if min(every, 1 if images is None else images) < 1:
        raise ValueError("--images and --every must be at least 1")
    directory = certificate_in(directory)
    base, network = read_certificate(directory), load_network(directory)
    wanted = [Epsilon.parse(text) for text in epsilons or base.epsilons]
    reading = DataConfig(classes=base.dataset.get("classes"))
    with distributed.together():
        spec = data or base.dataset["spec"]
        loader = open_block_loader(spec, "val", base.input["shape"][1], reading)
        check_images(network, loader.info)
    try:
        chosen = list(range(0, loader.info.num_samples, every))[:images]
        facts = Facts(base, spec, distributed.on_main(loader.dataset_sha256), device_name(device))
        finished = distributed.on_main(
            lambda: _finished(out_dir, settings, facts, chosen, every, wanted, force)
        )
        if finished is not None:
            say(f"{text_table(finished)}\nalready done: {out_dir}")
            return finished
        store = RowStore(out_dir / "rows", facts.key(settings))
        work = SmoothingPass(network, loader, settings, store, device, leave_if_asked)
        work.run(world, chosen, threads or default_threads(world, device))
    finally:
        loader.close()
    record = distributed.on_main(
        lambda: _write(out_dir, settings, facts, chosen, every, wanted, store)
    )
    say(f"{text_table(record)}\nrows: {out_dir / TABLE}")
    return record


@dataclass(frozen=True)
class Facts:
    """What rows depend on beside the settings."""

    base: Certificate
    spec: str
    dataset_sha256: str
    device: str

    def key(self, settings: Settings) -> str:
        """Digest of everything that a row depends on."""
        facts = [
            asdict(settings),
            self.base.weights_sha256,
            self.base.layers,
            self.dataset_sha256,
            self.device,
            torch.__version__,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def text_table(record: Record) -> str:
    """What is printed at the end."""
    lines = [
        f"randomized smoothing of {record.num_images:,} images, sigma {record.sigma:g}, "
        f"{record.samples:,} samples each: accuracy {record.accuracy:.2%}, abstained "
        f"{record.abstained:.2%}, {record.seconds_per_image:.3g} s an image",
        *(f"  {text:<10}{share:>8.2%}" for text, share in record.certified.items()),
        f"PROBABILISTIC: each radius is wrong with probability up to {record.alpha:g}; no proof",
    ]
    return "\n".join(lines)


def _finished(
    out_dir: Path,
    settings: Settings,
    facts: Facts,
    chosen: Sequence[int],
    every: int,
    epsilons: Sequence[Epsilon],
    force: bool,
) -> Record | None:
    """The same pass if it is done; None if there is something to do."""
    if force or not (out_dir / RECORD).exists():
        return None
    old, _ = read_record(out_dir)
    new = _facts_of_record(settings, facts, chosen, every, epsilons)
    if all(getattr(old, key) == value for key, value in new.items()):
        return old
    raise ValueError(
        f"{out_dir} holds the smoothing of another network, data set or with other options: name "
        "another folder with --out, or replace it with --force"
    )


def _facts_of_record(
    settings: Settings,
    facts: Facts,
    chosen: Sequence[int],
    every: int,
    epsilons: Sequence[Epsilon],
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "claim": CLAIM,
        **asdict(settings),
        "num_images": len(chosen),
        "every": every,
        "epsilons": [epsilon.text for epsilon in epsilons],
        "dataset": facts.spec,
        "dataset_sha256": facts.dataset_sha256,
        "weights_sha256": facts.base.weights_sha256,
        "base": facts.base.model,
        "device": facts.device,
    }


def _write(
    out_dir: Path,
    settings: Settings,
    facts: Facts,
    chosen: Sequence[int],
    every: int,
    epsilons: Sequence[Epsilon],
    store: RowStore,
) -> Record:
    """Assemble images.tsv and smoothing.json from the stored rows."""
    lines = [line for index in chosen if (line := store.read(index)) is not None]
    assert len(lines) == len(chosen)
    rows = parse_rows(lines)
    record = Record(
        **_facts_of_record(settings, facts, chosen, every, epsilons),
        accuracy=float(rows.correct.mean()),
        abstained=float((rows.predict == ABSTAIN).mean()),
        certified={epsilon.text: rows.certified(epsilon) for epsilon in epsilons},
        seconds_per_image=float(rows.seconds.mean()),
        versions={"torch": torch.__version__},
        files={TABLE: write_table(out_dir, lines)},
    )
    write_record(out_dir, record)
    store.clear()
    return record
