import numpy as np
import pytest
from PIL import Image

from pipeline.data import pixels
from pipeline.data.content import ContentHash
from pipeline.data.pixels import exact_photo, limited_photo, train_photo
from pipeline.data.sources import open_source
from tests.shared_data import shared_file


def reference(photo: np.ndarray, size: int) -> np.ndarray:
    """torchvision's Resize(256) and CenterCrop(224) of a PIL picture, step by step."""
    picture = Image.fromarray(photo)
    shorter = round(size / 0.875)
    width, height = picture.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = shorter, int(shorter * long / short)
    new_size = (new_short, new_long) if width <= height else (new_long, new_short)
    picture = picture.resize(new_size, Image.BILINEAR)
    left = round((picture.width - size) / 2.0)
    top = round((picture.height - size) / 2.0)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("shape", [(300, 400), (256, 257), (257, 256), (75, 56), (10, 90), (1, 1)])
@pytest.mark.parametrize("size", [224, 64])
def test_exact_is_resize_and_center_crop(shape: tuple[int, int], size: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(exact_photo(photo, size), reference(photo, size))


def test_exact_on_real_photographs() -> None:
    source = open_source(f"folder:{shared_file('unit_mini.tar')}", "val")
    for index in range(0, len(source), 5):
        photo = source.image(index)
        assert np.array_equal(exact_photo(photo, 224), reference(photo, 224))


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (1, 4000), (4000, 1), (50, 50)])
def test_train_leaves_room_to_crop_and_no_more(shape: tuple[int, int]) -> None:
    stored = train_photo(np.zeros((*shape, 3), np.uint8), 224)
    assert min(stored.shape[:2]) == 256
    assert max(stored.shape[:2]) <= 4 * 256


def test_content_hash_tells_labels_shapes_and_pixels_apart() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    def digest(label: int, image: np.ndarray) -> str:
        content = ContentHash()
        content.update(label, image)
        return content.hexdigest()

    digests = {
        digest(0, image),
        digest(1, image),
        digest(0, image[::-1]),
        digest(0, image.reshape(4, 1, 3)),
        digest(0, image.reshape(1, 4, 3)),
    }
    assert len(digests) == 5
    assert digest(0, np.asfortranarray(image)) == digest(0, image)


@pytest.mark.parametrize("shape", [(300, 400), (20, 1500), (1500, 20), (1, 90), (700, 300), (5, 5)])
def test_of_a_very_long_picture_the_same_middle_is_computed_alone(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    whole = reference(photo, 224)
    monkeypatch.setattr(pixels, "LARGEST_RESIZED", 0)
    assert np.array_equal(exact_photo(photo, 224), whole)


def test_a_line_of_pixels_costs_little_memory() -> None:
    photo = np.random.default_rng(2).integers(0, 256, (1, 4000, 3), dtype=np.uint8)
    image = exact_photo(photo, 224)
    assert (image == image[:1]).all()
    assert set(np.unique(image[0, :, 0])) <= set(range(256)) and image.std() > 0
    turned = exact_photo(photo.transpose(1, 0, 2), 224)
    assert np.array_equal(turned.transpose(1, 0, 2), image)


@pytest.mark.parametrize("shape", [(300, 400), (4000, 1), (50, 20)])
def test_limited_shrinks_only_what_is_longer(shape: tuple[int, int]) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    limited = limited_photo(photo, 100)
    assert max(limited.shape[:2]) == min(100, max(shape))
    assert min(limited.shape[:2]) >= 1
    if max(shape) <= 100:
        assert limited is photo
