"""A classifier of ours as judge: its numbers, the Fréchet distance in training, the filter."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import run
from pipeline.config import FilterConfig, RunConfig, SamplingConfig
from pipeline.data.betons.format import read_beton
from pipeline.diffusion.classifier import Judge
from pipeline.diffusion.generate import convert, generate
from tests.diffusion.tiny import settings
from tests.training.test_resume import settings as classifier_settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = classifier_settings(tmp_path_factory.mktemp("classifier"))
    chosen.training.epochs, chosen.checkpoint.keep = 3, 1
    assert run.main(chosen).finished
    return chosen.directory


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory, classifier: Path) -> RunConfig:
    chosen = settings(tmp_path_factory.mktemp("generator"))
    chosen.diffusion.monitor.classifier = str(classifier)
    chosen.diffusion.monitor.every = 1
    assert run.main(chosen).finished
    return chosen


def pictures(count: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, 8, 8), generator=draw, dtype=torch.uint8)


def test_features_are_what_the_head_takes(classifier: Path) -> None:
    judge, images = Judge(classifier, CPU), pictures(6)
    features = judge.features(images)
    assert features.dtype == torch.float64
    head = judge._network.get_submodule("head")
    with torch.no_grad():
        torch.testing.assert_close(head(features.float())[0], judge.logits(images))
    labels = torch.arange(6)
    expected = judge.logits(images).softmax(1)[labels, labels]
    torch.testing.assert_close(judge.confidence(images, labels), expected)


def test_judges_that_cannot_judge_are_refused(
    classifier: Path, generator: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"10 classes of images of 1x8x8, .* draws 10 of 3x32x32"):
        Judge(classifier, CPU).check((3, 32, 32), 10)
    with pytest.raises(ValueError, match="is no run directory"):
        Judge(tmp_path, CPU)
    with pytest.raises(ValueError, match="is the run of a generator"):
        Judge(generator.directory, CPU)


def test_the_distance_is_logged_every_epoch(generator: RunConfig) -> None:
    lines = (generator.directory / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    distances = [row["frechet_distance"] for row in rows if row["kind"] == "epoch"]
    assert len(distances) == 2 and all(0 < distance < 1e6 for distance in distances)
    assert list((generator.directory / "tensorboard").iterdir())


def test_a_filter_keeps_what_the_classifier_recognises(
    classifier: Path, generator: RunConfig, tmp_path: Path
) -> None:
    judge = Judge(classifier, CPU)
    plain = SamplingConfig(
        out=str(tmp_path / "all.npz"), count=400, steps=2, batch_size=50, nearest=0
    )
    generate(generator.directory, plain)
    with np.load(tmp_path / "all.npz") as arrays:
        images = torch.from_numpy(arrays["image"]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(arrays["label"])
    confidences = judge.confidence(images, labels)
    least = float(confidences.view(40, 10).quantile(0.3, dim=0).amin())
    out = tmp_path / "kept.beton"
    filtered = FilterConfig(classifier=str(classifier), confidence=least)
    card = generate(
        generator.directory, plain.model_copy(update={"out": str(out), "count": 60,
                                                      "filter": filtered}),
    )  # fmt: skip
    kept = read_beton(out)
    assert np.bincount(kept.labels).tolist() == [6] * 10
    expected, dropped = [], 0
    for label in range(10):
        members = torch.arange(label, 400, 10)
        passing = members[confidences[members] >= least][:6].tolist()
        expected += passing
        dropped += len([i for i in members.tolist() if i <= passing[-1]]) - 6
    expected.sort()
    assert all((kept.image(n) == images[i, 0, :, :, None].numpy()).all()
               for n, i in enumerate(expected))  # fmt: skip
    assert card is not None and card["dropped_by_filter"] == dropped
    assert card["filter"]["confidence"] == least


def test_others_samples_are_converted(
    classifier: Path, generator: RunConfig, tmp_path: Path
) -> None:
    images = pictures(30).permute(0, 2, 3, 1).numpy()
    path, out = tmp_path / "theirs.npz", tmp_path / "theirs.beton"
    np.savez(path, image=images, label=np.arange(30) % 10)
    convert(path, generator.directory, out, None, force=False)
    written = read_beton(out)
    assert written.labels.tolist() == [i % 10 for i in range(30)]
    assert all((written.image(i) == images[i]).all() for i in range(30))
    with pytest.raises(ValueError, match="exists: give --force"):
        convert(path, generator.directory, out, None, force=False)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"out": "x.png"}, "must end in .beton or .npz"),
        ({"out": "x.npz", "steps": 41}, "take 38 or less"),
        ({"out": "x.npz", "checkpoint": "newst"}, "did you mean 'newest'"),
        ({"out": "x.npz", "checkpoint": "9"}, "has no checkpoint of step 9"),
    ],
)
def test_what_cannot_be_drawn(
    generator: RunConfig, changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    given = changes | {"out": str(tmp_path / str(changes["out"]))}
    with pytest.raises(ValueError, match=sentence):
        generate(generator.directory, SamplingConfig(**given))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_no_generator_is_refused(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no generator"):
        generate(classifier, SamplingConfig(out=str(tmp_path / "x.npz")))
