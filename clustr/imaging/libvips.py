"""libvips: large pictures, reduced while they are read, so that they are never whole in memory.

Pillow decodes a PNG, WebP or TIFF as a whole before it can reduce it. libvips reads such a picture
row by row, and takes a fraction of the memory (docs/decisions/libvips.md). It is used for still
pictures of the usual kinds alone; what a file is, its metadata and its colors are Pillow's and
ours, and what libvips does not read is left to Pillow.

Of libvips' loaders all but these three are blocked, and so is everything that writes.
"""

import os
from functools import cache
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageFile, TiffImagePlugin

if TYPE_CHECKING:
    import pyvips

FORMATS = {"PNG": "pngload_source", "WEBP": "webpload_source", "TIFF": "tiffload_source"}
LOADERS = ("VipsForeignLoadPng", "VipsForeignLoadWebp", "VipsForeignLoadTiff")

MODES = {"PNG": {"1", "L", "LA", "P", "RGB", "RGBA"}, "WEBP": {"RGB", "RGBA"}}
MODES["TIFF"] = {"L", "P", "RGB", "RGBA", "CMYK"}
MODES_BY_BANDS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# Of a TIFF: the values of its tags that libvips is given (TIFF 6.0), by the names that follow.
BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, PLANES = 258, 259, 262, 284
TILE_HEIGHT, EXTRA_SAMPLES, SAMPLE_FORMAT = 323, 338, 339
COMPRESSIONS = {1, 5, 8, 32773, 32946}  # none, LZW, Deflate, PackBits, Deflate's old number
PHOTOMETRICS = {0, 1, 2, 3, 5}  # grey from white or from black, RGB, palette, CMYK
UNASSOCIATED_ALPHA = 2
HIGHEST_TILE = 1024

HIGHEST_STRIP = 128  # rows; libvips reads higher ones row by row
ROWS_PER_STRIP = 278

# Smaller pictures Pillow decodes as a whole, in little memory.
LEAST_PIXELS = 2_000_000

# What is taken by a row of the picture while it is read, and by a pixel of what is returned, with
# the copies that are made of it then: without and with alpha; measured on 50 megapixels.
BYTES_OF_ROW_PIXEL = (2_200, 5_500)
BYTES_OF_PIXEL = (12, 18)
# How often a WebP file is in memory: once here, twice in Pillow.
COPIES_OF_WEBP = 3


# libvips keeps threads that wait for work. A fork does not have them, and would wait for them.
_has_threads = False
_lost_threads = False


class NotRead(Exception):
    """libvips does not read this picture, which may be broken."""


@cache
def libvips() -> Any:
    """The package `pyvips`, loaded for the first large picture: many processes never see one."""
    package = import_module("pyvips")
    confine(package)
    return package


def confine(package: Any) -> None:
    """Let libvips read those formats and do nothing else, in the thread that asks for it."""
    package.block_untrusted_set(True)
    package.operation_block_set("VipsForeign", True)
    for loader in LOADERS:
        package.operation_block_set(loader, False)
    package.concurrency_set(1)  # The requests are what is done at the same time.
    package.cache_set_max(0)


def _after_fork() -> None:
    global _lost_threads
    _lost_threads = _has_threads


os.register_at_fork(after_in_child=_after_fork)


def reads(image: ImageFile.ImageFile, at_least: int) -> bool:
    """Whether a still picture that Pillow has opened is of a kind that is read here row by row.

    Args:
        at_least: pixels that its longer side has to keep. Where that leaves all of them, it is
            Pillow that takes less memory.
    """
    if _lost_threads:
        return False
    if image.mode not in MODES.get(image.format or "", ()):
        return False
    if image.width * image.height < LEAST_PIXELS:
        return False
    if image.format == "WEBP":
        return True
    if _factor(image, at_least) == 1:
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _reads_tiff(image)
    of_16_bits = any(";16" in str(tile[3]) for tile in image.tile)
    has_key = "transparency" in image.info
    return not image.info.get("interlace") and not (of_16_bits and has_key)


def _reads_tiff(image: TiffImagePlugin.TiffImageFile) -> bool:
    tags = image.tag_v2
    bits = {*tags.get(BITS_PER_SAMPLE, (1,))}
    extra = tags.get(EXTRA_SAMPLES, ())
    return (
        tags.get(COMPRESSION, 1) in COMPRESSIONS
        and tags.get(PHOTOMETRIC) in PHOTOMETRICS
        and tags.get(PLANES, 1) == 1
        and {*tags.get(SAMPLE_FORMAT, (1,))} == {1}
        and (bits == {8} or (bits == {16} and image.mode == "RGB"))
        and extra == ((UNASSOCIATED_ALPHA,) if image.mode == "RGBA" else ())
        and _rows_at_once(image) <= HIGHEST_TILE
    )


def _rows_at_once(image: TiffImagePlugin.TiffImageFile) -> int:
    """How many rows of a TIFF are read together: those of a tile or strip."""
    tags = image.tag_v2
    rows: int = min(tags.get(ROWS_PER_STRIP, image.height), image.height)
    if rows > HIGHEST_STRIP and tags.get(COMPRESSION, 1) == 1:
        rows = 1
    tile_height: int = tags.get(TILE_HEIGHT, rows)
    return tile_height


def memory_needed(image: ImageFile.ImageFile, at_least: int) -> int:
    """Bytes of memory that `reduced` takes for a PNG or TIFF, and who goes on with the result."""
    alpha = image.has_transparency_data
    width, height = image.size
    rows = 0
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        rows = 8 * max(width, height) * _rows_at_once(image)
    pixels = width * height / _factor(image, at_least) ** 2
    each_row = max(width, height) * BYTES_OF_ROW_PIXEL[alpha]
    return round(each_row + rows + pixels * BYTES_OF_PIXEL[alpha])


def webp_memory_needed(pixels: int, at_least: int, file_bytes: int) -> int:
    """The same of a WebP, which is told before it is opened: opening it reads all of its file."""
    return min(pixels, at_least**2) * BYTES_OF_PIXEL[True] + COPIES_OF_WEBP * file_bytes


def reduced(file: IO[bytes], image: ImageFile.ImageFile, at_least: int) -> Image.Image:
    """Read all of a picture, of which the pixels are averaged to fewer on the way.

    Args:
        file: the picture, open; where it is read next stays as it is.
        image: the same, of a kind that is read here.
        at_least: pixels that its longer side has to keep, if it has as many.

    Returns:
        the picture in its own colors and as it lies in the file: L, LA, RGB, RGBA or CMYK. Its
        width and height are those of the picture divided by a whole number and rounded up, but for
        a WebP's, which are scaled.

    Raises:
        NotRead: libvips finds something wrong with it.
    """
    global _has_threads
    _has_threads = True
    vips = libvips()
    assert image.format is not None  # It is of a kind that is read here.
    try:
        # A place of its own in the file: Python's is not the one of the system.
        source = vips.Source.new_from_file(f"/proc/self/fd/{file.fileno()}")
        load = getattr(vips.Image, FORMATS[image.format])
        options: dict[str, Any] = {"access": "sequential", "fail_on": "error"}
        if image.format == "WEBP":
            options["scale"] = min(1.0, at_least / max(image.size))
            return _to_pillow(load(source, **options), image.mode)
        picture = load(source, **options)
        if {picture.width, picture.height} != {*image.size}:
            raise NotRead("Pillow and libvips do not agree on its size.")
        if picture.format == "ushort":
            picture = picture.cast("uchar", shift=True)
        if picture.format != "uchar":
            raise NotRead(f"Its numbers are of the kind {picture.format}.")
        factor = _factor(image, at_least)
        return _to_pillow(_shrunk(picture, factor) if factor > 1 else picture, image.mode)
    except vips.Error as error:
        raise NotRead(error.detail) from error


def _factor(image: ImageFile.ImageFile, at_least: int) -> int:
    return max(1, max(image.size) // at_least)


def _shrunk(picture: "pyvips.Image", factor: int) -> "pyvips.Image":
    if not picture.hasalpha():
        return picture.shrink(factor, factor, ceil=True)
    # What is clear has no color that could count.
    small = picture.premultiply(max_alpha=255).shrink(factor, factor, ceil=True)
    return small.unpremultiply(max_alpha=255).rint().cast("uchar")


def _to_pillow(picture: "pyvips.Image", mode: str) -> Image.Image:
    bands = MODES_BY_BANDS.get(picture.bands)
    if bands is None or (mode == "CMYK" and picture.bands != 4):
        raise NotRead(f"It has {picture.bands} bands.")
    size = (picture.width, picture.height)
    return Image.frombytes("CMYK" if mode == "CMYK" else bands, size, picture.write_to_memory())
