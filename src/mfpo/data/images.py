"""Encoded images to RGB pictures, whatever the file is like."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError

from mfpo.errors import RowError
from mfpo.records import ImageSource

MAX_PIXELS = 178_956_970
"""Largest picture that is decoded, in pixels (0.5 GiB as RGB); the limit at which Pillow itself refuses."""

# Raster formats that photographs come in. Pillow knows more; EPS among them is run by Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
_ORIENTATION = 0x0112
_IMAGE_WIDTH, _IMAGE_LENGTH = 0x0100, 0x0101
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_GREY_BLOCK = 2**18
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM")
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    RuntimeError,  # AVIF
    MemoryError,  # a damaged header asks a decoder for more than there is
    struct.error,
    zlib.error,
)


def open_image(source: ImageSource) -> Image.Image:
    """Decode an image: its first frame, turned upright by its EXIF orientation, as 8-bit RGB.

    Transparency is composited on white; 16-bit and floating-point grey values are scaled to 8 bits.
    Boxes and masks everywhere in this package refer to the picture that this function returns.

    Args:
        source: The encoded image.

    Returns:
        The picture, mode ``RGB``.

    Raises:
        RowError: With the reason ``missing-image``, ``unreadable-image``, ``empty-image`` (no bytes),
            ``not-an-image``, ``truncated-image``, ``broken-image`` or ``image-too-large``.
    """
    data = source.read()
    name = source.path or "image"
    if not data:
        raise RowError("empty-image", f"{name} has no bytes")
    # Pillow warns about large pictures, odd EXIF and palettes; what matters is judged here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = _open(data, name)
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise RowError(
                "image-too-large", f"{name}: {width}x{height} is more than {MAX_PIXELS // 10**6} megapixels"
            )
        try:
            picture.load()
            return _to_rgb(_upright(picture))
        except _DECODING_ERRORS as error:
            reason = "truncated-image" if _is_truncation(error) else "broken-image"
            raise RowError(reason, f"{name}: {error}") from None


def image_size(source: ImageSource) -> tuple[int, int]:
    """Height and width of the picture that [`open_image`] returns, from its header alone.

    Raises:
        RowError: The header cannot be read.
    """
    data = source.read()
    name = source.path or "image"
    if not data:
        raise RowError("empty-image", f"{name} has no bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = _open(data, name)
        try:
            orientation = picture.getexif().get(_ORIENTATION)
        except _DECODING_ERRORS:
            orientation = None
    width, height = _stored_size(picture)
    return (width, height) if orientation in _SIDEWAYS else (height, width)


def _stored_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height as the picture is stored; a TIFF's ``size`` is that of the upright picture already."""
    tags = getattr(picture, "tag_v2", None)
    return picture.size if tags is None else (int(tags[_IMAGE_WIDTH]), int(tags[_IMAGE_LENGTH]))


def _open(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError as error:
        raise RowError("image-too-large", f"{name}: {error}") from None
    except UnidentifiedImageError:
        if data.startswith(_SIGNATURES):
            raise RowError("truncated-image", f"{name}: the header ends early ({len(data)} bytes)") from None
        raise RowError("not-an-image", f"{name} is in none of the formats {', '.join(_formats())}") from None
    except _DECODING_ERRORS as error:
        raise RowError("broken-image", f"{name}: {error}") from None


@cache
def _formats() -> tuple[str, ...]:
    """Those of our formats that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _is_truncation(error: Exception) -> bool:
    message = str(error).lower()
    return isinstance(error, EOFError) or any(
        word in message for word in ("truncated", "unexpected end", "end of file", "broken data stream")
    )


def _upright(picture: Image.Image) -> Image.Image:
    try:
        orientation = picture.getexif().get(_ORIENTATION)
    except _DECODING_ERRORS:
        # Unreadable EXIF says nothing about the orientation.
        return picture
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return picture if method is None else picture.transpose(method)


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        return _grey_to_eight_bits(picture).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return picture.convert("RGB")


def _grey_to_eight_bits(picture: Image.Image) -> Image.Image:
    """Deep grey values to 0..255; full scale is 65535 for integers, and 1, 255 or the maximum for floats."""
    values = np.asarray(picture).ravel()
    # A few at a time: as doubles, all of a large picture's would take gigabytes.
    blocks = [slice(start, start + _GREY_BLOCK) for start in range(0, values.size, _GREY_BLOCK)]
    peak = max((float(_finite(values[block]).max()) for block in blocks), default=0.0)
    if picture.mode == "F":
        scale = 1.0 if peak <= 1.0 else max(255.0, peak)
    else:
        scale = max(65535.0, peak)
    grey = np.empty(values.size, dtype=np.uint8)
    for block in blocks:
        grey[block] = np.clip(_finite(values[block]) / scale * 255.0 + 0.5, 0, 255)
    return Image.fromarray(grey.reshape(picture.height, picture.width))


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float64))
