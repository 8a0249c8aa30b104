"""Which generated sets are taken and which refused, in which words; their sha256."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DataConfig, GeneratedConfig, parse
from pipeline.data.base import TrainLoader
from pipeline.data.betons.format import read_beton
from pipeline.data.betons.storage import storage_of
from pipeline.data.betons.write import write_beton
from pipeline.data.generated import open_generated
from pipeline.data.loader import open_train_loader
from pipeline.data.memory_loader import MemoryTrainLoader
from pipeline.distributed import World
from tests.data import betons

NAMES = ["bird", "cat", "dog"]


def npz(
    path: Path, count: int = 12, names: list[str] | None = None, seed: int = 0, **changes
) -> str:
    """Random images of three classes; a source of its own."""
    arrays = {
        "image": np.stack(betons.pictures(count, 8, 8, 3, seed))
        if count
        else np.zeros((0, 8, 8, 3), np.uint8),
        "label": np.arange(count) % 3,
        **({} if names is None else {"class_names": np.array(names)}),
        **changes,
    }
    np.savez(path, **arrays)
    return f"npz:{path}"


def beton(path: Path, *arguments, **changes) -> str:
    """The same as a .beton file with its data card."""
    source = npz(path.with_suffix(".npz"), *arguments, **changes)
    write_beton(source, "train", storage_of("exact"), path, workers=1)
    return str(path)


@pytest.fixture
def real(tmp_path: Path) -> str:
    return beton(tmp_path / "real.beton", 24, NAMES, 7)


def mixed(real: str, path: str | list[str], size: int = 8, **data) -> TrainLoader:
    generated = GeneratedConfig(path=path, **data.pop("generated", {}))
    settings = DataConfig(
        train=real, generated=generated, workers=1, **{"backend": "memory", **data}
    )
    return open_train_loader(settings, size, 12, 0, World(0, 1, 0))


def refused(real: str, path: str | list[str], sentence: str, **data) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        mixed(real, path, **data)
    assert "\n" not in str(error.value)


def test_other_classes_are_refused(real: str, tmp_path: Path) -> None:
    mixed(real, npz(tmp_path / "same.npz", names=NAMES)).close()
    refused(
        real, npz(tmp_path / "order.npz", names=["bird", "dog", "cat"]),
        r"order\.npz calls class 1 'dog', and data\.train .*real\.beton calls it 'cat'.*same order",
    )  # fmt: skip
    refused(real, npz(tmp_path / "more.npz", names=[*NAMES, "elk"]), r"has 4 classes, .* 3 classes")
    refused(
        real, npz(tmp_path / "label.npz", label=np.arange(12) % 4),
        r"label\.npz has labels up to 3, and data\.train .* 3 classes, 0 to 2",
    )  # fmt: skip
    refused(
        real, npz(tmp_path / "named.npz", names=NAMES, label=np.arange(12) % 4),
        r"data\.generated\.path: .*label 3 of sample 3 is out of range",
    )  # fmt: skip


def test_classes_without_names_are_taken_and_said(
    real: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed(real, npz(tmp_path / "x.npz")).close()
    assert "classes without names; its labels 0 to 2 are taken" in capsys.readouterr().out
    mixed(real, npz(tmp_path / "y.npz", names=NAMES)).close()
    assert "without names" not in capsys.readouterr().out


def test_other_images_are_refused(real: str, tmp_path: Path) -> None:
    grey = np.zeros((12, 8, 8), np.uint8)
    refused(real, npz(tmp_path / "grey.npz", image=grey), "images with 1 channels, .* with 3")
    large = np.zeros((12, 9, 9, 3), np.uint8)
    for path in (npz(tmp_path / "l.npz", image=large), beton(tmp_path / "l.beton", image=large)):
        refused(real, path, r"data\.generated\.path: .*9x9 pixels, and the model takes 8x8")


def test_nothing_there_is_refused(real: str, tmp_path: Path) -> None:
    refused(real, npz(tmp_path / "none.npz", 0), r"data\.generated\.path: none\.npz .*no images")
    refused(real, str(tmp_path / "rael.beton"), r"does not exist: did you mean .*real\.beton")
    (tmp_path / "empty").mkdir()
    refused(real, str(tmp_path / "empty"), r"empty: no \.beton file is there")
    refused(real, str(tmp_path / "part_*.beton"), r"no \.beton file is there")


def test_the_real_images_are_not_generated_ones(real: str, tmp_path: Path) -> None:
    """By place, by content and by what the data card says of where they come from."""
    val = beton(tmp_path / "val.beton", 6, NAMES, 8)
    copy = tmp_path / "copy.beton"
    shutil.copy(val, copy)
    shutil.copy(f"{val}.json", f"{copy}.json")
    (tmp_path / "link.beton").symlink_to(real)
    refused(real, real, r"real\.beton is the set of data\.train")
    refused(real, str(tmp_path / "link.beton"), r"link\.beton is the set of data\.train")
    refused(real, str(copy), r"copy\.beton is the set of data\.val .*val\.beton", val=val)
    Path(f"{copy}.json").unlink()
    refused(real, str(copy), r"copy\.beton is the set of data\.val .*val\.beton", val=val)
    learnt = beton(tmp_path / "learnt.beton", 12, NAMES, 9)
    card = json.loads(Path(f"{learnt}.json").read_text())
    seen = json.loads(Path(f"{val}.json").read_text())["dataset_sha256"]
    card["training_data"] = {"spec": "x", "num_samples": 6, "dataset_sha256": seen}
    Path(f"{learnt}.json").write_text(json.dumps(card))
    refused(real, learnt, r"generator was trained on the set of data\.val .*val\.beton", val=val)
    mixed(real, learnt).close()
    write_beton("digits", "val", storage_of("exact"), tmp_path / "d.beton", workers=1)
    digits = DataConfig(
        train="digits", val="digits", generated=GeneratedConfig(path=str(tmp_path / "d.beton"))
    )
    with pytest.raises(ValueError, match=r"d\.beton is the set of data\.val digits"):
        open_train_loader(digits, 8, 12, 0, World(0, 1, 0))


@pytest.mark.parametrize("ratio", ["0:1", "1:0", "-1", "1:-3", 0, -2.0, "one", "1:2:3", None, ""])
def test_a_ratio_that_is_none(ratio: object) -> None:
    tree = {
        "name": "x", "model": {"name": "liresnet", "num_classes": 3, "image_size": 8},
        "data": {"generated": {"path": "g.beton", "ratio": ratio}},
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"key 'data\.generated\.ratio' has the value .*above 0"):
        parse(tree)


@pytest.mark.parametrize(
    ("ratio", "text", "parts"),
    [
        ("1:1", "1:1", (1, 1)), ("2:6", "1:3", (1, 3)), (3, "1:3", (1, 3)), (0.5, "2:1", (2, 1)),
        ("0.3:0.7", "3:7", (3, 7)), (" 1 : 3 ", "1:3", (1, 3)),
    ],
)  # fmt: skip
def test_ratios_in_lowest_terms(ratio: object, text: str, parts: tuple[int, int]) -> None:
    found = GeneratedConfig.model_validate({"path": "g.beton", "ratio": ratio})
    assert (found.ratio, found.parts) == (text, parts)


def test_a_batch_that_is_too_large_says_of_which_part(real: str, tmp_path: Path) -> None:
    data = DataConfig(train=real, generated=GeneratedConfig(path=npz(tmp_path / "x.npz"), ratio=3))
    with pytest.raises(ValueError, match=r"size 100 has 25 real images, larger .* take 96 or less"):
        open_train_loader(data, 8, 100, 0, World(0, 1, 0))
    open_train_loader(data, 8, 96, 0, World(0, 1, 0)).close()


def test_some_of_the_classes(real: str, tmp_path: Path) -> None:
    """A set of all classes is cut like the real one; one of those classes is taken as it is."""
    whole = npz(tmp_path / "whole.npz", names=NAMES)
    part = npz(tmp_path / "part.npz", names=["dog", "bird"], label=np.arange(12) % 2)
    for path, count in ((whole, 8), (part, 12)):
        loader = mixed(real, path, classes=["dog", "bird"])
        assert loader.info.generated is not None and loader.info.generated.num_samples == count
        assert loader.info.num_samples == 16 and loader.info.num_classes == 2
        batch = next(iter(loader.epoch(0)))
        assert set(batch.labels[batch.is_generated].tolist()) <= {0, 1}
        loader.close()
    other = npz(tmp_path / "other.npz", names=["cat", "dog"], label=np.arange(12) % 2)
    refused(real, other, "calls class 0 'cat', .* calls it 'dog'", classes=["dog", "bird"])


def test_the_sha256_is_of_the_content_with_or_without_a_card(tmp_path: Path) -> None:
    path = beton(tmp_path / "g.beton", 12, NAMES)

    def sha256(of: str | list[str], **more: str) -> str:
        data = DataConfig(generated=GeneratedConfig(path=of, **more))
        return open_generated(data, 8).sha256

    first = sha256(path)
    card = Path(f"{path}.json")
    assert first == json.loads(card.read_text())["dataset_sha256"]
    card.rename(tmp_path / "card.json")
    assert sha256(path) == first
    with Path(path).open("r+b") as file:  # one pixel; the card tells nothing of it any more
        file.seek(int(read_beton(Path(path))._places[5]))
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    changed = sha256(path)
    assert changed != first
    with pytest.raises(ValueError, match=f"sha256 {changed}, and .*sha256 is {first}: .*another"):
        sha256(path, sha256=first)
    both = [path, beton(tmp_path / "h.beton", 12, NAMES, 1)]
    Path(f"{both[1]}.json").unlink()  # as the first: a set has names or not
    assert len({changed, sha256(both), sha256(both[::-1])}) == 3
    (tmp_path / "card.json").rename(card)
    tree = json.loads(card.read_text())
    card.write_text(json.dumps({**tree, "file_bytes": 1}))
    assert sha256(path) == changed, "a card of another file is not believed"


def test_every_file_is_staged(real: str, tmp_path: Path) -> None:
    files = [beton(tmp_path / f"g{seed}.beton", 12, NAMES, seed) for seed in range(2)]
    plain = mixed(real, files)
    copied = mixed(real, files, stage=str(tmp_path / "node"))
    assert len(list((tmp_path / "node").glob("g?-*.beton"))) == 2
    for name in ("real.beton", "g0.beton", "g1.beton"):
        (tmp_path / name).unlink()  # nobody reads these any more
    for mine, theirs in zip(copied.epoch(0), plain.epoch(0), strict=True):
        assert all((a == b).all() for a, b in zip(mine.fields(), theirs.fields(), strict=True))
    assert copied.info.generated == plain.info.generated
    for loader in (plain, copied):
        loader.close()


@pytest.mark.parametrize("backend", ["memory", "auto"])
def test_several_files_are_one_set(backend: str, real: str, tmp_path: Path) -> None:
    folder = tmp_path / "generated"
    folder.mkdir()
    one = beton(tmp_path / "one.beton", 20, NAMES)
    whole = np.load(tmp_path / "one.npz")
    for number, part in enumerate((slice(0, 6), slice(6, 7), slice(7, 20))):
        beton(
            folder / f"part_{number}.beton", 20, NAMES,
            image=whole["image"][part], label=whole["label"][part],
        )  # fmt: skip
    alone = mixed(real, one, backend=backend)
    for path in (
        str(folder), str(folder / "part_*.beton"), [str(p) for p in sorted(folder.glob("*.beton"))],
    ):  # fmt: skip
        loader = mixed(real, path, backend=backend)
        assert isinstance(loader._generated, MemoryTrainLoader)
        for mine, theirs in zip(loader.epoch(1), alone.epoch(1), strict=True):
            assert all((a == b).all() for a, b in zip(mine.fields(), theirs.fields(), strict=True))
        loader.close()
    alone.close()
    refused(real, [one, one], "lists .*one.beton twice")
    refused(real, [one, "npz:x.npz"], r"lists npz:x\.npz, and only \.beton files")
    other = beton(tmp_path / "other.beton", 6, ["bird", "dog", "cat"])
    refused(real, [one, other], r"other\.beton has other classes or channels than .*one\.beton")
    large = beton(tmp_path / "large.beton", 6, NAMES, image=np.zeros((6, 9, 9, 3), np.uint8))
    refused(real, [one, large], r"data\.generated\.path: .*large\.beton has 9x9 pixels")


def test_files_of_jpegs_need_ffcvs_decoder(tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    photos = betons.smooth_pictures([(18, 18)] * 9)
    real = betons.write(tmp_path / "real.beton", photos, [0, 1, 2] * 3, "jpg")
    files = []
    for number in range(2):
        path = tmp_path / f"g{number}.beton"
        betons.write(path, betons.smooth_pictures([(18, 20)] * 9), [0, 1, 2] * 3, "jpg")
        files.append(str(path))
    together = mixed(str(real), files, size=16, backend="auto")
    alone = mixed(str(real), files[0], size=16, backend="auto")
    one, other = (next(iter(loader.epoch(0))) for loader in (together, alone))
    assert one.images.shape == other.images.shape == (12, 3, 16, 16)
    # The same pictures lie in both files, and libjpeg-turbo decodes both.
    pictures = together._generated._pictures
    assert np.array_equal(pictures.picture(2), pictures.picture(11))
    for loader in (together, alone):
        loader.close()
    refused(str(real), files, "JPEG", size=16, backend="memory")
