"""A plan finds every mistake before anything runs, and knows what is finished."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch

from pipeline import config
from pipeline.models import build_model, list_models
from pipeline.sweep import parse_axis, plan
from pipeline.sweep.plan import difference, is_finished
from tests.sweep.small import DIGITS, ROOT, certificate, finish, sweep


def test_runs_are_every_point_with_every_seed(tmp_path: Path) -> None:
    found = sweep(tmp_path, "model.width=8,16", "epsilon.target=0.25,36/255", seeds=(3, 1))
    assert [run.name for run in found.runs[:3]] == [
        "width=8_target=0.25_seed3", "width=8_target=0.25_seed1", "width=8_target=36-255_seed3",
    ]  # fmt: skip
    assert len(found.runs) == 8
    assert found.directory == tmp_path / "digits.sweep"
    last = found.runs[-1]
    assert last.config.directory == found.directory / last.name
    assert (last.config.seed, last.config.epsilon.target) == (1, "36/255")
    assert last.config.model.options["width"] == 16
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"


def test_the_overrides_of_a_run_give_its_config(tmp_path: Path) -> None:
    found = sweep(tmp_path, "optimizer.lr=1e-3,0.01", words=("--name", "mine"))
    assert found.name == "mine" and found.directory.name == "mine.sweep"
    for run in found.runs:
        assert config.load(found.source, list(run.overrides)) == run.config


def test_keys_in_step(tmp_path: Path) -> None:
    found = sweep(tmp_path, "data.classes.first,model.num_classes=4:4,6:6", seeds=(0,))
    assert [
        (run.config.data.classes.first, run.config.model.num_classes)  # type: ignore[union-attr]
        for run in found.runs
    ] == [(4, 4), (6, 6)]


@pytest.mark.parametrize(
    ("grid", "words", "sentence"),
    [
        (["training.epoch=1,2"], [], "did you mean 'training.epochs'?"),
        (["model.wdith=8,16"], [], "did you mean 'width'?"),
        (["model.width=8,0"], [], "model.width is 0"),
        (["objective.flor=0,1"], [], "did you mean 'floor'?"),
        (["model.width=8,8"], [], "model.width=8 and model.width=8 are the same"),
        (["optimizer.lr=1e-3,0.001"], [], "lr=0.001 are the same"),
        (["data.val=a/b,a-b"], [], "would share the folder val=a-b_seed0"),
        (["data.val=A,a"], [], "would share the folder val=a_seed0"),
        (["data.val=" + "x" * 300], [], "too long for a folder"),
        (["seed=0,1"], [], "seed is given by --seeds"),
        ([], ["--seed", "4"], "seed is given by --seeds"),
        (["name=a,b"], [], "--grid name"),
        (["model.width=8,16"], ["--model.width", "3"], "model.width is given twice"),
        ([], ["--task=certify"], "task is 'certify'"),
        ([], ["--certification.at-end", "false"], "certification.at_end is false"),
    ],
)
def test_mistakes(tmp_path: Path, grid: list[str], words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        sweep(tmp_path, *grid, words=tuple(words))
    assert sentence in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_seed_given_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a seed is given twice"):
        sweep(tmp_path, seeds=(0, 1, 0))


@pytest.mark.parametrize("name", list_models())
def test_every_model_can_be_checked_without_memory(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, 1000, 224)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_finished_means_a_certificate_of_this_config(tmp_path: Path) -> None:
    run, other = sweep(tmp_path).runs
    assert not is_finished(run) and difference(run) is None
    finish(run, certificate(0.5, {"0.25": 0.25}))
    assert is_finished(run) and difference(run) is None and not is_finished(other)
    assert is_finished(sweep(tmp_path).runs[0])
    more = sweep(tmp_path, seeds=(0, 1, 2), words=("--training.log_every", "5"))
    assert [is_finished(run) for run in more.runs] == [True, False, False]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--training.epochs=3",), "training.epochs: 40 there, 3 here"),
        (("--certification.epsilons=[0.5]",), "certification.epsilons"),
    ],
)
def test_a_finished_run_of_another_config(tmp_path: Path, words: tuple, sentence: str) -> None:
    finish(sweep(tmp_path).runs[1], certificate(0.5, {"0.25": 0.25}))
    with pytest.raises(ValueError, match=r"seed1 is a run of another config") as error:
        sweep(tmp_path, words=words)
    assert sentence in str(error.value) and "--name" in str(error.value)


def begin(directory: Path, settings: config.RunConfig) -> None:
    (directory / "checkpoints" / "step_000001").mkdir(parents=True)
    config.save(settings, directory / "config.yaml")


def test_a_begun_run_of_another_config(tmp_path: Path) -> None:
    run = sweep(tmp_path, "model.width=8,16").runs[0]
    begin(run.config.directory, run.config)
    sweep(tmp_path, "model.width=8,16", words=("--certification.epsilons=[0.5]",))
    with pytest.raises(ValueError, match="batch_size: 64 there, 32 here"):
        sweep(tmp_path, "model.width=8,16", words=("--training.batch_size=32",))
    # Also where it is no run of this plan: one sweep has one config, grid and seeds apart.
    sweep(tmp_path, "model.width=32", seeds=(7,))
    with pytest.raises(ValueError, match="batch_size: 64 there, 32 here"):
        sweep(tmp_path, "model.width=32", seeds=(7,), words=("--training.batch_size=32",))
    with pytest.raises(ValueError, match=r"model\.width: 8 there, 16 here"):
        sweep(tmp_path, "optimizer.lr=1e-3,1e-4")


def test_a_start_that_reached_no_checkpoint_binds_nobody(tmp_path: Path) -> None:
    run = sweep(tmp_path).runs[0]
    run.config.directory.mkdir(parents=True)
    config.save(run.config, run.config.directory / "config.yaml")
    assert difference(sweep(tmp_path, words=("--training.epochs=3",)).runs[0]) is None


def commands_of_recipes() -> list[tuple[str, str]]:
    """Every command with tools/sweep.py in the header of a config, its lines joined."""
    found = []
    for path in sorted(DIGITS.parent.glob("*.yaml")):
        header = re.match(r"(#.*\n)*", path.read_text())
        assert header is not None
        joined = re.sub(r" \\\n#\s+|\n#\s+(?=--)", " ", header[0])
        found += [(path.name, line) for line in re.findall(r"tools/sweep\.py (.*)", joined)]
    return found


@pytest.mark.parametrize(("name", "words"), commands_of_recipes())
def test_what_recipes_say_can_be_swept(name: str, words: str, tmp_path: Path) -> None:
    parser = runpy.run_path(str(ROOT / "tools" / "sweep.py"))["arguments"]()
    given, overrides = parser.parse_known_args(shlex.split(words))
    assert given.config.name == name
    axes = [parse_axis(word) for word in given.grid]
    found = plan(ROOT / given.config, [*overrides, f"--output={tmp_path}"], axes, given.seeds)
    assert len(found.runs) == len(given.seeds) * len(found.points)
