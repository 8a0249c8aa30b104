import numpy as np
import pytest
from PIL import Image

from pipeline.data.content import ContentHash
from pipeline.data.pixels import exact_photo, train_photo
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

    def digest(label: int, pixels: np.ndarray) -> str:
        content = ContentHash()
        content.update(label, pixels)
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
