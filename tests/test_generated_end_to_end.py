"""Generated data on real handwriting: a generator, its samples, a mixed run, its certificate."""

import json
from pathlib import Path

import numpy as np

from pipeline.data.betons.format import read_beton
from tests.tools.test_ddpm import TWO, finish, kill_when, start

COUNT = 2000


def test_from_a_generator_to_a_certificate_of_what_learnt_from_it(tmp_path: Path) -> None:
    """The recipes of configs/, shorter; one of the two that draw is killed."""
    output = ("--output", tmp_path)
    said = finish(start("tools/ddpm_train.py", "--config", "configs/ddpm_digits.yaml", *output,
                        "--training.epochs", "20", "--diffusion.monitor.every", "20"))  # fmt: skip
    assert "training for 220 steps" in said

    generated = tmp_path / "generated.beton"
    draw = ("tools/ddpm_sample.py", "--run", tmp_path / "ddpm_digits", "--count", COUNT,
            "--steps", "10", "--nearest", "200", "--out", generated)  # fmt: skip
    killed = kill_when(
        start(*draw, launcher=TWO), tmp_path / "generated.beton.drawn", "*.images.npy"
    )
    assert killed, "it was finished before"
    finish(start(*draw, launcher=TWO))
    samples = read_beton(generated)
    assert len(samples) == COUNT
    assert np.bincount(samples.labels).tolist() == [COUNT // 10] * 10
    card = json.loads(Path(f"{generated}.json").read_text())
    assert card["similarity"]["compared"] == 200

    said = finish(start("launch/train.py", "--config", "configs/digits.yaml", *output,
                        "--data.generated.path", generated, "--training.epochs", "8",
                        "--training.batch_size", "64"))  # fmt: skip
    run = tmp_path / "digits"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    assert all(row["generated"]["loss"] > 0 and row["real"]["loss"] > 0 for row in steps)
    certificate = json.loads((run / "certificate" / "certificate.json").read_text())
    assert certificate["num_images"] == 360
    # Far below what the whole recipe reaches, far above what ten classes give by chance.
    assert certificate["clean_accuracy"] > 0.7 and certificate["vra"]["36/255"] > 0.4
    assert card["dataset_sha256"] in (run / "certificate" / "config.yaml").read_text()
    said = finish(start("tools/verify_certificate.py", run / "certificate"))
    assert "VERIFIED" in said
