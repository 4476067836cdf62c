from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from PIL.PngImagePlugin import PngImageFile

from mfpo.data.images import MAX_PIXELS, image_size, open_image
from mfpo.errors import RowError
from mfpo.records import ImageSource

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def opened(data: bytes) -> Image.Image:
    image = open_image(ImageSource("test", data))
    assert image.mode == "RGB"
    return image


def reason(data: bytes | None, path: str | None = "test") -> str:
    with pytest.raises(RowError) as caught:
        open_image(ImageSource(path, data))
    return caught.value.reason


def half_red(mode: str = "RGB") -> Image.Image:
    """8x4, left half red."""
    image = Image.new("RGB", (8, 4), WHITE)
    image.paste(RED, (0, 0, 4, 4))
    return image.convert(mode)


def test_cmyk() -> None:
    image = opened(encoded(half_red("CMYK"), "JPEG", quality=100))
    left, right = np.asarray(image)[2, 1].astype(int), np.asarray(image)[2, 6].astype(int)
    assert np.abs(left - RED).max() < 40 and np.abs(right - WHITE).max() < 40


def test_palette_with_a_transparent_colour_becomes_white() -> None:
    palette = half_red("P")
    data = encoded(palette, transparency=palette.getpixel((0, 0)))
    assert opened(data).getpixel((0, 0)) == WHITE


def test_palette() -> None:
    assert opened(encoded(half_red("P"))).getpixel((0, 0)) == RED


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(mode: str) -> None:
    layer = Image.new("RGBA", (4, 4), (0, 0, 0, 51)).convert(mode)
    # 20% black on white: 255 * 0.8 = 204
    assert opened(encoded(layer)).getpixel((1, 1)) == (204, 204, 204)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (32768, 128), (257, 1)])
def test_sixteen_bit_grey_is_scaled_not_clipped(value: int, expected: int) -> None:
    data = encoded(Image.fromarray(np.full((3, 3), value, dtype=np.uint16)))
    assert opened(data).getpixel((1, 1)) == (expected,) * 3


def test_deep_grey_of_several_blocks_is_scaled_by_the_peak_of_all() -> None:
    values = np.linspace(0, 1000, 700 * 800, dtype=np.float32).reshape(700, 800)
    values[3, 4] = np.nan
    expected = (np.nan_to_num(values).astype(np.float64) / 1000 * 255 + 0.5).astype(np.uint8)
    grey = np.asarray(opened(encoded(Image.fromarray(values), "TIFF")))
    assert np.array_equal(grey, np.repeat(expected[..., None], 3, axis=2))


def test_deep_grey_takes_a_few_bytes_a_pixel() -> None:
    """As doubles it took 24 and more, 4 GiB for the largest picture that is allowed."""
    side = 2000
    source = ImageSource("test", encoded(Image.fromarray(np.ones((side, side), dtype=np.float32)), "TIFF"))
    tracemalloc.start()
    try:
        open_image(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 14 * side**2


def test_floating_point_grey() -> None:
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert [pixel[0] for pixel in np.asarray(opened(encoded(Image.fromarray(values), "TIFF")))[0]] == [
        0,
        128,
        255,
    ]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in (RED, (0, 0, 255), (0, 255, 0))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert opened(data).getpixel((3, 3)) == RED


@pytest.mark.parametrize(
    ("orientation", "size", "red_corner"),
    [
        (1, (8, 4), (0, 0)),
        (2, (8, 4), (7, 0)),
        (3, (8, 4), (7, 3)),
        (4, (8, 4), (0, 3)),
        (5, (4, 8), (0, 0)),
        (6, (4, 8), (3, 0)),
        (7, (4, 8), (3, 7)),
        (8, (4, 8), (0, 7)),
    ],
)
def test_exif_orientation(orientation: int, size: tuple[int, int], red_corner: tuple[int, int]) -> None:
    image = Image.new("RGB", (8, 4), WHITE)
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, exif=exif.tobytes())
    upright = opened(data)
    assert image_size(ImageSource(data=data)) == upright.size[::-1]
    assert upright.size == size
    assert upright.getpixel(red_corner) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG", "WEBP"])
def test_the_size_in_the_header_is_that_of_the_upright_picture(kind: str, orientation: int) -> None:
    """Pillow turns the size of a TIFF by itself, and that of no other."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(half_red(), kind, exif=exif)
    size = (4, 8) if orientation >= 5 else (8, 4)
    assert opened(data).size == size
    assert image_size(ImageSource(data=data)) == size[::-1]


def test_broken_exif_does_not_lose_the_picture() -> None:
    data = encoded(half_red(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert opened(data).size == (8, 4)


def noise(size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_cut_file_is_no_picture(kind: str, share: float) -> None:
    data = encoded(noise(), kind)
    assert reason(data[: max(12, int(len(data) * share))]) in {"truncated-image", "broken-image"}


def test_a_truncated_jpeg_says_so() -> None:
    data = encoded(noise(), "JPEG")
    assert reason(data[: len(data) // 2]) == "truncated-image"


def test_other_failures_have_their_own_reasons(tmp_path: Path) -> None:
    assert reason(b"") == "empty-image"
    assert reason(b"<html>not found</html>") == "not-an-image"
    assert reason(None, str(tmp_path / "nothing.jpg")) == "missing-image"
    assert reason(None, str(tmp_path)) == "unreadable-image"
    assert reason(None, None) == "missing-image"


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size whose pixels are a few bytes of zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(13_378, 13_378), (50_000, 50_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    assert reason(png_header(*size)) == "image-too-large"


def test_a_large_picture_gives_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(encoded(Image.new("RGB", (40, 30)))).size == (40, 30)


@pytest.mark.parametrize(
    "damage", [lambda d: d.replace(b"IHDR", b"IHDX"), lambda d: d[:40] + b"\xff" * 60 + d[100:]]
)
def test_damage_is_a_row_error(damage: Callable[[bytes], bytes]) -> None:
    assert reason(damage(encoded(noise()))) in {"broken-image", "truncated-image"}


def test_postscript_is_not_run() -> None:
    """Pillow hands EPS to Ghostscript; a data set must not reach an interpreter."""
    assert reason(encoded(half_red(), "EPS")) == "not-an-image"


def test_a_device_is_not_read() -> None:
    assert reason(None, "/dev/zero") == "unreadable-image"


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_avif_is_a_row_error() -> None:
    """Its decoder raises a RuntimeError, as no other does."""
    data = encoded(noise(), "AVIF")
    start = data.index(b"mdat") + 8
    damaged = data[:start] + bytes(len(data) - start)
    with pytest.raises(RuntimeError):
        Image.open(io.BytesIO(damaged)).load()
    assert reason(damaged) == "broken-image"


@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to decode frame 0"), NotImplementedError("no such"), MemoryError()]
)
def test_whatever_a_decoder_raises_is_a_row_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(self: Image.Image) -> None:
        raise error

    data = encoded(noise())
    monkeypatch.setattr(PngImageFile, "load", fail)
    assert reason(data) == "broken-image"
