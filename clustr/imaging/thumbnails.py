"""Thumbnails: one decode makes all sizes of an image that are needed."""

import io
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import IO

from PIL import Image

from clustr.domain.errors import Undecodable
from clustr.imaging import color_management
from clustr.imaging.decoding import ALL_THUMBNAILS, DecodeOptions, decode, fitted, upright
from clustr.imaging.formats import FORMATS, can_read

# How thumbnails are written, by extension; the first makes the smallest files. With slower options
# the files are a few percent smaller and take several times as long.
WRITERS = {
    "avif": ("AVIF", {"quality": 60, "speed": 9, "max_threads": 1}),
    "webp": ("WEBP", {"quality": 80, "method": 2}),
    "jpg": ("JPEG", {"quality": 80}),
}
# A thumbnail is made of another one that is so many times larger: then the losses of its encoding
# are averaged away.
MIN_RATIO = 4


def can_write(extension: str) -> bool:
    """Whether thumbnails can be written in a format; `extension` is one of `WRITERS`."""
    return WRITERS[extension][0] in Image.SAVE and can_read(extension)


def make_thumbnails(
    file: IO[bytes], needed: Callable[[], Collection[tuple[int, str]]]
) -> Iterator[tuple[tuple[int, str], bytes]]:
    """Make thumbnails of an image by one decode: upright, in sRGB, and without any metadata.

    Of several frames the first is used. Transparent pixels stay transparent where the format has
    alpha, and become white in a JPEG.

    Args:
        file: open for reading; it stays open.
        needed: returns which thumbnails are needed, each by its longer side in pixels at most and
            one of `WRITERS`; an image is never enlarged. It is called before and after the decode:
            what others need meanwhile is made as well, unless it is larger than the decoded
            picture.

    Yields:
        the size and extension of each thumbnail, and its content.

    Raises:
        Empty, TooManyPixels, Undecodable, UnsupportedType: the image cannot be decoded.
    """
    largest = max(size for size, _ in needed())
    with decode(file, FORMATS, DecodeOptions(largest)) as decoded:
        with _scaling():
            picture = color_management.plain(decoded.pixels)
            factor = max(picture.size) // ALL_THUMBNAILS
            picture = picture.reduce(factor) if factor > 1 else picture
            picture.info = decoded.pixels.info  # It has the orientation.
        limit = max(largest, *picture.size)
        for size, extension in sorted(needed(), reverse=True):
            if size <= limit or picture.size == decoded.size:
                with _scaling():
                    small = _scale(picture, fitted(decoded.size, size))
                    content = _encode(small, extension)
                yield (size, extension), content


def reduce_thumbnail(file: IO[bytes], size: int, extension: str) -> bytes | None:
    """Make a thumbnail of a larger one, where that loses nothing.

    The larger one has to be `MIN_RATIO` times as large, and its sides, which were rounded, have to
    determine those of the new one.

    Args:
        file: the larger thumbnail, in the same format.
        size: the longer side in pixels.
        extension: one of `WRITERS`.

    Returns:
        its content; None where something would be lost.

    Raises:
        Undecodable, UnsupportedType: the larger one is broken.
    """
    with decode(file, FORMATS, DecodeOptions(None, is_whole=True)) as decoded:
        longer, shorter = max(decoded.size), min(decoded.size)
        sides = {max(1, round((shorter + half) * size / longer)) for half in (-0.5, 0.5)}
        if longer < MIN_RATIO * size or len(sides) > 1:
            return None
        with _scaling():
            picture = color_management.plain(decoded.pixels)
            return _encode(_scale(picture, fitted(decoded.size, size)), extension)


@contextmanager
def _scaling() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Undecodable("The image cannot be scaled.") from error


def _scale(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    small = picture
    if small.size != size:
        small = small.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    small.info = picture.info
    small = color_management.to_srgb(small)
    small.info = picture.info
    return upright(small)


def _encode(image: Image.Image, extension: str) -> bytes:
    format, options = WRITERS[extension]
    if image.mode == "RGBA" and format == "JPEG":
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image.getchannel("A"))
        image = opaque
    image.info = {}  # Pillow would write some of it.
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
