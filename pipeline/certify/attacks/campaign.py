"""Attack the certificate in a directory: read it, open its images, search, write attack.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.certify.arithmetic import conventional_arithmetic
from pipeline.certify.attacks.assault import Settings
from pipeline.certify.attacks.battery import battery
from pipeline.certify.attacks.report import write_attack
from pipeline.certify.certificate import load_network, read_certificate, table_lines
from pipeline.certify.verdicts import read_rows
from pipeline.config import DataConfig
from pipeline.data.loader import open_block_loader
from pipeline.data.spread import images_at, spread
from pipeline.progress import ProgressBar
from pipeline.types import Epsilon


def attack_certificate(
    directory: Path,
    data: str | None = None,
    images: int | None = None,
    epsilons: Sequence[str] | None = None,
    curve: Sequence[float] = (),
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Attack the images of a certificate; write attack.json and a section of its report.

    Args:
        directory: a certificate directory.
        data: dataset spec; by default that of the certificate.
        images: how many, spread evenly over the set; by default all.
        epsilons: by default those of the certificate.
        curve: distances of the PGD-10 curve.
        settings: how hard to try.

    Returns:
        What attack.json holds.

    Raises:
        ValueError: no intact certificate, or the data is not what was certified.
    """
    certificate = read_certificate(directory)
    network = load_network(directory)
    wanted = [Epsilon.parse(text) for text in epsilons or certificate.epsilons]
    rows = read_rows(table_lines(directory, certificate))
    if images is not None and images < 1:
        raise ValueError(f"--images {images}: at least 1 is needed")
    chosen = spread(len(rows) if images is None else images, len(rows))
    correct, radius = rows.correct[chosen], rows.radius[chosen]
    for distance in curve:
        if not 0 < distance < math.inf:
            raise ValueError(f"--curve {distance}: distances are numbers above 0")
    reading = DataConfig(classes=certificate.dataset.get("classes"))
    spec = data or certificate.dataset["spec"]
    loader = open_block_loader(spec, "val", certificate.input["shape"][1], reading)
    try:
        found = loader.dataset_sha256()
        if found != certificate.dataset_sha256:
            raise ValueError(
                f"{spec} is not the data set that was certified: its hash is {found}, the "
                f"certificate says {certificate.dataset_sha256}"
            )
        pixels, labels = images_at(loader, chosen)
    finally:
        loader.close()
    settings = settings or Settings()
    searches = 3 * (len(wanted) + 1) + len(curve)
    total = searches * int(correct.sum()) + len(network.layers)
    with conventional_arithmetic(), ProgressBar("attack", total=total, unit="img") as bar:
        result = battery(
            network, pixels, labels, correct, radius, wanted, curve,
            [layer["bound"] for layer in certificate.layers], settings,
            lambda what, done: bar.advance(done, search=what),
        )  # fmt: skip
    for fall in result["refuting"]:
        fall["index"] = chosen[fall["index"]]
    result["trunk"]["bound"] = certificate.lipschitz_bound
    result = {"weights_sha256": certificate.weights_sha256, **result}
    write_attack(directory, result)
    return result
