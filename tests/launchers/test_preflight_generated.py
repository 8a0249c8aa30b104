"""What is wrong with generated images is found before a job is queued."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import config
from pipeline.config import RunConfig
from pipeline.data.betons.storage import storage_of
from pipeline.data.betons.write import write_beton
from pipeline.launchers.preflight import check_run
from pipeline.training.run_directory import prepare
from tests.training.toy import ROOT


def digits(output: Path, generated: str, *words: str) -> RunConfig:
    small = ["--cluster.gpus_per_node", "0", "--output", str(output), "--training.batch_size", "64"]
    path = ["--data.generated.path", generated]
    return config.load(ROOT / "configs" / "digits.yaml", [*small, *path, *words])


def beton(path: Path, classes: int = 10, seed: int = 0) -> str:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (2 * classes, 8, 8), dtype=np.uint8)
    np.savez(path.with_suffix(".npz"), image=images, label=np.arange(2 * classes) % classes)
    write_beton(
        f"npz:{path.with_suffix('.npz')}", "train", storage_of("exact"), path, 1, force=True
    )
    return str(path)


def test_generated_images_that_fit_pass(tmp_path: Path) -> None:
    path = beton(tmp_path / "g.beton")
    check_run(digits(tmp_path, path))
    check_run(digits(tmp_path, f"npz:{tmp_path / 'g.npz'}"))


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("x.beton", [], "x.beton does not exist"),
        ("npz:x.npz", [], "data.generated.path npz:x.npz: there is no x.npz"),
        ("nine.beton", [], "has labels up to 8, and data.train digits 10 classes, 0 to 9"),
        ("g.beton", ["--cluster.tasks_per_node", "3"], "3 x 1 x 2 = 6: take 60 or 66"),
        ("g.beton", ["--data.generated.ratio", "1:3", "--training.accumulation", "32"], "take 128"),
        ("g.beton", ["--data.generated.sha256", "ab"], "sha256 is ab: it is another"),
        ("g.beton", ["--data.generated.part", "x"], "unknown key 'data.generated.part'"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_sentence(
    name: str, words: list[str], sentence: str, tmp_path: Path
) -> None:
    beton(tmp_path / "g.beton")
    beton(tmp_path / "nine.beton", classes=9)
    path = name if name.startswith("npz:") else str(tmp_path / name)
    with pytest.raises(ValueError) as error:
        check_run(digits(tmp_path, path, *words))
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_set_that_changed_since_the_last_job_is_refused(tmp_path: Path) -> None:
    path = beton(tmp_path / "g.beton")
    chosen = digits(tmp_path, path, "--data.generated.ratio", "1:3")
    assert chosen.data.generated is not None and chosen.data.generated.ratio == "1:3"
    (chosen.directory / "checkpoints" / "step_000003").mkdir(parents=True)
    from pipeline.data.generated import open_generated

    sha256 = open_generated(chosen.data, 8).sha256
    prepare(digits(tmp_path, path, "--data.generated.ratio", "1:3",
                   "--data.generated.sha256", sha256), chosen.directory, fresh=False)  # fmt: skip
    check_run(chosen)
    beton(tmp_path / "g.beton", seed=1)
    with pytest.raises(ValueError, match=r"g\.beton is no longer the set that the run in .*digits"):
        check_run(chosen)
    with pytest.raises(ValueError, match=r"ratio: 1:3 there, 1:1 here"):
        check_run(digits(tmp_path, path))
