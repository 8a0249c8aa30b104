"""certify: from a model and a data set to a certificate directory, on one process or many."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors.numpy import save as safetensors_bytes
from torch import nn

from pipeline import distributed
from pipeline.certify.arithmetic import SLICE, default_threads, device_name
from pipeline.certify.assembly import Subject, assemble, describe_model
from pipeline.certify.block_store import BlockStore
from pipeline.certify.blocks import WholeSetPass
from pipeline.certify.bound_store import BoundStore
from pipeline.certify.bounds import estimate_norms, prove_bounds
from pipeline.certify.certificate import Certificate, read_certificate
from pipeline.certify.images import check_exact_images
from pipeline.certify.liplt_products import prove_products
from pipeline.certify.lipschitz_certifier import exported
from pipeline.certify.methods import (
    LIPLT,
    PRODUCT,
    build_certifier,
    build_reference,
    check_method,
    prove_margins,
)
from pipeline.certify.probe import check_matrix_product
from pipeline.certify.reporting.tables import text_table
from pipeline.certify.writer import remove_certificate
from pipeline.config import RunConfig
from pipeline.data.base import BLOCK, BlockLoader
from pipeline.distributed import on_main, together
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.device import proofs_on
from pipeline.progress import say
from pipeline.types import Epsilon


def certify(
    model: nn.Module | ExportedNetwork,
    loader: BlockLoader,
    epsilons: Sequence[str | float],
    out_dir: Path,
    *,
    config: RunConfig | None = None,
    threads: int | None = None,
    tight: bool = False,
    force: bool = False,
    leave_if_asked: Callable[[], None] = lambda: None,
    training: Sequence[tuple[str, str]] = (),
    method: str | None = None,
) -> Certificate:
    """Certify every image of a data set and write the certificate directory.

    What a certificate proves is stated at `LipschitzCertifier.certify` and in docs/certificate.md.
    With several processes every one calls this; they share the layers' bounds and the blocks of
    images, and rank 0 writes. A killed call goes on from the blocks that it finished when it is
    repeated. images.tsv is the same bytes, time column apart, for any number of threads and
    processes. A certificate of the same network, data and epsilons that is already there is
    returned as it is.

    Args:
        model: a model with `export()`, or an exported network.
        loader: exact uint8 images in blocks (`pipeline.data.loader.open_block_loader`).
        epsilons: l2 radii such as "36/255" or 0.25, in the space of the stored image.
        out_dir: the certificate directory; made if missing.
        config: the run, for `config.yaml` and the `model` section of certificate.json.
        threads: blocks at a time in this process; by default the cores it may use, 1 on a GPU.
        tight: prove norms with at most one axis of a convolution on a torus: within 0.1 percent,
            and slower (`pipeline.lipschitz.tight`).
        force: replace a certificate of something else.
        leave_if_asked: called between layers and between blocks, which are stored by then; leaves
            by raising what is no `Exception`, such as StopRequestedError.
        training: how the network was trained, names and values, for report.html alone.
        method: how margins are proved, of `pipeline.certify.methods`; by default the config's.

    Returns:
        The certificate; equal on every rank.

    Raises:
        ValueError: data that is not exact or does not fit the network, a network without finite
            bounds, another certificate in `out_dir`; one sentence each.
        RuntimeError: another rank failed, or the device's matrix product is not conventional.
    """
    began = time.perf_counter()
    world = distributed.start()
    device = distributed.local_device(world)
    wanted = list(dict.fromkeys(Epsilon.parse(value) for value in epsilons))
    if not wanted:
        raise ValueError('no epsilon to certify at: give at least one, such as "36/255"')
    network = exported(model)
    method = method or (config.certification.method if config is not None else PRODUCT)
    check_method(method, network)
    check_exact_images(network, loader.info)
    weights = safetensors_bytes(network.tensors())
    weights_sha256 = hashlib.sha256(weights).hexdigest()
    if len(set(distributed.gather_objects(weights_sha256))) > 1:
        raise ValueError("the ranks hold different weights: load the same checkpoint on all")
    dataset_sha256 = on_main(loader.dataset_sha256)
    already = on_main(
        lambda: _existing(
            out_dir, network, weights_sha256, dataset_sha256, wanted, tight, method, force
        ),
    )
    if already is not None:
        say(f"{text_table(already)}\nalready certified: {out_dir / 'report.html'}")
        return already
    with together():
        check_matrix_product(device)
    key = _digest([weights_sha256, _versions(), network.records(), tight])
    proved, kept = (BoundStore(out_dir / folder, key) for folder in ("bounds", "products"))
    with proofs_on(device if device.type == "cuda" else None):
        bounds = prove_bounds(network, world, leave_if_asked, proved, tight)
    estimates = estimate_norms(network, world, leave_if_asked)
    products = prove_products(network, world, leave_if_asked, kept) if method == LIPLT else None
    claims = on_main(lambda: prove_margins(method, network, bounds, products))
    certifier = build_certifier(method, network, bounds, claims, device)
    bounded = time.perf_counter()
    section, tree = describe_model(model, config)
    subject = Subject(
        model_section=section,
        config=tree,
        weights=weights,
        weights_sha256=weights_sha256,
        dataset=loader.info,
        dataset_sha256=dataset_sha256,
        epsilons=wanted,
        versions=_versions(),
        device=device_name(device),
        tight=tight,
        training=training,
    )
    store = BlockStore(out_dir / "blocks", _fingerprint(subject, network, bounds, method))
    unsound = build_reference(method, network, claims, device)
    work = WholeSetPass(certifier, unsound, loader, store, wanted[0], leave_if_asked)
    work.run(world, threads or default_threads(world, device))
    finished = time.perf_counter()

    seconds = {"bounds": round(bounded - began, 3), "images": round(finished - bounded, 3)}
    certificate = on_main(
        lambda: assemble(subject, certifier, estimates, unsound, store, loader, out_dir, seconds),
    )
    if world.is_main:
        proved.clear()
        kept.clear()
    say(f"{text_table(certificate)}\nreport: {out_dir / 'report.html'}")
    return certificate


def _existing(
    out_dir: Path,
    network: ExportedNetwork,
    weights: str,
    dataset: str,
    epsilons: Sequence[Epsilon],
    tight: bool,
    method: str,
    force: bool,
) -> Certificate | None:
    """The same certificate if it is there; None if the way is free.

    The tensors alone are not the function: stride, padding and center stand in the records.
    """
    if not (out_dir / "certificate.json").exists():
        return None
    if force:
        remove_certificate(out_dir)
        return None
    old = read_certificate(out_dir)
    records = network.records()
    same_function = (
        old.weights_sha256 == weights
        and old.margins.get("method", PRODUCT) == method
        and len(old.layers) == len(records)
        and all(layer | record == layer for layer, record in zip(old.layers, records, strict=True))
    )
    if same_function and (old.dataset_sha256, old.epsilons, old.tight) == (
        dataset,
        [epsilon.text for epsilon in epsilons],
        tight,
    ):
        return old
    raise ValueError(
        f"{out_dir} holds the certificate of another network, data set or list of epsilons, or one "
        "with other bounds (--tight): name another folder with --out, or replace it with --force"
    )


def _fingerprint(
    subject: Subject, network: ExportedNetwork, bounds: Sequence[NormBound], method: str
) -> str:
    """Digest of all that the rows of a block depend on."""
    return _digest(
        [
            [subject.weights_sha256, subject.dataset_sha256, subject.versions, subject.device],
            network.records(),
            [bound.value for bound in bounds],
            [BLOCK, SLICE],
            *([] if method == PRODUCT else [method]),
        ]
    )


def _digest(facts: list[Any]) -> str:
    """sha256 of plain JSON values."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _versions() -> dict[str, str]:
    """Versions of what computes."""
    versions = {"python": platform.python_version()}
    for package in ("certline", "torch", "numpy", "safetensors"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # certline itself, run from a checkout that is not installed
    return versions
