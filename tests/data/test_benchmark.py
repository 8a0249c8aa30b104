"""The loader benchmark: PIL's side does what torchvision does, and all read the same samples."""

import json
import multiprocessing
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.benchmark import Settings, measure, record, table
from pipeline.data.benchmark.contenders import Contender, open_contenders
from pipeline.data.benchmark.pil import PilPictures, random_crop, resized_crop
from tests.data.betons import pictures, smooth_pictures, write

SIZE = 32


def coordinates(height: int, width: int) -> Image.Image:
    """A picture whose pixels say where they are."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([y, x, 0 * x], axis=-1).astype(np.uint8))


def test_random_crop_is_a_window_of_the_resized_picture() -> None:
    random.seed(0)
    corners = set()
    for _ in range(200):
        found = np.asarray(random_crop(coordinates(37, 60), SIZE))  # 37: no resizing for 32
        top, left = int(found[0, 0, 0]), int(found[0, 0, 1])
        expected = np.asarray(coordinates(37, 60))[top : top + SIZE, left : left + SIZE]
        assert np.array_equal(found, expected)
        corners.add((top, left))
    assert {top for top, _ in corners} == set(range(6))
    assert min(left for _, left in corners) == 0 and max(left for _, left in corners) == 28
    larger = np.asarray(random_crop(Image.new("RGB", (100, 74), (1, 2, 3)), SIZE))
    assert larger.shape == (SIZE, SIZE, 3) and (larger == (1, 2, 3)).all()


def test_resized_crop_has_torchvisions_areas_and_ratios() -> None:
    random.seed(0)
    areas, ratios = [], []
    for _ in range(400):
        found = np.asarray(resized_crop(coordinates(200, 250), SIZE)).astype(float)
        assert found.shape == (SIZE, SIZE, 3)
        # Between the middles of the first and the last pixel lies 31/32 of the box.
        height = (found[-1, :, 0].mean() - found[0, :, 0].mean()) * SIZE / (SIZE - 1)
        width = (found[:, -1, 1].mean() - found[:, 0, 1].mean()) * SIZE / (SIZE - 1)
        areas.append(height * width / 50_000)
        ratios.append(width / height)
    assert 0.06 < min(areas) < 0.15 and 0.8 < max(areas) < 1.02
    assert 0.7 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.4
    assert np.median(ratios) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(10, 200, (0, 9), (93, 106)), (200, 9, (94, 105), (0, 8))],
)
def test_a_picture_too_long_for_any_box_gives_its_middle(
    height: int, width: int, rows: tuple[int, int], columns: tuple[int, int], monkeypatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    found = np.asarray(resized_crop(coordinates(height, width), SIZE))
    assert (found[0, 0, 0], found[-1, -1, 0]) == pytest.approx(rows, abs=1)
    assert (found[0, 0, 1], found[-1, -1, 1]) == pytest.approx(columns, abs=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures: as files, and as .beton files of JPEGs and of pixels."""
    folder = tmp_path_factory.mktemp("photos")
    sizes = [(40 + i, 50 + 2 * i) for i in range(24)]
    made = smooth_pictures(sizes)
    write(folder / "jpg.beton", made, [i % 3 for i in range(24)], "jpg")
    write(folder / "raw.beton", made, [i % 3 for i in range(24)])
    for i, picture in enumerate(made):
        path = folder / "photos" / f"class{i % 3}" / f"{i}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, "JPEG")
    return folder


def settings(data: Path, **changes) -> Settings:
    chosen = {
        "betons": [data / "jpg.beton", data / "raw.beton"], "folder": data / "photos",
        "workers": [1], "size": SIZE, "batch_size": 4, "batches": 3, "rounds": 2,
    }  # fmt: skip
    return Settings(**{**chosen, **changes})


def test_every_loader_has_its_turn_in_every_round(data: Path) -> None:
    chosen = settings(data)
    threads = threading.active_count()
    found = measure(chosen)
    assert [contender.name for contender in found] == [
        "PIL DataLoader", "FFCV jpg.beton", "FFCV raw.beton", "memory raw.beton",
    ]  # fmt: skip
    for contender in found:
        assert len(contender.images_per_second) == len(contender.images_per_cpu_second) == 2
        assert min(contender.images_per_second) > 0 and contender.first_batch_seconds > 0
    assert threading.active_count() <= threads and not multiprocessing.active_children()

    read_back = json.loads(json.dumps(record(chosen, found)))
    assert read_back["settings"]["folder"] == str(data / "photos")
    assert [loader["images_per_second"] for loader in read_back["loaders"]] == [
        contender.images_per_second for contender in found
    ]
    lines = table(found).splitlines()
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1


def test_generated_images_are_mixed_in_as_a_contender_more(data: Path) -> None:
    chosen = settings(data, betons=[data / "raw.beton"], folder=None, generated=data / "raw.beton")
    contenders = list(open_contenders(chosen))
    try:
        assert [contender.name for contender in contenders] == [
            "FFCV raw.beton", "FFCV raw.beton + raw.beton 1:1",
            "memory raw.beton", "memory raw.beton + raw.beton 1:1",
        ]  # fmt: skip
        for contender in contenders:
            batch = next(contender.batches)
            assert batch.is_generated.tolist() == [False, "+" in contender.name] * 2
    finally:
        for contender in contenders:
            contender.close()
    assert record(chosen, [])["settings"]["generated"] == str(data / "raw.beton")
    few = write(data / "few.beton", smooth_pictures([(40, 40)] * 3), [0, 1, 2])
    with pytest.raises(ValueError, match=r"--batch-size 8 has 4 generated images, and .*few.beton"):
        measure(settings(data, folder=None, batch_size=8, generated=few))


def test_the_table_has_medians_and_ratios() -> None:
    def made(name: str, *speeds: float) -> Contender:
        none = iter(())
        return Contender(name, 1, 0.5, none, 1, lambda: None, list(speeds), [2 * s for s in speeds])

    text = table([made("PIL DataLoader", 100, 90, 300), made("FFCV a.beton", 250, 240, 1)])
    pil, ours = text.splitlines()[1:]
    assert " ".join(pil.split()) == "PIL DataLoader 1 100 90 - 300 1.00 x 200 0.50 s"
    assert " ".join(ours.split()) == "FFCV a.beton 1 240 1 - 250 2.40 x 480 0.50 s"
    assert "x" not in table([made("FFCV a.baton", 2.0)]).splitlines()[1]


def test_all_read_the_same_samples_across_epochs(data: Path) -> None:
    chosen = settings(data, workers=[2])
    contenders = list(open_contenders(chosen))
    try:
        ours = [
            [next(contender.batches).sample_ids.tolist() for _ in range(8)]
            for contender in contenders[1:]
        ]
        assert ours[0] == ours[1] == ours[2]
        # Of six batches an epoch the first was taken at the opening.
        first_epoch, second = ours[0][:5], ours[0][5:]
        assert len({sample for batch in first_epoch for sample in batch}) == 20
        assert len({sample for batch in second for sample in batch}) == 12
        for contender in contenders:
            batch = next(contender.batches)
            images = getattr(batch, "images", batch)
            assert images.shape == (4, 3, SIZE, SIZE) and str(images.dtype) == "torch.uint8"
    finally:
        for contender in contenders:
            contender.close()
            contender.batches = iter(())


def test_pil_pictures_are_those_of_the_folder(data: Path) -> None:
    found = PilPictures(data / "photos", SIZE, "random")
    assert len(found) == 24 and found[0].shape == (3, SIZE, SIZE)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"workers": [1, 4096]}, "--workers 4096 must be from 1 to"),
        ({"workers": [0]}, "--workers 0 must be from 1 to"),
        ({"rounds": 0}, "--rounds 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"batch_size": 25}, "--batch-size 25 is larger than the 24 images"),
        ({"folder": Path("none")}, "--folder none holds no"),
        ({"folder": None, "betons": [Path("none.beton")]}, "none.beton does not exist"),
        ({"folder": None, "crop": "random"}, "write it again"),
    ],
)
def test_mistakes(data: Path, changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        measure(settings(data, **changes))
    assert sentence in str(error.value)
    assert not multiprocessing.active_children()


def test_random_crops_of_a_file_written_for_them(tmp_path: Path) -> None:
    made = pictures(4, 37, 60, 3) + pictures(4, 50, 37, 3)
    path = write(tmp_path / "raw.beton", made, [0] * 8)
    found = measure(Settings([path], None, [1], SIZE, "random", batch_size=2, batches=2, rounds=1))
    assert [contender.name for contender in found] == ["FFCV raw.beton", "memory raw.beton"]
