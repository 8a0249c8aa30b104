"""PGD-10 of a finished run: not below what is proved, not above the clean accuracy, and kept."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.certify import read_certificate
from pipeline.models import build_model
from pipeline.sweep import empirical
from pipeline.sweep.empirical import pgd_accuracy
from tests.sweep.small import sweep
from tests.verify.test_certified import certified


def test_between_what_is_proved_and_what_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = build_model("liresnet", 10, 8, 1, depth=1, width=8, features=16).export()
    folder = certified(network, tmp_path / "run", 40)
    config = sweep(tmp_path).runs[0].config
    data = config.data.model_copy(update={"val": f"npz:{folder / 'data.npz'}"})
    config = config.model_copy(update={"output": str(tmp_path), "name": "run", "data": data})
    run: Any = SimpleNamespace(config=config, certificate=folder / "certificate")
    found = pgd_accuracy(run, 40)
    certificate = read_certificate(folder / "certificate")
    assert list(found) == certificate.epsilons
    for epsilon, accuracy in found.items():
        assert certificate.vra[epsilon] <= accuracy <= certificate.clean_accuracy
    assert min(found.values()) < certificate.clean_accuracy, "the attack does something"
    kept = json.loads((tmp_path / "run" / "pgd.json").read_text())
    assert kept["accuracy"] == found and kept["images"] == 40
    monkeypatch.setattr(empirical, "_attacked", lambda run, images: {"fresh": float(images)})
    assert pgd_accuracy(run, 40) == found
    assert pgd_accuracy(run, 12) == {"fresh": 12.0}
    again = certificate.__class__(**{**vars(certificate), "epsilons": ["1.0"]})
    monkeypatch.setattr(empirical, "read_certificate", lambda folder: again)
    monkeypatch.setattr(empirical, "_attacked", lambda run, images: {"1.0": 0.5})
    assert pgd_accuracy(run, 12) == {"1.0": 0.5}, "certified again, at others"
