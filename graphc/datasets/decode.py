"""decode: a photograph's file becomes pixels of a given shape. Files are not trusted.

Only JPEG, PNG and PNM are decoded, whatever a file is called. How large a picture claims to be is read from its header
and checked before memory is taken for it. Whatever is wrong with a file is told as `Unreadable`.
"""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graphc.datasets.names import printable
from graphc.errors import ArgumentError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "PPM")  # Pillow's names; PPM is its reader of PGM too
LARGEST = 64_000_000  # pixels; 256 MB while one is decoded
WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # modes of 16 bits a pixel

Shape = tuple[int, int, int]


class Unreadable(Exception):
    """A photograph that cannot be used: its file, and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{printable(str(path))}: {printable(reason)}")
        self.path = path


def require_pillow() -> None:
    """Raise `ArgumentError`, with what to install, where Pillow is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ArgumentError("photographs are read by Pillow: pip install 'graphc-compiler[images]'") from None


def pixels(path: Path, shape: Shape) -> np.ndarray:
    """The photograph as (C, H, W) uint8, 0 to 255: upright, stretched to H × W; grey for C = 1, RGB for C = 3.

    Transparent parts become white, 16 bits a pixel become 8. Raises `Unreadable`.
    """
    channels, height, width = shape
    from PIL import Image

    with _decoded(path, "L" if channels == 1 else "RGB", max(height, width)) as image:
        resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(resized.reshape(height, width, channels).transpose(2, 0, 1))


def thumbnail(path: Path, side: int) -> tuple[bytes, int, int]:
    """The photograph as a PNG of at most `side` by `side` pixels, with its width and height. Raises `Unreadable`."""
    with _decoded(path, "RGB", side) as image:
        image.thumbnail((side, side))
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue(), image.width, image.height


def _decoded(path: Path, mode: str, side: int) -> Image.Image:
    """The picture in a mode, upright. One whose sides are far above `side` may be decoded at a fraction of its size."""
    try:
        return _upright(path, mode, side)
    except Unreadable:
        raise
    except OSError as error:
        raise Unreadable(path, error.strerror or str(error)) from None
    except Exception as error:  # of a damaged file, Pillow's parsers raise nearly anything
        raise Unreadable(path, f"{type(error).__name__}: {error}") from None


def _upright(path: Path, mode: str, side: int) -> Image.Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise Unreadable(path, "not a regular file")
    try:
        opened = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise Unreadable(path, "neither JPEG, PNG nor PGM") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable(path, f"more than {LARGEST:,} pixels") from None
    with opened:
        if opened.width * opened.height > LARGEST:
            raise Unreadable(path, f"{opened.width} × {opened.height} is more than {LARGEST:,} pixels")
        opened.draft(mode, (side, side))  # a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is enough
        return _in_mode(ImageOps.exif_transpose(opened), mode)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    from PIL import Image

    if image.mode in WIDE:  # Pillow's own conversion would cut off, not scale
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers; expected 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
