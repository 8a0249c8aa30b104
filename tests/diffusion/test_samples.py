"""Which samples are taken, how near they come to the training images, what is read of others."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from pipeline.data.loader import open_block_loader
from pipeline.data.sources import open_source
from pipeline.diffusion.choice import batches_needed, choose, quotas
from pipeline.diffusion.frechet import Moments, frechet_distance
from pipeline.diffusion.neighbours import digest, nearest_training_images
from pipeline.diffusion.npz import ForeignSamples, write_npz
from pipeline.diffusion.store import DrawnBatches

CPU = torch.device("cpu")


def test_quotas_are_balanced() -> None:
    assert quotas(23, 10).tolist() == [3, 3, 3, *[2] * 7]


def drawn(folder: Path, confidences: np.ndarray, batch: int) -> DrawnBatches:
    store = DrawnBatches(folder / "out.beton")
    store.claim({"seed": 0}, force=False)
    for number in range(len(confidences) // batch):
        part = confidences[number * batch : (number + 1) * batch].astype(np.float32)
        store.write(number, np.zeros((batch, 2, 2, 1), np.uint8), part)
    return store


def test_with_a_filter_each_class_gives_its_first_that_pass(tmp_path: Path) -> None:
    draw = np.random.default_rng(0).random(60)
    store = drawn(tmp_path, draw, 12)
    choice = choose(store, 5, 12, 15, 3, 0.5)
    expected, dropped = [], 0
    for label in range(3):
        members = range(label, 60, 3)
        passing = [i for i in members if np.float32(draw[i]) >= 0.5][:5]
        expected += passing
        dropped += len([i for i in members if i <= passing[-1]]) - 5
    assert choice.indices.tolist() == sorted(expected)
    assert choice.dropped == dropped and choice.wanting == 0
    few = choose(store, 2, 12, 15, 3, 0.5)  # what was drawn later changes nothing of it
    assert few.wanting > 0
    assert set(few.indices.tolist()) <= set(choice.indices.tolist())
    assert 2 < batches_needed(few, 2, 12, 15, 3) < 50


def test_a_filter_that_nothing_passes_is_given_up(tmp_path: Path) -> None:
    store = drawn(tmp_path, np.zeros(60), 12)
    batches, count = 5, 1
    with pytest.raises(ValueError, match=r"sampling\.filter\.confidence"):
        batches_needed(choose(store, batches, 12, count, 3, 0.5), batches, 12, count, 3)


def test_a_round_is_at_most_twice_the_one_before(tmp_path: Path) -> None:
    draw = np.where(np.arange(60) % 3 == 0, 0.0, 1.0)  # of class 0 nothing passes
    choice = choose(drawn(tmp_path, draw, 12), 5, 12, 15, 3, 0.5)
    assert choice.wanting == 5 and batches_needed(choice, 5, 12, 15, 3) == 10


def test_a_class_of_which_nothing_passes_is_given_up_early(tmp_path: Path) -> None:
    draw = np.where(np.arange(900) % 3 == 0, 0.0, 1.0)
    count = 900
    with pytest.raises(ValueError, match="of a class hardly one of 300 samples passes"):
        batches_needed(choose(drawn(tmp_path, draw, 12), 75, 12, count, 3, 0.5), 75, 12, count, 3)


def test_batches_of_other_settings_are_refused(tmp_path: Path) -> None:
    store = drawn(tmp_path, np.zeros(12), 12)
    assert store.missing(3) == [1, 2]
    with pytest.raises(ValueError, match="seed: 0 there, 1 here"):
        store.claim({"seed": 1}, force=False)
    store.claim({"seed": 1}, force=True)
    assert store.missing(3) == [0, 1, 2]


def test_nearest_images_are_those_of_brute_force() -> None:
    loader = open_block_loader("digits", "train", 8)
    everything = loader.pictures(list(range(loader.info.num_samples)))
    draw = torch.Generator().manual_seed(0)
    queries = torch.randint(0, 256, (20, 1, 8, 8), generator=draw, dtype=torch.uint8)
    queries[3] = everything[700]
    nearest, digests = nearest_training_images(queries, loader, CPU)
    loader.close()
    differences = queries[:, None].int() - everything[None].int()
    squares = differences.flatten(2).square().sum(2)  # integers: exact
    expected = squares.double().amin(1).sqrt() / 255
    assert torch.equal(nearest.distances, expected) and nearest.distances[3] == 0
    found = squares.gather(1, nearest.indices[:, None])[:, 0]
    assert torch.equal(found, squares.amin(1))
    assert digest(queries[3]) in digests and digest(queries[4]) not in digests


def test_the_frechet_distance_is_scipys() -> None:
    draw = np.random.default_rng(1)
    sets = [draw.normal(size=(200, 5)) @ draw.normal(size=(5, 5)) + shift for shift in (0, 1)]
    moments = []
    for features in sets:
        sums = Moments.empty(5, CPU)
        for piece in np.array_split(features, 3):
            sums.add(torch.from_numpy(piece))
        moments.append(sums)
    means = [features.mean(0) for features in sets]
    covariances = [np.cov(features.T, bias=True) for features in sets]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((means[0] - means[1]) ** 2).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(*moments) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(moments[0], moments[0]) == pytest.approx(0, abs=1e-9)


def test_npz_is_written_and_read_back(tmp_path: Path) -> None:
    source, out = open_source("digits", "val"), tmp_path / "new" / "g.npz"
    card = write_npz(source, "ddpm:x", out, {"generator": "x"})
    with np.load(out, allow_pickle=False) as arrays:
        assert arrays["image"].shape == (360, 8, 8, 1) and arrays["image"].dtype == np.uint8
        assert arrays["label"].dtype == np.int64 and (arrays["label"] == source.labels).all()
        assert all((arrays["image"][i] == source.image(i)).all() for i in range(0, 360, 50))
        assert arrays["class_names"].tolist() == list(source.class_names)
    assert json.loads(Path(f"{out}.json").read_text()) == card
    assert card["images_per_class"] == np.bincount(source.labels).tolist()
    again = ForeignSamples(out, source.class_names, (1, 8, 8), None)
    assert (again.labels == source.labels).all() and (again.image(7) == source.image(7)).all()


def foreign(folder: Path, labels: list[int], **more: object) -> Path:
    path = folder / "theirs.npz"
    np.savez(path, image=np.zeros((len(labels), 8, 8, 1), np.uint8), label=np.array(labels), **more)
    return path


def test_classes_of_others_are_checked(tmp_path: Path) -> None:
    ours = ("plane", "car", "bird")
    assert len(ForeignSamples(foreign(tmp_path, [0, 1, 2]), ours, (1, 8, 8), None)) == 3
    with pytest.raises(ValueError, match=r"label 3, and there are 3 classes, 0 to 2"):
        ForeignSamples(foreign(tmp_path, [0, 3]), ours, (1, 8, 8), None)
    with pytest.raises(ValueError, match=r"1x8x8 .* 3x32x32"):
        ForeignSamples(foreign(tmp_path, [0]), ours, (3, 32, 32), None)
    names = np.array(["bird", "car", "plane"])
    with pytest.raises(ValueError, match=r"'bird' there where the data set has 'plane'"):
        ForeignSamples(foreign(tmp_path, [0], class_names=names), ours, (1, 8, 8), None)


class Seer:
    """A classifier that reads the class off the first pixel, and is right at a rate."""

    def __init__(self, classes: int, accuracy: float = 1.0) -> None:
        self.classes, self.accuracy = classes, accuracy
        self.draw = np.random.default_rng(0)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        found = images[:, 0, 0, 0].long()
        errs = torch.from_numpy(self.draw.random(len(found)) >= self.accuracy)
        shift = torch.from_numpy(self.draw.integers(1, self.classes, len(found)))
        found = torch.where(errs, (found + shift) % self.classes, found)
        return torch.nn.functional.one_hot(found, self.classes).float()


def seen(folder: Path, labels: np.ndarray, classes: list[int]) -> Path:
    """Images whose first pixel tells of which class of ours they are: `classes[label]`."""
    images = np.zeros((len(labels), 8, 8, 1), np.uint8)
    images[:, 0, 0, 0] = np.array(classes)[labels]
    path = folder / "theirs.npz"
    np.savez(path, image=images, label=labels)
    return path


CIFAR = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize("accuracy", [1.0, 0.9, 0.6])
def test_the_alphabetical_order_of_cifar_is_found(accuracy: float, tmp_path: Path) -> None:
    """Three labels of ten are the same in both, well above chance."""
    alphabetical = [CIFAR.index(name) for name in sorted(CIFAR)]
    path = seen(tmp_path, np.arange(2000) % 10, alphabetical)
    with pytest.raises(
        ValueError,
        match=r"another order.* label 0 \('plane' here\) seems to be 'bird'.* more: ren",
    ) as error:
        ForeignSamples(path, CIFAR, (1, 8, 8), Seer(10, accuracy))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    right = seen(tmp_path, np.arange(2000) % 10, list(range(10)))
    for least in (accuracy, 0.35):  # a poor classifier is no reason
        ForeignSamples(right, CIFAR, (1, 8, 8), Seer(10, least))  # type: ignore[arg-type]


def test_two_labels_that_changed_places_are_found(tmp_path: Path) -> None:
    names = tuple(map(str, range(100)))
    order = [1, 0, *range(2, 100)]
    path = seen(tmp_path, np.arange(3000) % 100, order)
    with pytest.raises(ValueError, match=r"label 0 \('0' here\) seems to be '1', 1 .* be '0': ren"):
        ForeignSamples(path, names, (1, 8, 8), Seer(100, 0.8))  # type: ignore[arg-type]
    for accuracy in (0.1, 0.3, 0.8):
        right = seen(tmp_path, np.arange(3000) % 100, list(range(100)))
        ForeignSamples(right, names, (1, 8, 8), Seer(100, accuracy))  # type: ignore[arg-type]


def test_two_classes_and_one_that_is_wanting(tmp_path: Path) -> None:
    two = ("a", "b")
    ForeignSamples(seen(tmp_path, np.arange(50) % 2, [0, 1]), two, (1, 8, 8), Seer(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"label 0 \('a' here\) seems to be 'b'"):
        ForeignSamples(seen(tmp_path, np.arange(50) % 2, [1, 0]), two, (1, 8, 8), Seer(2))  # type: ignore[arg-type]
    three = ("a", "b", "c")
    ForeignSamples(seen(tmp_path, np.arange(50) % 2, [0, 1]), three, (1, 8, 8), Seer(3))  # type: ignore[arg-type]


def test_an_order_that_nobody_checks_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ForeignSamples(foreign(tmp_path, [0, 1]), ("a", "b"), (1, 8, 8), None)
    assert "order of the data set was not checked; --filter" in capsys.readouterr().out
    names = np.array(["a", "b"])
    ForeignSamples(foreign(tmp_path, [0, 1], class_names=names), ("a", "b"), (1, 8, 8), None)
    assert "not checked" not in capsys.readouterr().out


class Blind:
    """A classifier that calls everything class 0."""

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0] + [0.0] * 9]).expand(len(images), -1)


def test_a_classifier_that_is_at_chance_is_refused(tmp_path: Path) -> None:
    ours, labels = tuple("abcdefghij"), [i % 10 for i in range(50)]
    with pytest.raises(ValueError, match=r"only 10\.0% of its images"):
        ForeignSamples(foreign(tmp_path, labels), ours, (1, 8, 8), Blind())  # type: ignore[arg-type]
    kept = ForeignSamples(foreign(tmp_path, [0] * 50), ours, (1, 8, 8), Blind())  # type: ignore[arg-type]
    assert len(kept) == 50
