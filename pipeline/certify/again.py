"""Certify the network of a certificate directory on other images or at other radii."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import config as configs
from pipeline import distributed
from pipeline.certify.certificate import Certificate, load_network, read_certificate
from pipeline.certify.whole_set import certify
from pipeline.config import DataConfig
from pipeline.data.base import BlockLoader
from pipeline.data.loader import open_block_loader


def certify_again(
    directory: Path,
    out_dir: Path,
    data: str | None = None,
    epsilons: Sequence[str | float] | None = None,
    force: bool = False,
    tight: bool | None = None,
) -> Certificate:
    """Certify the exported network of a certificate; no run directory is needed.

    Args:
        directory: a certificate directory.
        out_dir: another directory, for the new certificate.
        data: dataset spec; by default that of the old certificate.
        epsilons: by default those of the old certificate.
        force: replace a certificate of something else in `out_dir`.
        tight: norm bounds with at most one axis on a torus; by default as in the old one.

    Raises:
        ValueError: `directory` holds no intact certificate, `out_dir` is the same, the data set
            that it names is no longer what it was, or as `certify`.
    """
    old = read_certificate(directory)
    if out_dir.resolve() == directory.resolve():
        raise ValueError(f"{directory} is the certificate itself: name another folder with --out")
    network = load_network(directory)
    config = configs.load(directory / "config.yaml") if "num_classes" in old.model else None
    reading = DataConfig(classes=old.dataset.get("classes"))
    loader = open_block_loader(data or old.dataset["spec"], "val", old.input["shape"][1], reading)
    try:
        if data is None:
            with distributed.together():
                _check_content(old, loader)
        wanted = epsilons or old.epsilons
        tight = old.tight if tight is None else tight
        method = old.margins.get("method", "product")
        return certify(
            network, loader, wanted, out_dir, config=config, force=force, tight=tight, method=method
        )
    finally:
        loader.close()


def _check_content(old: Certificate, loader: BlockLoader) -> None:
    """Refuse a data set that has the name of the certified one and other images or labels."""
    found = loader.dataset_sha256()
    if found != old.dataset_sha256:
        raise ValueError(
            f"{old.dataset['spec']} is not the data set that {old.directory} names: its hash is "
            f"{found}, the certificate says {old.dataset_sha256}; name the data with --data"
        )
