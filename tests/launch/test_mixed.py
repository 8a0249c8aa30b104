"""Mixed batches through the command line: a chain of starts on 4, 2 and 3 processes."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.data.order import GeneratedOrder, Order
from pipeline.training.sample_log import verify_samples
from tests.distributed.processes import Ranks
from tests.launch.test_leaving import DOOR, disturbed
from tests.training.test_resume import settings


def config_file(folder: Path, ratio: str) -> Path:
    """48 images a step; with 1:3 are 12 of them real, 119 steps an epoch."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (500, 8, 8), dtype=np.uint8)
    np.savez(folder / "made.npz", image=images, label=np.arange(500) % 10)
    tree = settings(folder).model_dump(mode="json")
    tree["data"]["generated"] = {"path": f"npz:{folder / 'made.npz'}", "ratio": ratio}
    tree["training"].update(batch_size=48, epochs=2, accumulation=1, log_samples=True)
    tree["checkpoint"].update(every_steps=5, keep=2)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.long
def test_stopped_killed_and_on_other_numbers_of_processes(tmp_path: Path) -> None:
    """Each start goes on inside the epoch; the log says that nothing was lost or seen twice."""
    folder = tmp_path / "wild"
    words = [DOOR, "--config", str(config_file(folder, "1:3"))]
    statuses, said = disturbed(words, folder, 4, signal.SIGTERM)
    assert statuses == [75] * 4, said
    statuses, said = disturbed(words, folder, 2, signal.SIGKILL, 0, 1)
    assert statuses == [-9, -9], said
    with Ranks(words, 3, folder) as started:
        assert started.statuses() == [0] * 3, started.outputs()
        assert "going on after step" in started.output(0)
    order, generated = Order(1437, 12, 3), GeneratedOrder(500, 36, 3, 119)
    verify_samples(folder / "tiny", order, 238, generated)
    rows = [json.loads(r) for r in (folder / "tiny" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, 239))
    for row in steps:
        mean = (row["real"]["loss"] + 3 * row["generated"]["loss"]) / 4
        assert row["loss"] == pytest.approx(mean, rel=1e-9)
