"""From the official archives to .beton files: the same pixels, labels and names."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.betons.format import read_beton
from pipeline.data.betons.storage import storage_of
from pipeline.data.betons.write import write_beton
from pipeline.data.pixels import exact_photo
from pipeline.data.sources import Split, open_source
from tests.data.sources import test_cifar, test_mnist, test_tiny_imagenet
from tests.data.sources.layouts import (
    make_folder,
    make_tar_gz,
    make_zip,
    official_archives,
    val_name,
)


def specs(home: Path) -> dict[str, str]:
    home.mkdir()
    cifar = make_tar_gz(
        home / "cifar-100-python.tar.gz", test_cifar.in_folder("cifar100", "python")
    )
    return {
        "imagenet": f"imagenet:{official_archives(home / 'in1k')}",
        "cifar100": f"cifar100:{cifar}",
        "mnist": f"mnist:{make_folder(home / 'mnist', test_mnist.files(gz=True))}",
        "tiny_imagenet": "tiny_imagenet:"
        + str(make_zip(home / "tiny.zip", test_tiny_imagenet.tiny_files())),
    }


@pytest.mark.parametrize("kind", ["imagenet", "cifar100", "mnist", "tiny_imagenet"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_what_is_written_is_the_source(tmp_path: Path, kind: str, split: Split) -> None:
    spec = specs(tmp_path / "data")[kind]
    storage = storage_of("exact", 56 if kind == "imagenet" else None)
    card = write_beton(spec, split, storage, tmp_path / "x.beton", workers=2)
    written, source = read_beton(tmp_path / "x.beton"), open_source(spec, split)
    assert written.class_names == source.class_names
    assert written.labels.tolist() == source.labels.tolist()
    for index in range(len(source)):
        image = source.image(index)
        expected = exact_photo(image, 56) if source.photographs else image
        assert np.array_equal(written.image(index), expected)
    assert card["source_sha256"] == source.identity


def test_unreadable_pictures_are_skipped_and_nothing_else(tmp_path: Path) -> None:
    home = official_archives(tmp_path / "in1k")
    archive = home / "ILSVRC2012_img_val.tar"
    data = bytearray(archive.read_bytes())
    at = data.index(b"\xff\xd8", data.index(val_name(3).encode()))
    data[at : at + 6] = b"<html>"  # one picture was replaced by a page
    archive.write_bytes(data)
    out = tmp_path / "val.beton"
    with pytest.raises(ValueError, match=r"val\.tar:ILSVRC2012_val_00000003\.JPEG cannot be read"):
        write_beton(f"imagenet:{home}", "val", storage_of("exact", 56), out)
    card = write_beton(f"imagenet:{home}", "val", storage_of("exact", 56), out, on_error="skip")
    assert card["num_samples"] == 7
    assert val_name(3) in str(card)
    (home / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(ValueError, match="nothing tells their classes"):
        write_beton(
            f"imagenet:{home}", "val", storage_of("exact", 56), out, on_error="skip", force=True
        )
