"""The task ddpm_train: restored anywhere, it ends with the bits of the undisturbed run."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pipeline import config, run
from pipeline.diffusion.network import build_denoiser
from pipeline.diffusion.train import AVERAGE
from tests.diffusion.tiny import settings
from tests.training.test_resume import final


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = settings(tmp_path_factory.mktemp("undisturbed"))
    assert run.main(chosen).finished
    return chosen.directory


@pytest.mark.parametrize("step", [1, 2, 3])
def test_restored_at_every_step(undisturbed: Path, tmp_path: Path, step: int) -> None:
    chosen = settings(tmp_path)
    name = f"step_{step:06d}"
    shutil.copytree(undisturbed / "checkpoints" / name, chosen.directory / "checkpoints" / name)
    config.save(chosen, chosen.directory / "config.yaml")
    shutil.copy(undisturbed / "metrics.jsonl", chosen.directory / "metrics.jsonl")
    torch.manual_seed(12345)  # a restarted process has another random state
    assert run.main(chosen).finished
    (mine, my_rows), (whole, rows) = final(chosen.directory), final(undisturbed)
    assert mine.step == whole.step == 4
    for part in ("model", "optimizer", AVERAGE):
        assert mine.tensors.names(part) == whole.tensors.names(part)
        for label, tensor in whole.tensors.part(part).items():
            assert torch.equal(mine.tensors.whole(part, label), tensor), f"{part}/{label}"
    assert my_rows == rows


def test_what_is_logged(undisturbed: Path) -> None:
    _, rows = final(undisturbed)
    steps = [row for row in rows if row["kind"] == "step"]
    assert len(steps) == 4 and steps[-1]["mse"] < steps[0]["mse"]
    assert not {"clean_accuracy", "lipschitz", "epsilon"} & set(steps[0])
    facts = json.loads((undisturbed / "training_data.json").read_text())
    assert facts["num_samples"] == 1437 and len(facts["dataset_sha256"]) == 64


def test_the_average_is_not_the_weights(undisturbed: Path) -> None:
    checkpoint, _ = final(undisturbed)
    names = [name for name in checkpoint.tensors.names("model") if name.endswith("weight")]
    differ = [
        not torch.equal(checkpoint.tensors.whole("model", n), checkpoint.tensors.whole(AVERAGE, n))
        for n in names
    ]
    assert all(differ)


def test_deepspeed_trains_it_too(undisturbed: Path, tmp_path: Path) -> None:
    chosen = settings(tmp_path, engine="deepspeed", deepspeed={"stage": 1})
    assert run.main(chosen).finished
    _, rows = final(chosen.directory)
    expected = [row["loss"] for row in final(undisturbed)[1] if row["kind"] == "step"]
    found = [row["loss"] for row in rows if row["kind"] == "step"]
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"engine": "deepspeed", "deepspeed": {"stage": 3}}, "stage is 3"),
        ({"data": {"train": None}}, "key 'data.train' is missing"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run.main(settings(tmp_path, **changes))


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("name", "liresnet", "has one network: unet"),
        ("width", 3, "no option 'width'"),
        ("multipliers", [1, 1, 1, 1, 1], "images of 8 pixels cannot be halved 4 times"),
        ("patch", 3, "model.patch 3 does not divide images of 8 pixels"),
        ("head_channels", 3, "take a divisor"),
        ("channels", "many", "expected a number above 0"),
        ("dropout", 1.5, "a share from 0"),
    ],
)
def test_networks_that_cannot_be(option: str, value: object, sentence: str) -> None:
    model = settings(Path("x")).model.model_dump() | {option: value}
    with pytest.raises(ValueError, match=sentence):
        build_denoiser(config.ModelConfig(**model))
