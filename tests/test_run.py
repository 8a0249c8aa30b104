"""run.main: what is refused before any work, and the end of a run."""

import json
import re
from pathlib import Path

import pytest

from pipeline import config as configs
from pipeline import run
from pipeline.config import RunConfig


def config(output: Path, *words: str) -> RunConfig:
    small = ["--model.width", "8", "--model.depth", "1", "--model.features", "32",
             "--training.epochs", "1", "--training.warmup_epochs", "0.1",
             "--training.batch_size", "64", "--data.backend", "memory",
             "--output", str(output)]  # fmt: skip
    return configs.load(Path("configs/digits.yaml"), [*small, *words])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data.val", "null"], "key 'data.val' is missing"),
        (["--data.train", "null"], "key 'data.train' is missing"),
        (["--model.num_classes", "11"], "data.train digits has 10 classes"),
        (["--model.in_channels", "3"], "images of 1x8x8"),
        (["--training.accumulation", "3"], "take 63 or 66"),
        (["--training.warmup_epochs", "2"], "training.warmup_epochs 2 must be smaller"),
        (["--training.batch_size", "2000"], "2000 is larger than the 1437 images"),
        (["--objective.name", "emmma"], "emma"),
        (["--model.block", "l2_attention_ffn"], "'backbone.0.attention' cannot be certified"),
        (["--model.block", "l2_attention_ffn"], "set certification.at_end false"),
        (["--certification.method", "liplt"], "liplt is for the models cnn, mlp and slope_resnet"),
        (["--training.schedule", "triangular"], "the triangular schedule is its own warm-up"),
    ],
)
def test_refused_before_anything_is_written(
    words: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run.main(config(tmp_path, *words))
    assert not list(tmp_path.iterdir())


def test_a_trial_has_at_least_one_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--max-steps 0 must be at least 1"):
        run.main(config(tmp_path), max_steps=0)


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "step"]


def test_a_trial_makes_the_first_steps_of_the_run_and_does_not_touch_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path, "--certification.at_end", "false")
    assert run.main(settings).finished
    before = (settings.directory / "metrics.jsonl").read_bytes()
    assert run.main(settings, max_steps=5).finished
    assert "tried 5 of 22 steps" in capsys.readouterr().out
    trial = tmp_path / "digits.trial"
    assert losses(trial) == losses(settings.directory)[:5]
    assert not (trial / "certificate").exists()
    assert (settings.directory / "metrics.jsonl").read_bytes() == before


def test_a_run_ends_with_its_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path)
    assert run.main(settings).finished
    folder = settings.directory / "certificate"
    certificate = json.loads((folder / "certificate.json").read_text())
    assert certificate["num_images"] == 360
    assert list(certificate["vra"]) == settings.certification.epsilons
    assert str(folder / "report.html") in capsys.readouterr().out
    record = (settings.directory / "metrics.jsonl").read_text().splitlines()
    validation = json.loads(record[-1])["validation"]
    assert validation["clean_accuracy"] == pytest.approx(certificate["clean_accuracy"], abs=0.01)
    assert validation["vra_estimate"] == pytest.approx(certificate["vra"]["0.25"], abs=0.05)

    images = (folder / "images.tsv").read_bytes()
    assert run.main(settings).finished  # the same command again
    assert "training is finished" in capsys.readouterr().out
    assert (folder / "images.tsv").read_bytes() == images

    other = run.certify_run(settings.directory, epsilons=["0.1"], out=tmp_path / "other")
    assert other.clean_accuracy == certificate["clean_accuracy"]
    again = configs.load(settings.directory / "config.yaml", ["--task", "certify"])
    assert run.main(again).finished


def test_certification_can_be_left_out_and_made_up_for(tmp_path: Path) -> None:
    settings = config(tmp_path, "--certification.at_end", "false")
    assert run.main(settings).finished
    assert not (settings.directory / "certificate").exists()
    assert run.main(config(tmp_path)).finished
    assert (settings.directory / "certificate" / "certificate.json").exists()


def test_nothing_to_certify(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config.yaml does not exist"):
        run.certify_run(tmp_path / "nowhere")
    settings = config(tmp_path)
    settings.directory.mkdir()
    configs.save(settings, settings.directory / "config.yaml")
    with pytest.raises(ValueError, match="has no checkpoint: train first"):
        run.certify_run(settings.directory)
