"""Whether a run may go on in a directory."""

from pathlib import Path

import pytest

from pipeline import config as configs
from pipeline.config import RunConfig
from pipeline.training.run_directory import directory_of, prepare


def config(output: Path, **changes: object) -> RunConfig:
    tree = {
        "name": "run",
        "output": str(output),
        "model": {"name": "liresnet", "num_classes": 10, "image_size": 8},
    }
    return configs.parse({**tree, **changes})


def begun(output: Path, **changes: object) -> RunConfig:
    """A run with one checkpoint."""
    settings = config(output, **changes)
    prepare(settings, settings.directory, fresh=False)
    (settings.directory / "checkpoints" / "step_000004").mkdir(parents=True)
    return settings


def test_the_config_is_written_and_reads_back(tmp_path: Path) -> None:
    settings = begun(tmp_path)
    assert configs.load(settings.directory / "config.yaml") == settings
    prepare(settings, settings.directory, fresh=False)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"training": {"epochs": 2}}, "training.epochs: 1 there, 2 here"),
        ({"data": {"val": "digits"}}, "data.val: None there, digits here"),
        ({"model": {"name": "liresnet", "num_classes": 10, "image_size": 8, "width": 9}}, "width"),
    ],
)
def test_another_run_is_refused(changes: dict, key: str, tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(ValueError, match="another --name") as error:
        prepare(config(tmp_path, **changes), tmp_path / "run", fresh=False)
    assert key in str(error.value) and str(tmp_path / "run") in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"workers": 3, "backend": "memory"}},
        {"checkpoint": {"every_steps": 3, "keep": 9}},
        {"certification": {"epsilons": ["1/3"], "at_end": False}},
        {"training": {"validate_every": 7, "log_every": 5}},
    ],
)
def test_what_cannot_alter_results_may_change(changes: dict, tmp_path: Path) -> None:
    begun(tmp_path)
    settings = config(tmp_path, **changes)
    prepare(settings, settings.directory, fresh=False)
    assert configs.load(settings.directory / "config.yaml") == settings


def test_a_start_without_a_checkpoint_binds_nobody(tmp_path: Path) -> None:
    first = config(tmp_path)
    prepare(first, first.directory, fresh=False)
    prepare(config(tmp_path, seed=1), first.directory, fresh=False)


def test_a_trial_is_emptied_and_lies_beside_the_run(tmp_path: Path) -> None:
    settings = begun(tmp_path)
    trial = directory_of(settings, trial=True)
    assert trial == tmp_path / "run.trial"
    prepare(settings, trial, fresh=True)
    (trial / "metrics.jsonl").write_text("old")
    prepare(config(tmp_path, seed=1), trial, fresh=True)
    assert [path.name for path in trial.iterdir()] == ["config.yaml"]
    assert (settings.directory / "checkpoints" / "step_000004").is_dir()


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = config(tmp_path / "file")
    with pytest.raises(ValueError, match=r"output '.*file/run' cannot be written .*--output"):
        prepare(settings, settings.directory, fresh=False)
