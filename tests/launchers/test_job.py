"""One rank of a job: what it leaves behind, and on which nodes it refuses to begin."""

import signal
from pathlib import Path

import pytest
import torch

from pipeline import config
from pipeline.launchers import job
from pipeline.launchers.folder import JobFolder
from tests.distributed.processes import Ranks
from tests.launch.test_leaving import config_file, rows


def test_a_rank_that_is_ended_for_another_leaves_its_status(tmp_path: Path) -> None:
    settings = config.load(config_file(tmp_path))
    folder = JobFolder.make(tmp_path / "jobs")
    config.save(settings, folder.config)
    folder.describe(run_directory=str(settings.directory), tasks=3, requeue=True)
    words = ["-m", "pipeline.launchers.job", str(folder.path), "local.0"]
    with Ranks(words, 3, tmp_path) as ranks:
        ranks.wait_until(lambda: rows(settings.directory) > 2)
        ranks.send(signal.SIGKILL, 1)
        assert ranks.statuses() == [75, -signal.SIGKILL, 75], ranks.outputs()
    assert folder.statuses("local.0") == {0: 75, 2: 75}


@pytest.mark.parametrize(("seen", "enough"), [(0, False), (1, True), (7, False), (8, True)])
def test_a_node_without_its_gpus_is_refused(
    seen: int, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    job._check_gpus(0)  # none are asked for
    if enough:
        job._check_gpus(8)
    else:
        with pytest.raises(RuntimeError, match=rf"shows {seen} GPUs and .* is 8: see nvidia-smi"):
            job._check_gpus(8)
