"""What a file is, whether its pixels can be read, and the picture as it is displayed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

from clustr.domain.errors import Empty
from clustr.imaging import color_management, decode_limits
from clustr.imaging.decoding import (
    CHECK_ONLY,
    DecodeOptions,
    decode,
    decode_cost,
    is_sideways,
    is_upright,
    upright,
)
from clustr.imaging.formats import FORMATS, Format
from clustr.imaging.header_checks import Header


@dataclass(frozen=True, slots=True)
class InspectedImage:
    """What `inspect` found: the true format, and the displayed width and height in pixels."""

    format: Format
    width: int
    height: int


def inspect(
    file: IO[bytes], allowed: tuple[Format, ...], limit_time: bool = False
) -> InspectedImage:
    """Find out what a file is, and check that its pixels can be read.

    The decode is a reduced one, without colors, where the format has that (JPEG), as it reads every
    byte of the picture all the same; of several frames only the first is decoded. The orientation
    is read last: a PNG may have its EXIF data after the pixels, and Pillow transposes a TIFF while
    it decodes it.

    Args:
        file: open for reading; it stays open.
        allowed: the formats to accept.
        limit_time: whether to refuse what takes too long to decode for its size, as is done with
            new files, and not with those that were stored before.

    Raises:
        Empty, UnsupportedType, TooManyPixels, Undecodable: what is wrong with the file.
    """
    size_bytes = file.seek(0, os.SEEK_END)
    if size_bytes == 0:
        raise Empty("The file is empty.")

    def check_cost(image: ImageFile.ImageFile, header: Header) -> None:
        if limit_time:
            cost = decode_cost(image, header.scans)
            decode_limits.check_time(cost, size_bytes, Image.MAX_IMAGE_PIXELS)

    with decode(file, allowed, DecodeOptions(CHECK_ONLY, check_cost, jpeg_mode="L")) as decoded:
        format = next(f for f in allowed if decoded.image.format in f.pillow)
        width, height = decoded.size
        if is_sideways(decoded.pixels):
            width, height = height, width
    return InspectedImage(format, width, height)


def open_displayed(
    path: Path, min_side: int | None = None, color_managed: bool = True
) -> Image.Image:
    """Decode a whole image, transpose it as its EXIF orientation says, and convert it to sRGB.

    Args:
        min_side: pixels that its shorter side has to keep. A JPEG is then decoded at 1/2, 1/4 or
            1/8 of its size, which takes a fraction of the time.
        color_managed: whether to convert it to sRGB, which takes twice as long as the decode of a
            JPEG with another profile.

    Raises:
        TooManyPixels, Undecodable, UnsupportedType: it cannot be decoded; the message says why.
        OSError: the file cannot be opened.
    """
    options = DecodeOptions(min_side, is_whole=True)
    with path.open("rb") as file, decode(file, FORMATS, options) as decoded:
        picture = decoded.pixels
        # The memory of what Pillow opened is freed at the end of the block.
        if picture is decoded.image or not is_upright(picture):
            picture = upright(picture)
        return color_management.displayed(picture) if color_managed else picture
