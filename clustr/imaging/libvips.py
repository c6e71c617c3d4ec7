"""libvips: it reduces large pictures while it reads them, so that they are never whole in memory.

A large PNG whose pixels are all needed is read by it, too: that takes half as long as with Pillow.

Pillow decodes a PNG, WebP or TIFF as a whole before it can reduce it. libvips reads such a picture
row by row, and takes a fraction of the memory (docs/decisions/libvips.md). It is used only for
still pictures of the usual kinds. Pillow determines the format, the metadata and the colors, and
decodes what libvips cannot read.

All loaders of libvips but these three are blocked, and so are its writers.
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

# The tags of a TIFF (TIFF 6.0), and which of their values libvips is given.
BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, PLANES = 258, 259, 262, 284
TILE_HEIGHT, EXTRA_SAMPLES, SAMPLE_FORMAT = 323, 338, 339
COMPRESSIONS = {1, 5, 8, 32773, 32946}  # none, LZW, Deflate, PackBits, Deflate's old number
PHOTOMETRICS = {0, 1, 2, 3, 5}  # grey from white or from black, RGB, palette, CMYK
UNASSOCIATED_ALPHA = 2
MAX_TILE_HEIGHT = 1024

MAX_STRIP_ROWS = 128  # rows; libvips reads higher ones row by row
ROWS_PER_STRIP = 278

# Smaller pictures are decoded as a whole by Pillow, in little memory.
MIN_PIXELS = 2_000_000

# Memory for each pixel of a row while the picture is read, and for each pixel of what is returned
# and the copies that are made of it: without and with alpha; measured on 50 megapixels.
BYTES_PER_ROW_PIXEL = (2_200, 5_500)
BYTES_PER_PIXEL = (12, 18)
# How many rows are taken from libvips together when all are needed. Of more, the system would have
# to give the memory anew each time (`pillow_setup`).
ROWS_AT_ONCE = 16
# A WebP file is in memory once here and twice in Pillow.
COPIES_OF_WEBP = 3


# libvips has threads that wait for work. A fork lacks them, and would wait for them for ever.
_has_threads = False
_lost_threads = False


class NotReadable(Exception):
    """libvips cannot read this picture, which may be broken."""


@cache
def libvips() -> Any:
    """The package `pyvips`, imported at the first large picture: many processes never get one."""
    package = import_module("pyvips")
    confine(package)
    return package


def confine(package: Any) -> None:
    """Let libvips read these formats only, in the thread that calls it."""
    package.block_untrusted_set(True)
    package.operation_block_set("VipsForeign", True)
    for loader in LOADERS:
        package.operation_block_set(loader, False)
    package.concurrency_set(1)  # Requests run in parallel instead.
    package.cache_set_max(0)


def _after_fork() -> None:
    global _lost_threads
    _lost_threads = _has_threads


os.register_at_fork(after_in_child=_after_fork)


def can_read(image: ImageFile.ImageFile, min_side: int) -> bool:
    """Whether libvips reads a still picture, which Pillow has opened, row by row.

    Args:
        min_side: pixels that its longer side has to keep. Where that reduces nothing, Pillow takes
            less memory.
    """
    if _lost_threads:
        return False
    if image.mode not in MODES.get(image.format or "", ()):
        return False
    if image.width * image.height < MIN_PIXELS:
        return False
    if image.format == "WEBP":
        return True
    if _factor(image, min_side) == 1:
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
        and _rows_read_together(image) <= MAX_TILE_HEIGHT
    )


def _rows_read_together(image: TiffImagePlugin.TiffImageFile) -> int:
    """How many rows of a TIFF are read together: those of a tile or strip."""
    tags = image.tag_v2
    rows: int = min(tags.get(ROWS_PER_STRIP, image.height), image.height)
    if rows > MAX_STRIP_ROWS and tags.get(COMPRESSION, 1) == 1:
        rows = 1
    tile_height: int = tags.get(TILE_HEIGHT, rows)
    return tile_height


def can_read_whole(image: ImageFile.ImageFile) -> bool:
    """Whether libvips reads all pixels of a still PNG as Pillow would: one with 8 bits a sample."""
    return (
        not _lost_threads
        and image.format == "PNG"
        and image.mode in MODES_BY_BANDS.values()
        and image.width * image.height >= MIN_PIXELS
        and {tile[3] for tile in image.tile} == {image.mode}
        and not {"interlace", "transparency"} & image.info.keys()
    )


def memory_bytes(image: ImageFile.ImageFile, min_side: int) -> int:
    """Memory that `read_reduced` and further work with its result take for a PNG or TIFF."""
    alpha = image.has_transparency_data
    width, height = image.size
    rows = 0
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        rows = 8 * max(width, height) * _rows_read_together(image)
    pixels = width * height / _factor(image, min_side) ** 2
    each_row = max(width, height) * BYTES_PER_ROW_PIXEL[alpha]
    return round(each_row + rows + pixels * BYTES_PER_PIXEL[alpha])


def rows_memory_bytes(image: ImageFile.ImageFile) -> int:
    """Memory that `read_whole` takes besides the picture that it returns."""
    return image.width * BYTES_PER_ROW_PIXEL[image.has_transparency_data]


def webp_memory_bytes(pixels: int, min_side: int, file_bytes: int) -> int:
    """The same for a WebP, before it is opened: to open it reads the whole file."""
    return min(pixels, min_side**2) * BYTES_PER_PIXEL[True] + COPIES_OF_WEBP * file_bytes


def read_reduced(file: IO[bytes], image: ImageFile.ImageFile, min_side: int) -> Image.Image:
    """Read a whole picture, and average its pixels to fewer meanwhile.

    Args:
        file: the picture, open; its position does not change.
        image: the same, for which `can_read` is true.
        min_side: pixels that its longer side has to keep, if it has as many.

    Returns:
        the picture in its own colors and orientation, as L, LA, RGB, RGBA or CMYK. Its width and
        height are those of the picture divided by a whole number and rounded up; those of a WebP
        are scaled.

    Raises:
        NotReadable: libvips finds something wrong with it.
    """
    global _has_threads
    _has_threads = True
    vips = libvips()
    assert image.format is not None  # `can_read` is true.
    try:
        # libvips needs a position of its own in the file.
        source = vips.Source.new_from_file(f"/proc/self/fd/{file.fileno()}")
        load = getattr(vips.Image, FORMATS[image.format])
        options: dict[str, Any] = {"access": "sequential", "fail_on": "error"}
        if image.format == "WEBP":
            options["scale"] = min(1.0, min_side / max(image.size))
            return _to_pillow(load(source, **options), image.mode)
        picture = load(source, **options)
        if {picture.width, picture.height} != {*image.size}:
            raise NotReadable("Pillow and libvips find different sizes.")
        if picture.format == "ushort":
            picture = picture.cast("uchar", shift=True)
        if picture.format != "uchar":
            raise NotReadable(f"Its samples are of the type {picture.format}.")
        factor = _factor(image, min_side)
        return _to_pillow(_shrunk(picture, factor) if factor > 1 else picture, image.mode)
    except vips.Error as error:
        raise NotReadable(error.detail) from error


def read_whole(file: IO[bytes], image: ImageFile.ImageFile) -> Image.Image:
    """Read all pixels of a picture.

    Args:
        file: the picture, open; its position does not change.
        image: the same, for which `can_read_whole` is true.

    Raises:
        NotReadable: libvips finds something wrong with it.
    """
    global _has_threads
    _has_threads = True
    vips = libvips()
    width, height = image.size
    try:
        source = vips.Source.new_from_file(f"/proc/self/fd/{file.fileno()}")
        picture = vips.Image.pngload_source(source, access="sequential", fail_on="error")
        found = (picture.width, picture.height, MODES_BY_BANDS.get(picture.bands), picture.format)
        if found != (width, height, image.mode, "uchar"):
            raise NotReadable(f"Pillow and libvips find different pictures: {found}.")
        region = vips.Region.new(picture)
        whole = Image.new(image.mode, image.size)
        for top in range(0, height, ROWS_AT_ONCE):
            size = (width, min(ROWS_AT_ONCE, height - top))
            rows = region.fetch(0, top, *size)
            whole.paste(Image.frombuffer(image.mode, size, rows, "raw", image.mode, 0, 1), (0, top))
    except vips.Error as error:
        raise NotReadable(error.detail) from error
    return whole


def _factor(image: ImageFile.ImageFile, min_side: int) -> int:
    return max(1, max(image.size) // min_side)


def _shrunk(picture: "pyvips.Image", factor: int) -> "pyvips.Image":
    if not picture.hasalpha():
        return picture.shrink(factor, factor, ceil=True)
    # Transparent pixels have no color that could be averaged.
    small = picture.premultiply(max_alpha=255).shrink(factor, factor, ceil=True)
    return small.unpremultiply(max_alpha=255).rint().cast("uchar")


def _to_pillow(picture: "pyvips.Image", mode: str) -> Image.Image:
    bands = MODES_BY_BANDS.get(picture.bands)
    if bands is None or (mode == "CMYK" and picture.bands != 4):
        raise NotReadable(f"It has {picture.bands} bands.")
    size = (picture.width, picture.height)
    return Image.frombytes("CMYK" if mode == "CMYK" else bands, size, picture.write_to_memory())
