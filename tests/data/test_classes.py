"""Subsets of classes: labels, ids, refusal of what is not there, and nothing read but the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import ClassesConfig, DataConfig
from pipeline.data.classes import select_classes
from pipeline.data.content import ContentHash
from pipeline.data.loader import open_block_loader, open_train_loader
from pipeline.distributed import World
from tests.data.betons import pictures, write

NAMES = ("n01 tench", "n02 crane", "n03 crane", "cat")
LABELS = np.array([3, 0, 1, 3, 2, 0, 1, 2])


def test_the_position_in_the_list_is_the_label() -> None:
    subset = select_classes(ClassesConfig(names=["cat", "n02", 0]), NAMES, LABELS)
    assert subset.classes == (3, 1, 0)
    assert subset.class_names == ("cat", "n02 crane", "n01 tench")
    assert subset.samples.tolist() == [0, 1, 2, 3, 5, 6]
    assert subset.labels.tolist() == [0, 2, 1, 0, 2, 1]


def test_a_name_may_be_given_by_what_follows_its_wnid() -> None:
    assert select_classes(ClassesConfig(names=["tench", 3]), NAMES, LABELS).classes == (0, 3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["crane", 0], "'crane', which may be 'n02 crane' or 'n03 crane'"),
        (["cta", 0], "did you mean 'cat'"),
        ([4, 0], "class 4, but they are 0 to 3"),
        (["cat", 3], "'cat' twice"),
    ],
)
def test_what_is_not_one_class_is_refused(names: list[int | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_classes(ClassesConfig(names=names), NAMES, LABELS)


def test_a_class_without_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="'n03 crane', of which the data set has no picture"):
        select_classes(ClassesConfig(names=[0, 2]), NAMES, LABELS[LABELS != 2])


def test_the_first_of_a_shuffle_contain_each_other() -> None:
    names, labels = [str(i) for i in range(50)], np.arange(50)
    chosen = [
        select_classes(ClassesConfig(first=first, seed=3), names, labels).classes
        for first in (10, 20, 50)
    ]
    assert chosen[1][:10] == chosen[0] and chosen[2][:20] == chosen[1]
    assert sorted(chosen[2]) == list(range(50)) != list(chosen[2])
    assert chosen[0] != select_classes(ClassesConfig(first=10, seed=4), names, labels).classes
    with pytest.raises(ValueError, match=r"classes\.first is 51, but the data set has 50"):
        select_classes(ClassesConfig(first=51), names, labels)


@pytest.mark.parametrize("backend", ["memory", "ffcv"])
@pytest.mark.parametrize("mode", ["raw", "jpg"])
def test_a_loader_gives_the_chosen_classes_of_a_beton(
    backend: str, mode: str, tmp_path: Path
) -> None:
    if backend == "ffcv":
        pytest.importorskip("ffcv")
    elif mode == "jpg":
        pytest.skip("the memory backend reads no JPEG")
    images = pictures(40, 12, 12, 3)
    labels = [i % 5 for i in range(40)]
    path = write(tmp_path / "x.beton", images, labels, mode)
    classes = ClassesConfig(names=[4, 2])
    data = DataConfig(train=str(path), classes=classes, backend=backend)  # type: ignore[arg-type]
    whole = DataConfig(train=str(path), backend=backend)  # type: ignore[arg-type]
    kept = [i for i in range(40) if labels[i] in (4, 2)]
    world = World(0, 1, 0)
    loader = open_train_loader(data, 12, 8, 0, world)
    plain = open_train_loader(whole, 12, 8, 0, world)
    assert loader.info.num_samples == 16 and loader.info.classes == (4, 2)
    assert loader.info.num_classes == 2 and loader.steps_per_epoch == 2
    stored = {
        int(sample): image
        for batch in plain.epoch(0)
        for image, sample in zip(batch.images, batch.sample_ids, strict=True)
    }
    seen = []
    for batch in loader.epoch(0):
        for image, label, sample in zip(batch.images, batch.labels, batch.sample_ids, strict=True):
            index = kept[int(sample)]
            assert int(label) == {4: 0, 2: 1}[labels[index]]
            assert (image == stored[index]).all()
            seen.append(int(sample))
    assert sorted(seen) == list(range(16))
    loader.close()
    plain.close()


def test_a_subset_hashes_like_a_data_set_of_its_own(tmp_path: Path) -> None:
    images = pictures(30, 8, 8, 1)
    labels = [i % 3 for i in range(30)]
    path = write(tmp_path / "x.beton", images, labels)
    data = DataConfig(classes=ClassesConfig(names=[2, 0]))
    loader = open_block_loader(str(path), "val", 8, data)
    expected = ContentHash()
    for image, label in zip(images, labels, strict=True):
        if label != 1:
            expected.update({2: 0, 0: 1}[label], image)
    assert loader.dataset_sha256() == expected.hexdigest()
    assert [len(batch.labels) for batch in loader.blocks([0])] == [20]
    loader.close()
