"""PGD-10 accuracy of the runs of a sweep: what an attack leaves, beside what is proved.

Notable: one run of PGD with 10 steps and cross-entropy, as in the figures of the papers (CPL,
Figure 2). It is an upper bound of robust accuracy and a weak one; `tools/attack.py` tries harder,
and checks every fall exactly. Kept in `pgd.json` in the run's directory.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from pipeline.certify import read_certificate
from pipeline.certify.arithmetic import conventional_arithmetic
from pipeline.certify.attacks.assault import Assault, Settings
from pipeline.certify.block_store import write_atomically
from pipeline.certify.certificate import load_network
from pipeline.certify.verdicts import read_rows
from pipeline.data.loader import open_block_loader
from pipeline.data.spread import images_at, spread
from pipeline.sweep.plan import Run
from pipeline.types import Epsilon


def pgd_accuracy(run: Run, images: int) -> dict[str, float]:
    """Share of images that are classified right and stay so under PGD-10.

    Args:
        run: finished.
        images: how many, spread evenly over the set; fewer where the data has fewer.

    Returns:
        By epsilon of the certificate, as written.

    Raises:
        ValueError: the certificate is not intact, or its data is no longer there.
    """
    kept = run.config.directory / "pgd.json"
    certificate = read_certificate(run.certificate)
    key: dict[str, Any] = {
        "weights_sha256": certificate.weights_sha256,
        "epsilons": certificate.epsilons,
        "images": images,
        "spread": True,
    }
    if kept.is_file():
        stored = json.loads(kept.read_text())
        if {name: stored.get(name) for name in key} == key:
            return dict(stored["accuracy"])
    accuracy = _attacked(run, images)
    write_atomically(kept, json.dumps({**key, "accuracy": accuracy}, indent=1) + "\n")
    return accuracy


def _attacked(run: Run, images: int) -> dict[str, float]:
    """See `pgd_accuracy`."""
    certificate, network = read_certificate(run.certificate), load_network(run.certificate)
    rows = read_rows((run.certificate / "images.tsv").read_text().splitlines()[1:])
    spec = run.config.data.val
    assert spec is not None, "a finished run has been validated"
    loader = open_block_loader(spec, "val", run.config.model.image_size, run.config.data)
    try:
        chosen = spread(images, loader.info.num_samples)
        pixels, labels = images_at(loader, chosen)
    finally:
        loader.close()
    right = torch.as_tensor(rows.correct[chosen], dtype=torch.bool)
    share = float(right.double().mean())
    with conventional_arithmetic():
        assault = Assault(network, pixels[right], labels[right], Settings())
        return {
            text: share * assault.pgd10(float(Epsilon.parse(text))) for text in certificate.epsilons
        }
