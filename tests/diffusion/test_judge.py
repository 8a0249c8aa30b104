"""A classifier of ours as judge: its numbers, the Fréchet distance in training, the filter."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import config as configs
from pipeline import run
from pipeline.config import FilterConfig, RunConfig, SamplingConfig
from pipeline.data.betons.format import read_beton
from pipeline.diffusion.classifier import Judge, check_classifier
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
        Judge(classifier, CPU).check((3, 32, 32), list("abcdefghij"))
    with pytest.raises(ValueError, match="is no run directory"):
        Judge(tmp_path, CPU)
    with pytest.raises(ValueError, match="is the run of a generator"):
        Judge(generator.directory, CPU)
    certificate = tmp_path / "copy" / "certificate" / "certificate.json"
    certificate.parent.mkdir(parents=True)
    shutil.copy(classifier / "config.yaml", tmp_path / "copy")
    certificate.write_text(json.dumps({"class_names": list("abcdefghij")}))
    check_classifier(tmp_path / "copy", (1, 8, 8), list("abcdefghij"))
    check_classifier(tmp_path / "copy", (1, 8, 8), list("ABCDEFGHIJ"))  # perhaps other words
    with pytest.raises(ValueError, match="calls class 0 'a', and the generator calls it 'b'"):
        check_classifier(tmp_path / "copy", (1, 8, 8), list("bacdefghij"))


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


def test_a_draw_killed_before_its_folder_was_gone_is_finished(
    generator: RunConfig, tmp_path: Path
) -> None:
    given = SamplingConfig(out=str(tmp_path / "x.npz"), count=20, steps=2, nearest=0)
    card = generate(generator.directory, given)
    with pytest.raises(ValueError, match="exists: give --force"):
        generate(generator.directory, given)
    folder, before = tmp_path / "x.npz.drawn", (tmp_path / "x.npz").stat().st_mtime_ns
    folder.mkdir()
    (folder / "00000000.images.npy").touch()
    with pytest.raises(ValueError, match="exists: give --force"):
        generate(generator.directory, given.model_copy(update={"count": 21}))
    assert folder.exists()
    assert generate(generator.directory, given) == card
    assert not folder.exists() and (tmp_path / "x.npz").stat().st_mtime_ns == before


class Asked(BaseException):
    """As StopRequestedError."""


def leave() -> None:
    raise Asked


def test_batches_are_known_by_all_that_they_depend_on(
    classifier: Path, generator: RunConfig, tmp_path: Path
) -> None:
    given = SamplingConfig(
        out=str(tmp_path / "x.npz"), count=20, steps=2, batch_size=10, nearest=0,
        filter=FilterConfig(classifier=str(classifier), confidence=1e-9),
    )  # fmt: skip
    with pytest.raises(Asked):
        generate(generator.directory, given, leave)
    settings = json.loads((tmp_path / "x.npz.drawn" / "settings.json").read_text())
    assert settings["compile"] is False
    assert settings["classifier_sha256"] == Judge(classifier, CPU).weights_sha256
    with pytest.raises(ValueError, match="compile: False there, True here"):
        generate(generator.directory, given.model_copy(update={"compile": True}))
    other = given.model_copy(update={"filter": None})
    with pytest.raises(ValueError, match=r"classifier_sha256: .* there, None here"):
        generate(generator.directory, other)


def copied(generator: RunConfig, to: Path, **changes: object) -> Path:
    """The generator's run with another config."""
    shutil.copytree(generator.directory, to)
    tree = generator.model_dump(mode="json")
    for key, value in changes.items():
        section, _, name = key.partition("_in_")
        tree[name][section] = value
    configs.save(configs.parse(tree), to / "config.yaml")
    return to


def test_what_is_missing_is_missed_before_anything_is_drawn(
    generator: RunConfig, tmp_path: Path
) -> None:
    run_ = copied(generator, tmp_path / "run", val_in_data=f"npz:{tmp_path / 'lost.npz'}")
    given = SamplingConfig(out=str(tmp_path / "x.npz"), count=20, steps=2)
    with pytest.raises(ValueError, match=r"lost\.npz"):
        generate(run_, given)
    facts = json.loads((run_ / "training_data.json").read_text())
    (run_ / "training_data.json").write_text(json.dumps(facts | {"dataset_sha256": "0" * 64}))
    configs.save(generator, run_ / "config.yaml")
    with pytest.raises(ValueError, match="is not what the generator was trained on"):
        generate(run_, given)
    assert not list(tmp_path.glob("*.drawn/*.npy"))


def test_guidance_needs_hidden_labels(generator: RunConfig, tmp_path: Path) -> None:
    run_ = copied(generator, tmp_path / "run", class_dropout_in_diffusion=0.0)
    given = SamplingConfig(out=str(tmp_path / "x.npz"), count=20, steps=2, guidance=1.5)
    with pytest.raises(ValueError, match=r"sampling\.guidance is 1\.5, and .*class_dropout is 0"):
        generate(run_, given)
    guided = settings(tmp_path, diffusion={"class_dropout": 0, "monitor": {"guidance": 2}})
    with pytest.raises(ValueError, match=r"diffusion\.monitor\.guidance is 2, and"):
        run.main(guided)
