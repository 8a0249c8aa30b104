"""Certify the network of a certificate directory on other images or at other radii."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import config as configs
from pipeline.certify.certificate import Certificate, load_network, read_certificate
from pipeline.certify.whole_set import certify
from pipeline.config import DataConfig
from pipeline.data.loader import open_block_loader


def certify_again(
    directory: Path,
    out_dir: Path,
    data: str | None = None,
    epsilons: Sequence[str | float] | None = None,
    force: bool = False,
) -> Certificate:
    """Certify the exported network of a certificate; no run directory is needed.

    Args:
        directory: a certificate directory.
        out_dir: another directory, for the new certificate.
        data: dataset spec; by default that of the old certificate.
        epsilons: by default those of the old certificate.
        force: replace a certificate of something else in `out_dir`.

    Raises:
        ValueError: `directory` holds no intact certificate, `out_dir` is the same, or as `certify`.
    """
    old = read_certificate(directory)
    if out_dir.resolve() == directory.resolve():
        raise ValueError(f"{directory} is the certificate itself: name another folder with --out")
    network = load_network(directory)
    config = configs.load(directory / "config.yaml") if "num_classes" in old.model else None
    reading = DataConfig(classes=old.dataset.get("classes"))
    loader = open_block_loader(data or old.dataset["spec"], "val", old.input["shape"][1], reading)
    try:
        wanted = epsilons or old.epsilons
        method = old.margins.get("method", "product")
        return certify(network, loader, wanted, out_dir, config=config, force=force, method=method)
    finally:
        loader.close()
