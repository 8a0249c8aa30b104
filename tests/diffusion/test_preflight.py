"""What a cluster job of a generator is asked before it queues."""

from pathlib import Path

import pytest

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
        ({"task": "ddpm_sample"}, r"sampling\.out"),
        ({"task": "ddpm_sample", "sampling": {"out": "x.beton"}}, "holds no generator"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, changes: dict, sentence: str) -> None:
    given = {"cluster": CLUSTER, **changes}
    with pytest.raises(ValueError, match=sentence):
        check_run(settings(tmp_path, **given))
