"""The block loader: exact pixels, whole blocks, the content hash."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import DataConfig
from pipeline.data.betons.storage import storage_of
from pipeline.data.betons.write import write_beton
from pipeline.data.content import ContentHash
from pipeline.data.loader import BLOCK, open_block_loader
from pipeline.data.pixels import exact_photo
from pipeline.data.sources import open_source
from tests.data import betons
from tests.shared_data import shared_file


def test_blocks_are_whole_and_in_the_order_asked() -> None:
    loader = open_block_loader("digits", "val", 8)
    source = open_source("digits", "val")
    assert loader.num_blocks == 2 and loader.info.exact
    assert loader.info.image_shape == (1, 8, 8) and loader.info.num_classes == 10
    late, early = loader.blocks([1, 0])
    assert late.sample_ids.tolist() == list(range(BLOCK, 360))  # short, not padded
    assert early.sample_ids.tolist() == list(range(BLOCK))
    for batch in (early, late):
        assert batch.labels.tolist() == source.labels[batch.sample_ids].tolist()
        for image, index in zip(batch.images.numpy(), batch.sample_ids.tolist(), strict=True):
            assert np.array_equal(image.transpose(1, 2, 0), source.image(index))
    assert list(loader.blocks([])) == []
    loader.close()


def test_the_hash_is_that_of_the_source() -> None:
    expected = ContentHash()
    source = open_source("digits", "val")
    for index in range(len(source)):
        expected.update(int(source.labels[index]), source.image(index))
    loader = open_block_loader("digits", "val", 8, data=DataConfig(workers=2))
    assert loader.dataset_sha256() == expected.hexdigest()
    other = open_block_loader("digits", "train", 8)
    assert other.dataset_sha256() != expected.hexdigest()
    loader.close()
    other.close()


def test_photographs_come_through_the_exact_preset() -> None:
    spec = f"folder:{shared_file('unit_mini.tar')}"
    source = open_source(spec, "val")
    loader = open_block_loader(spec, "val", 56)
    (batch,) = loader.blocks([0])
    assert batch.images.shape == (30, 3, 56, 56)
    for index, image in enumerate(batch.images.numpy()):
        assert np.array_equal(image.transpose(1, 2, 0), exact_photo(source.image(index), 56))
    loader.close()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_beton_is_read_as_it_is(tmp_path: Path, channels: int) -> None:
    images = betons.pictures(300, 9, 9, channels)
    path = betons.write(tmp_path / "x.beton", images, [i % 4 for i in range(300)])
    loader = open_block_loader(str(path), "val", 9)
    found = np.concatenate([batch.images.numpy() for batch in loader.blocks([0, 1])])
    assert np.array_equal(found.transpose(0, 2, 3, 1), np.stack(images))
    assert loader.info.exact and loader.info.image_shape == (channels, 9, 9)
    loader.close()


def test_photographs_and_the_beton_written_from_them_are_the_same_data(tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    spec = f"folder:{shared_file('unit_mini.tar')}"
    card = write_beton(spec, "val", storage_of("exact", 56), tmp_path / "val.beton", workers=2)
    photos = open_block_loader(spec, "val", 56)
    beton = open_block_loader(str(tmp_path / "val.beton"), "val", 56)
    (one,), (other,) = photos.blocks([0]), beton.blocks([0])
    for mine, theirs in zip(one.fields(), other.fields(), strict=True):
        assert torch.equal(mine, theirs)
    assert photos.info.class_names == beton.info.class_names
    assert photos.dataset_sha256() == beton.dataset_sha256() == card["dataset_sha256"]
    photos.close()
    beton.close()


def test_closing_ends_the_threads() -> None:
    before = threading.active_count()
    loader = open_block_loader("digits", "val", 8, data=DataConfig(workers=2))
    next(loader.blocks([0, 1]))
    loader.close()
    assert threading.active_count() == before
