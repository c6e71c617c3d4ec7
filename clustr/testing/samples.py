"""Sample images: one of each kind that causes trouble in analyzers, and some broken files.

Each is drawn when it is first used, into a temporary folder of this process; it is always the same.
"""

import atexit
import functools
import io
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from clustr.domain import failure_messages

WIDTH, HEIGHT = 160, 120
ORIENTATION = 0x0112  # the tag of the EXIF standard
ROTATED_RIGHT = 6
HUGE_SIDE = 60_000


def picture() -> Image.Image:
    """The picture of all samples: a disc on a gradient, and a line that is not symmetric."""
    across = Image.linear_gradient("L").rotate(90).resize((WIDTH, HEIGHT))
    down = Image.linear_gradient("L").resize((WIDTH, HEIGHT))
    drawn = Image.merge("RGB", (across, down, Image.new("L", (WIDTH, HEIGHT), 90)))
    draw = ImageDraw.Draw(drawn)
    draw.ellipse((20, 25, 80, 85), fill=(210, 40, 30))
    draw.line((90, 10, 150, 100), fill=(250, 240, 220), width=7)
    return drawn


def _encoded(drawn: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    drawn.save(file, format, **options)
    return file.getvalue()


def _jpeg() -> bytes:
    return _encoded(picture(), "JPEG", quality=85)


def _oriented() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED_RIGHT
    stored = picture().transpose(Image.Transpose.ROTATE_90)
    return _encoded(stored, "JPEG", quality=85, exif=exif)


def _png16() -> bytes:
    gray = picture().convert("L").convert("I").point(lambda value: value * 257)
    return _encoded(gray.convert("I;16"), "PNG")


def _alpha() -> bytes:
    drawn = picture()
    drawn.putalpha(Image.linear_gradient("L").resize(drawn.size))
    return _encoded(drawn, "PNG")


def _animated() -> bytes:
    frames = [picture().rotate(angle).quantize(64) for angle in (0, 90, 180)]
    return _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def _huge_header() -> bytes:
    header = struct.pack(">IIBBBBB", HUGE_SIDE, HUGE_SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", pixels)
        + _chunk(b"IEND", b"")
    )


# The file name of each, whose extension is that of the format it is accepted as, and its content.
SAMPLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "jpeg": ("jpeg.jpg", _jpeg),
    "png": ("png.png", lambda: _encoded(picture(), "PNG")),
    "webp": ("webp.webp", lambda: _encoded(picture(), "WEBP", lossless=True)),
    "bmp": ("bmp.bmp", lambda: _encoded(picture(), "BMP")),
    "tiff": ("tiff.tif", lambda: _encoded(picture(), "TIFF")),
    "oriented": ("oriented.jpg", _oriented),
    "cmyk": ("cmyk.jpg", lambda: _encoded(picture().convert("CMYK"), "JPEG")),
    "png16": ("png16.png", _png16),
    "alpha": ("alpha.png", _alpha),
    "animated": ("animated.gif", _animated),
    "1x1": ("1x1.png", lambda: _encoded(Image.new("RGB", (1, 1), "teal"), "PNG")),
    "truncated": ("truncated.jpg", lambda: _jpeg()[:2000]),
    "huge_header": ("huge_header.png", _huge_header),
    "not_an_image": ("not_an_image.jpg", lambda: b"This is a text and no image.\n" * 20),
}
KINDS = tuple(SAMPLES)
BROKEN = ("truncated", "huge_header", "not_an_image")


def sample_image(kind: str) -> Path:
    """The file of a sample, for reading; the fixture `clustr_samples` makes copies to change.

    All show the same picture of 160 by 120 pixels, except `1x1`.

    Args:
        kind: `jpeg`, `png`, `webp`, `bmp`, `tiff`; `oriented`, a JPEG with an EXIF orientation;
            `cmyk`, a JPEG for print; `png16`, 16 bits of gray; `alpha`, a partly transparent PNG;
            `animated`, a GIF with a palette and three frames; `1x1`, a single pixel; and those that
            cannot be read: `truncated`, a JPEG that ends early, `huge_header`, a PNG that says it
            has 3,600 megapixels, and `not_an_image`, a text.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in SAMPLES:
        raise ValueError(failure_messages.unknown_name("kind of sample", kind, KINDS))
    name, content = SAMPLES[kind]
    path = _folder() / name
    if not path.exists():
        path.write_bytes(content())
    return path


@functools.cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="clustr-samples-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
