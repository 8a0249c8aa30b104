"""From finished blocks to a Certificate and its directory; rank 0 does this once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.certify.block_store import BlockStore, write_atomically
from pipeline.certify.certificate import (
    CLAIM,
    CLAIM_FLOAT,
    FORMAT,
    INPUT_SPACE,
    STATEMENT,
    Certificate,
)
from pipeline.certify.lipschitz_certifier import LipschitzCertifier
from pipeline.certify.unsound import UnsoundReference
from pipeline.certify.verdicts import read_rows
from pipeline.certify.writer import write_config, write_images, write_report
from pipeline.config import RunConfig
from pipeline.data.base import BlockLoader, DatasetInfo
from pipeline.types import Epsilon


@dataclass(frozen=True)
class Subject:
    """What is certified, on what, with what."""

    model_section: dict[str, Any]
    """`name` and options, for certificate.json."""
    config: dict[str, Any]
    """The tree of config.yaml."""
    weights: bytes
    """The bytes of model.safetensors."""
    weights_sha256: str
    dataset: DatasetInfo
    dataset_sha256: str
    epsilons: list[Epsilon]
    versions: dict[str, str]
    device: str
    tight: bool
    training: Sequence[tuple[str, str]] = ()
    """How the network was trained, for report.html alone: names and values."""


def describe_model(
    model: object, config: RunConfig | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model section and the whole tree of config.yaml; the class's name without a config."""
    if config is None:
        section: dict[str, Any] = {"name": type(model).__name__}
        return section, {"model": section}
    tree = config.model_dump(mode="json")
    return tree["model"], tree


def assemble(
    subject: Subject,
    certifier: LipschitzCertifier,
    estimates: Sequence[float],
    reference: UnsoundReference,
    store: BlockStore,
    loader: BlockLoader,
    out_dir: Path,
    seconds: dict[str, float],
) -> Certificate:
    """Write the certificate directory from the blocks of `store`; certificate.json comes last.

    Args:
        subject: what was certified.
        certifier: its network and bounds.
        estimates: power iteration of each layer, for the comparison.
        reference: what the scores in the blocks mean.
        store: holds all blocks.
        loader: the images, of which the report shows some.
        out_dir: the certificate directory.
        seconds: what the parts of the work took.
    """
    parts = [store.read(block) for block in range(loader.num_blocks)]
    rows = [row for block_rows, _ in parts for row in block_rows]
    verdicts = read_rows(rows)
    lipschitz_unsound = math.prod(estimates)
    unsound = reference.radii(np.concatenate([scores for _, scores in parts]), lipschitz_unsound)
    network, epsilons = certifier.network, subject.epsilons
    classes = network.head.num_classes
    write_atomically(out_dir / "model.safetensors", subject.weights)
    certificate = Certificate(
        directory=out_dir,
        format=FORMAT,
        statement=STATEMENT,
        claim=CLAIM,
        claim_float=CLAIM_FLOAT,
        num_images=len(verdicts),
        num_classes=classes,
        class_names=_class_names(subject.dataset, classes),
        clean_accuracy=verdicts.clean_accuracy,
        vra={epsilon.text: verdicts.vra(epsilon) for epsilon in epsilons},
        vra_float={epsilon.text: verdicts.vra_float(epsilon) for epsilon in epsilons},
        vra_unsound={
            epsilon.text: float((unsound > float(epsilon)).mean()) for epsilon in epsilons
        },
        epsilons=[epsilon.text for epsilon in epsilons],
        input={"shape": list(network.input_shape), "space": INPUT_SPACE},
        lipschitz_bound=certifier.lipschitz_bound,
        lipschitz_unsound=lipschitz_unsound,
        tight=subject.tight,
        layers=[
            {**record, "bound": bound.value, "method": bound.method, "evidence": bound.evidence}
            for record, bound in zip(network.records(), certifier.bounds, strict=True)
        ],
        head={
            "weight": "head.weight",
            "bias": "head.bias",
            "max_margin_lipschitz": float(certifier.margin_lipschitz.max()),
        },
        model=subject.model_section,
        weights_sha256=subject.weights_sha256,
        dataset_sha256=subject.dataset_sha256,
        dataset=describe_dataset(subject.dataset),
        files={
            "model.safetensors": subject.weights_sha256,
            "config.yaml": write_config(out_dir, subject.config),
            "images.tsv": write_images(out_dir, rows),
        },
        versions=subject.versions,
        device=subject.device,
        seconds=seconds,
        margins=certifier.margin_evidence(),
    )
    write_report(certificate, verdicts, unsound, loader, subject.training)
    store.clear()
    return certificate


def describe_dataset(info: DatasetInfo) -> dict[str, Any]:
    """`dataset` of certificate.json; `classes` only where some of the classes were taken."""
    record: dict[str, Any] = {"spec": info.spec, "num_samples": info.num_samples}
    return record if info.classes is None else {**record, "classes": list(info.classes)}


def _class_names(info: DatasetInfo, classes: int) -> list[str]:
    """A name for each output of the head; numbers where the data set has fewer."""
    return [*info.class_names, *map(str, range(len(info.class_names), classes))]
