"""What a cluster job of a generator is asked before it queues."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline import config
from pipeline.diffusion.training_data import TrainingData
from pipeline.launchers.preflight import check_run
from tests.diffusion.tiny import settings

CLUSTER = {"gpus_per_node": 0}


def test_a_generator_that_can_train(tmp_path: Path) -> None:
    check_run(settings(tmp_path, cluster=CLUSTER))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"engine": "deepspeed", "deepspeed": {"stage": 3}}, "stage is 3"),
        ({"data": {"train": "digts"}}, "digts"),
        ({"model": {"name": "liresnet", "num_classes": 10, "image_size": 8}}, "one network: unet"),
        ({"training": {"batch_size": 7}, "cluster": {**CLUSTER, "nodes": 2}}, "take 6 or 8"),
        (
            {"training": {"warmup_epochs": 3, "steps": 5, "batch_size": 700}},
            r"warmup_epochs 3 must be smaller than training\.steps 5",
        ),
        ({"diffusion": {"monitor": {"classifier": "lost"}}}, "classifier lost is no run directory"),
        ({"diffusion": {"class_dropout": 0, "monitor": {"guidance": 2}}}, "class_dropout is 0"),
        ({"task": "ddpm_sample"}, r"sampling\.out"),
        ({"task": "ddpm_sample", "sampling": {"out": "x.beton"}}, "holds no generator"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, changes: dict, sentence: str) -> None:
    given = {"cluster": CLUSTER, **changes}
    with pytest.raises(ValueError, match=sentence):
        check_run(settings(tmp_path, **given))


@pytest.mark.parametrize(
    ("sampling", "sentence"),
    [
        ({}, "lost.npz"),
        ({"nearest": 0, "filter": {"classifier": "lost"}}, "classifier lost is no run directory"),
        ({"nearest": 0, "guidance": 2}, "class_dropout is 0"),
        ({"nearest": 0, "steps": 40}, "take 38 or less"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, sampling: dict, sentence: str) -> None:
    of_run = {"data": {"train": "digits", "val": "npz:lost.npz"}}
    of_run |= {"diffusion": {"timesteps": 40, "class_dropout": 0}}
    generator = settings(tmp_path, **of_run)
    generator.directory.mkdir()
    config.save(generator, generator.directory / "config.yaml")
    facts = TrainingData("digits", 1437, [1, 8, 8], list("0123456789"), "a" * 64)
    (generator.directory / "training_data.json").write_text(json.dumps(asdict(facts)))
    given = {"out": str(tmp_path / "x.npz"), "steps": 2, **sampling}
    with pytest.raises(ValueError, match=sentence):
        check_run(settings(tmp_path, task="ddpm_sample", sampling=given, cluster=CLUSTER))
