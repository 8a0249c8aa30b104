"""Random resized crops and windows of resized pictures against PIL, to the bit."""

import io
import tarfile

import numpy as np
import PIL
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data import kernels
from pipeline.data.order import AUGMENTATION, sample_hashes
from tests.data.pil_augment import box, resize, to_array, to_pil
from tests.shared_data import shared_file

PILLOW = int(PIL.__version__.split(".")[0])
KEYS = sample_hashes(AUGMENTATION, 7, 0, np.arange(4000))
DEFAULT = kernels.Box((0.08, 1.0), (3 / 4, 4 / 3))
rng = np.random.default_rng(0)
many = settings(deadline=None, max_examples=150, derandomize=True)
sides = st.integers(1, 60)
channels = st.sampled_from([1, 3])


def picture(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def draws(key: np.uint64) -> list[float]:
    return [kernels.uniform(key, n) for n in range(8, 48)]


@many
@given(sides, sides, sides, sides, channels, st.integers(0, 9))
@example(1, 1, 60, 60, 3, 0)
@example(60, 1, 7, 9, 1, 0)
@example(1, 60, 60, 1, 3, 0)
@example(50, 40, 20, 30, 3, 0)  # the vertical pass first
def test_a_whole_picture_is_resized_as_by_pil(
    height: int, width: int, rows: int, columns: int, channels: int, seed: int
) -> None:
    before = picture(height, width, channels, seed)
    out = np.full((rows, columns, channels), 77, np.uint8)
    kernels.resize_window(before, rows, columns, 0, 0, out)
    assert np.array_equal(out, to_array(resize(to_pil(before), rows, columns)))


@many
@given(st.data(), sides, sides, channels)
def test_a_window_is_cut_from_what_pil_would_give(
    data: st.DataObject, height: int, width: int, channels: int
) -> None:
    target_h, target_w = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    top, left = data.draw(st.integers(0, target_h - 1)), data.draw(st.integers(0, target_w - 1))
    rows, columns = (
        data.draw(st.integers(1, target_h - top)),
        data.draw(st.integers(1, target_w - left)),
    )
    before = picture(height, width, channels)
    out = np.full((rows, columns, channels), 77, np.uint8)
    kernels.resize_window(before, target_h, target_w, top, left, out)
    whole = to_array(resize(to_pil(before), target_h, target_w))
    assert np.array_equal(out, whole[top : top + rows, left : left + columns])


@pytest.mark.skipif(PILLOW < 13, reason="earlier Pillows never resize the columns first")
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (600, 200), (200, 600)])
def test_pil_resizes_both_axes_in_the_order_that_the_tests_assume(size: tuple[int, int]) -> None:
    one = Image.fromarray(picture(*size, 3))
    assert one.resize((224, 224), Image.Resampling.BILINEAR) == resize(one, 224, 224)


def test_extreme_values_and_long_filters_do_not_overflow() -> None:
    for value in (0, 255):
        before = np.full((4001, 3, 3), value, np.uint8)
        out = np.empty((1, 2, 3), np.uint8)
        kernels.resize_window(before, 1, 2, 0, 0, out)
        assert (out == value).all()


def test_the_middle_of_a_line_of_4000_pixels_at_256_times_its_size() -> None:
    """PIL would need a million columns; it agrees on the part of the line that the window sees."""
    before = picture(1, 4000, 3)
    out = np.empty((224, 224, 3), np.uint8)
    left = (1_024_000 - 224) // 2
    kernels.resize_window(before, 256, 1_024_000, 16, left, out)
    first = left // 256 - 5
    part = resize(to_pil(before[:, first : first + 11]), 256, 11 * 256)
    left -= 256 * first
    assert np.array_equal(out, to_array(part)[16:240, left : left + 224])


@many
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.integers(0, len(KEYS) - 1),
    st.sampled_from(
        [DEFAULT, kernels.Box((0.5, 0.5), (1.0, 1.0)), kernels.Box((0.9, 1.0), (3.0, 4.0))]
    ),
)
@example(1, 4000, 0, DEFAULT)
@example(4000, 1, 0, DEFAULT)
@example(300, 1, 0, kernels.Box((0.9, 1.0), (0.5, 1.0)))
@example(2, 1, 0, kernels.Box((0.9, 1.0), (3.0, 4.0)))  # torchvision: an empty box
def test_boxes_are_torchvisions(height: int, width: int, number: int, how: kernels.Box) -> None:
    key = KEYS[number]
    expected = box(height, width, draws(key), *how)
    assert kernels.random_box(height, width, key, how) == expected
    y, x, h, w = expected
    assert 0 <= y <= y + h <= height and 0 <= x <= x + w <= width


@pytest.mark.parametrize("channels", [1, 3])
def test_a_resized_crop_is_pils(channels: int) -> None:
    before = picture(75, 100, channels)
    for key in KEYS[:100]:
        y, x, h, w = box(75, 100, draws(key), *DEFAULT)
        for size in (12, 64):
            out = np.empty((size, size, channels), np.uint8)
            kernels.resized_crop(before, key, DEFAULT, out)
            part = to_pil(before).crop((x, y, x + w, y + h))
            assert np.array_equal(out, to_array(resize(part, size, size)))


def test_photographs_of_every_shape_are_cropped_as_by_pil() -> None:
    with tarfile.open(shared_file("unit_mini.tar")) as tar:
        files = [member for member in tar if member.isfile() and member.name.endswith("JPEG")]
        files = [file for file in files if file.name.startswith("edge")] + files[::15]
        photos = [
            np.asarray(Image.open(io.BytesIO(tar.extractfile(file).read())).convert("RGB"))
            for file in files
        ]
    assert len({photo.shape for photo in photos}) > 3
    out = np.empty((224, 224, 3), np.uint8)
    for photo, key in zip(photos, KEYS, strict=False):
        y, x, h, w = box(*photo.shape[:2], draws(key), *DEFAULT)
        kernels.resized_crop(photo, key, DEFAULT, out)
        part = Image.fromarray(photo).crop((x, y, x + w, y + h))
        assert np.array_equal(out, to_array(resize(part, 224, 224)))


def test_boxes_have_the_areas_aspects_and_places_of_the_paper() -> None:
    boxes = np.array([kernels.random_box(1000, 1000, key, DEFAULT) for key in KEYS])
    y, x, h, w = boxes.T
    areas, aspects = h * w / 1e6, np.log(w / h)
    assert 0.079 < areas.min() < 0.09 and 0.95 < areas.max() <= 1
    # Large areas of an uneven aspect do not fit and are drawn again: below 3/4 none is refused.
    shares = np.histogram(areas, bins=4, range=(0.08, 0.7))[0]
    assert np.abs(shares - shares.mean()).max() < 5 * np.sqrt(shares.mean())
    assert aspects.min() > np.log(0.748) and aspects.max() < np.log(1.337)
    assert abs(aspects.mean()) < 0.02
    for place, side in ((y, h), (x, w)):
        place = place[side < 990] / (1000 - side[side < 990])
        assert abs(place.mean() - 0.5) < 0.03 and place.min() < 0.01 and place.max() > 0.99
