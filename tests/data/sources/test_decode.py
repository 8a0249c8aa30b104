"""Photographs of every kind are right, or named and refused."""

import io
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from pipeline.data.sources import UnreadablePicture, open_source
from pipeline.data.sources.decode import decode_rgb
from tests.data.sources.layouts import make_folder
from tests.shared_data import shared_file

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)
SIXTEEN = RNG.integers(0, 65536, (12, 17, 4), dtype=np.uint16)


def saved(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    picture.save(data, form, **options)
    return data.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png16(pixels: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16 bits a channel, by the specification; PIL writes none in colour."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def adobe_cmyk(inverted: bool) -> bytes:
    """A CMYK JPEG; with Adobe's marker, its values are inverted."""
    cmyk = Image.fromarray(COLOURS).convert("CMYK")
    data = saved(cmyk, "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in data
    if inverted:
        return data
    at = data.index(b"\xff\xee")
    (size,) = struct.unpack(">H", data[at + 2 : at + 4])
    return data[:at] + data[at + 2 + size :]


RGB = Image.fromarray(COLOURS)
PALETTE = RGB.quantize(40)
ALPHA = RGB.copy()
ALPHA.putalpha(Image.fromarray(COLOURS[..., 0]))
GREY_ALPHA = RGB.convert("L")
GREY_ALPHA.putalpha(Image.fromarray(COLOURS[..., 1]))
FRAMES = [Image.fromarray(np.roll(COLOURS, 3 * i, axis=0)).quantize(60) for i in range(3)]
ROTATED = Image.Exif()
ROTATED[0x0112] = 6

KINDS = {
    "grey": saved(RGB.convert("L")),
    "grey JPEG": saved(RGB.convert("L"), "JPEG"),
    "1 bit": saved(RGB.convert("1")),
    "palette": saved(PALETTE),
    "palette, one colour transparent": saved(PALETTE, transparency=3),
    "palette, every colour's own transparency": saved(PALETTE, transparency=bytes(range(40))),
    "grey, one shade transparent": saved(RGB.convert("L"), transparency=7),
    "RGB, one colour transparent": saved(RGB, transparency=(1, 2, 3)),
    "RGBA": saved(ALPHA),
    "LA": saved(GREY_ALPHA),
    "CMYK as Adobe has it": adobe_cmyk(inverted=True),
    "CMYK without Adobe's marker": adobe_cmyk(inverted=False),
    "CMYK TIFF": saved(RGB.convert("CMYK"), "TIFF"),
    "YCbCr TIFF": saved(RGB.convert("YCbCr"), "TIFF"),
    "progressive JPEG": saved(RGB, "JPEG", progressive=True),
    "EXIF-rotated": saved(RGB, "JPEG", exif=ROTATED),
    "1x1": saved(RGB.crop((0, 0, 1, 1)), "JPEG"),
    "1x4000": saved(RGB.resize((1, 4000)), "JPEG"),
    "4000x1": saved(RGB.resize((4000, 1)), "JPEG"),
    "BMP": saved(RGB, "BMP"),
    "WebP": saved(RGB, "WEBP"),
    "animated GIF": saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "animated PNG": saved(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]),
    "MPO": saved(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_pixels_are_those_of_pil(kind: str) -> None:
    with Image.open(io.BytesIO(KINDS[kind])) as picture:
        expected = np.asarray(picture.convert("RGB"))
    found = decode_rgb(KINDS[kind], kind)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def test_what_pil_gives_is_what_was_drawn() -> None:
    """PIL is the reference above; here the truth is known without it."""
    assert np.array_equal(decode_rgb(saved(RGB), ""), COLOURS)
    assert np.array_equal(decode_rgb(KINDS["RGBA"], ""), COLOURS), "colour under transparency"
    assert np.array_equal(decode_rgb(KINDS["RGB, one colour transparent"], ""), COLOURS)
    assert np.array_equal(decode_rgb(KINDS["animated PNG"], ""), COLOURS), "the first frame"
    grey = np.asarray(RGB.convert("L"))
    for kind in ("grey", "LA", "grey, one shade transparent"):
        assert np.array_equal(decode_rgb(KINDS[kind], ""), np.stack([grey] * 3, axis=2))
    first = np.asarray(FRAMES[0].convert("RGB"))
    assert np.array_equal(decode_rgb(KINDS["animated GIF"], ""), first)
    for kind in ("CMYK as Adobe has it", "CMYK TIFF"):
        off = decode_rgb(KINDS[kind], "").astype(int) - COLOURS
        assert np.abs(off).mean() < 3, "not inverted"
    assert decode_rgb(KINDS["EXIF-rotated"], "").shape == (12, 17, 3), "not turned"
    assert decode_rgb(KINDS["1x4000"], "").shape == (4000, 1, 3)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_of_16_bits_the_high_byte_is_kept(colour_type: int, channels: int) -> None:
    found = decode_rgb(png16(SIXTEEN[..., :channels], colour_type), "deep.png")
    high = (SIXTEEN >> 8).astype(np.uint8)
    colours = high[..., :3] if channels > 2 else np.repeat(high[..., :1], 3, axis=2)
    assert np.array_equal(found, colours)


WHOLE_JPEG = saved(Image.fromarray(COLOURS).resize((80, 60)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>404</html>", r"no picture: it begins with b'<!DOCTYPE html><'"),
        (bytes(5000), "no picture"),
        (WHOLE_JPEG[:2], "no picture"),
        (WHOLE_JPEG[: len(WHOLE_JPEG) // 2], "truncated"),
        (WHOLE_JPEG[:-1], "truncated"),
        (saved(RGB)[:-30], "."),
        (saved(Image.fromarray(SIXTEEN[..., 0]), "TIFF"), "mode I;16, more than 8 bits a channel"),
        (saved(Image.fromarray(SIXTEEN[..., 0].astype(np.int32)), "TIFF"), "mode I, more than"),
        (saved(Image.fromarray(COLOURS[..., 0].astype(np.float32)), "TIFF"), "mode F, more than"),
        (saved(Image.new("1", (20000, 20000)), "PNG"), "exceeds limit"),
    ],
)  # fmt: skip
def test_others_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadablePicture, match=reason) as error:
        decode_rgb(data, "photos/train/n01/x.JPEG")
    assert error.value.picture == "photos/train/n01/x.JPEG"
    assert str(error.value).startswith("picture photos/train/n01/x.JPEG cannot be read (")
    assert "\n" not in error.value.reason


def test_a_cut_picture_is_refused_whatever_others_told_pil(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UnreadablePicture, match="truncated"):
        decode_rgb(WHOLE_JPEG[:-400], "x.JPEG")


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "MPO"])
def test_damage_anywhere_gives_a_picture_or_the_one_error(form: str) -> None:
    whole = saved(Image.fromarray(COLOURS).resize((40, 30)), form)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 400), 4):
            data[place] = rng.integers(0, 256)
        cut = int(rng.integers(len(data) // 2, len(data) + 1))
        try:
            pixels = decode_rgb(bytes(data[:cut]), "x")
        except UnreadablePicture:
            refused += 1
        else:
            assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    assert refused > 20


def test_a_full_memory_is_not_blamed_on_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(MemoryError):
        decode_rgb(WHOLE_JPEG, "x.JPEG")


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_a_folder_of_them_names_each_that_cannot_be_read(tmp_path: Path) -> None:
    """As ImageNet's copies have them: everything is called .JPEG."""
    files = {f"ant/{index:02}.JPEG": data for index, data in enumerate(KINDS.values())}
    files |= {
        "bee/empty.JPEG": b"",
        "bee/page.JPEG": b"<html>",
        "bee/cut.JPEG": WHOLE_JPEG[:-300],
        "bee/gone.JPEG": b"",
        "bee/shut.JPEG": b"",
        "bee/whole.JPEG": WHOLE_JPEG,
    }
    make_folder(tmp_path, files)
    (tmp_path / "bee/folder.JPEG").mkdir()
    (tmp_path / "bee/gone.JPEG").unlink()
    (tmp_path / "bee/gone.JPEG").symlink_to("nowhere")
    (tmp_path / "bee/shut.JPEG").unlink()
    (tmp_path / "bee/shut.JPEG").symlink_to("/proc/self/mem")  # reading it is an I/O error
    source = open_source(f"folder:{tmp_path}", "train")
    assert len(source) == len(KINDS) + 7
    bad = {}
    for index in range(len(source)):
        try:
            source.image(index)
        except UnreadablePicture as error:
            assert error.picture == source.describe(index)
            bad[error.picture.rpartition("/")[2]] = error.reason
    assert bad.keys() == {
        f"{name}.JPEG" for name in ("empty", "page", "cut", "folder", "gone", "shut")
    }
    assert bad["folder.JPEG"] == "Is a directory"
    assert bad["gone.JPEG"] == "No such file or directory"
    assert bad["shut.JPEG"] == "Input/output error"


def test_nothing_is_printed(tmp_path: Path) -> None:
    """Warnings would come a million times. A process of its own, since pytest catches them."""
    exif = Image.Exif()
    exif[0x010F] = "maker"
    odd = saved(RGB, "JPEG", exif=exif.tobytes()[:-9])  # PIL warns of truncated EXIF data
    large = saved(Image.new("1", (10000, 9500)), "PNG")  # and of decompression bombs
    files = {f"ant/{i:02}": data for i, data in enumerate([*KINDS.values(), odd, large])}
    make_folder(tmp_path, files)
    code = (
        "import sys\nfrom pipeline.data.sources import open_source\n"
        "source = open_source('folder:' + sys.argv[1], 'train')\n"
        "for index in range(len(source)): source.image(index)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default::UserWarning", "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""


def test_real_edge_cases() -> None:
    """Grey, tiny, narrow, wide, rotated; all as PIL has them."""
    for name in ("unit_mini.tar", "imagenet1k_native_subset.tar"):
        path = shared_file(name)
        with tarfile.open(path) as archive:
            for member in archive:
                if not member.isreg() or not member.name.endswith(".JPEG"):
                    continue
                file = archive.extractfile(member)
                assert file is not None
                data = file.read()
                with Image.open(io.BytesIO(data)) as picture:
                    expected = np.asarray(picture.convert("RGB"))
                assert np.array_equal(decode_rgb(data, member.name), expected)


def test_every_file_of_the_real_subset_is_read() -> None:
    source = open_source(f"folder:{shared_file('imagenet1k_native_subset.tar')}", "val")
    assert len(source) == 109
    assert source.passed_over == ("EDGE_CASES.json",)
    for index in range(len(source)):
        assert source.image(index).shape[2] == 3
