"""Decoding: the pixels of an image file, with memory reserved for as long as they are needed.

The header decides on format, pixels and frames before anything is decoded. A large PNG, WebP or
TIFF is reduced by libvips while it is read, and a large PNG that is needed whole is read by it;
everything else is decoded by Pillow.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, ImageFile, ImageOps

from clustr import logs
from clustr.domain.errors import TooManyPixels, Undecodable, UnsupportedType
from clustr.imaging import corrections, file_kinds, header_checks, libvips
from clustr.imaging.decode_limits import Cost, memory_for
from clustr.imaging.formats import FORMATS, Format
from clustr.imaging.header_checks import Header

log = logs.logger(__name__)

# Besides the decode, scaling takes whole copies of a picture that is in none of these modes, or in
# which one color stands for transparent pixels.
SCALABLE_MODES = ("L", "RGB", "CMYK", "LAB")
SCALING_BYTES_PER_PIXEL = 9
# A JPEG without its end mark is decoded and compared as a whole, which takes this in addition.
COMPARING_BYTES_PER_PIXEL = 4
# What the smallest picture takes.
MIN_BYTES = 1_000_000

LARGEST_SIZE = 1600  # pixels of the longer side of the largest thumbnail
# Where a decode reads the whole file whatever it reduces the picture to, this is the longer side to
# which it reduces: enough for the largest thumbnail, so that one decode makes all.
ALL_THUMBNAILS = LARGEST_SIZE * 3 // 2
# The same where no pixel is needed, and only whether they can be read.
CHECK_ONLY = 64

# Bytes of a pixel by Pillow's modes, where they are not one for each band.
BYTES_OF_MODES = {"1": 1 / 8, "I;16": 2, "I": 4, "F": 4}
# Bytes of a pixel in Pillow's memory, where they are not four.
BYTES_IN_MEMORY = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}

# The EXIF orientations that swap width and height.
SIDEWAYS = (5, 6, 7, 8)
# How to display pictures, by their orientation (EXIF 2.32, Orientation).
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _accept_any_cost(_image: ImageFile.ImageFile, _header: Header) -> None:
    pass


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What a picture is decoded for.

    Attributes:
        min_side: pixels that its longer side has to keep; None to keep all. With `is_whole` only a
            JPEG is reduced, and this is its shorter side.
        check_cost: called with what is known before the decode; it may raise to refuse the picture.
        jpeg_mode: the Pillow mode in which a JPEG is decoded.
        is_whole: whether all pixels are needed.
    """

    min_side: int | None
    check_cost: Callable[[ImageFile.ImageFile, Header], None] = _accept_any_cost
    jpeg_mode: str | None = None
    is_whole: bool = False

    def min_side_by_rows(self) -> int:
        """The longer side to keep where reducing further makes the decode no cheaper."""
        return CHECK_ONLY if self.min_side == CHECK_ONLY else ALL_THUMBNAILS


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A picture that was decoded.

    Attributes:
        image: the image that Pillow opened, whose own pixels may never be read.
        pixels: the picture, which may be reduced, with the metadata of `image` in its `info`.
        size: width and height of the whole picture, in pixels.
    """

    image: ImageFile.ImageFile
    pixels: Image.Image
    size: tuple[int, int]


@contextmanager
def decode(
    file: IO[bytes], allowed: tuple[Format, ...], options: DecodeOptions
) -> Iterator[DecodedImage]:
    """Decode an image, with memory reserved for the decode and for the block.

    Pillow gets an open file, not a path: so no path gets into its messages, a missing file is not
    mistaken for a broken image, and no file is mapped into memory.

    Args:
        file: open for reading; it stays open.
        allowed: the formats to accept.

    Raises:
        UnsupportedType, TooManyPixels, Undecodable: what is wrong with the file.
    """
    header, formats = _read_header(file, allowed)
    with ExitStack() as memory, ExitStack() as opened:
        by_rows = header.is_still and not options.is_whole
        if header.pixels is not None:  # Pillow reserves the memory of a WebP when it opens it.
            by_rows = by_rows and header.pixels >= libvips.MIN_PIXELS
            memory.enter_context(memory_for(_webp_memory_bytes(file, header, options, by_rows)))
        image = _open(opened, file, formats)
        size = image.size
        options.check_cost(image, header)
        pixels = _decode_by_rows(memory, file, image, header, options) if by_rows else None
        if options.is_whole and header.is_still:
            pixels = _decode_png(memory, file, image, header)
        if pixels is None:
            pixels = _decode_by_pillow(memory, file, image, header, options)
            if image.format == "AVIF":  # It may have been cut to its clean aperture.
                size = image.size
        yield DecodedImage(image, pixels, size)


def displayed_size(path: Path) -> tuple[int, int]:
    """The width and height of an image as it is displayed, by its header.

    No pixel is read, unless the orientation of a PNG comes after its pixels.

    Raises:
        UnsupportedType, TooManyPixels, Undecodable: what is wrong with the file.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file, ExitStack() as opened:
        header, formats = _read_header(file, FORMATS)
        if formats[0].extension == "png" and not header.is_still:
            whole = opened.enter_context(decode(file, FORMATS, DecodeOptions(None, is_whole=True)))
            return upright(whole.pixels).size
        if header.pixels is not None:  # Pillow reserves the memory of a WebP when it opens it.
            needed_bytes = _webp_memory_bytes(file, header, DecodeOptions(None), by_rows=False)
            opened.enter_context(memory_for(needed_bytes))
        image = _open(opened, file, formats)
        width, height = image.size
        is_avif = image.format == "AVIF"
        if is_avif and (box := corrections.clean_aperture(file.fileno(), width, height)):
            width, height = box[2] - box[0], box[3] - box[1]
        # Pillow's size of a TIFF is that after it is transposed.
        swaps_sides = image.format != "TIFF" and is_sideways(image)
        return (height, width) if swaps_sides else (width, height)


def _read_header(file: IO[bytes], allowed: tuple[Format, ...]) -> tuple[Header, list[Format]]:
    """The header, when it is within all limits, and the formats of which the file can be."""
    formats = _matching_formats(file, allowed)
    if not formats:
        raise _unsupported_type(file, allowed)
    header = header_checks.check(file, formats[0].pillow[0], Image.MAX_IMAGE_PIXELS)
    if header.pixels is not None:
        check_pixel_count(header.pixels)
    return header, formats


def _webp_memory_bytes(
    file: IO[bytes], header: Header, options: DecodeOptions, by_rows: bool
) -> int:
    assert header.pixels is not None  # The header of a WebP says how many it has.
    if by_rows:
        file_bytes = os.fstat(file.fileno()).st_size
        min_side = options.min_side_by_rows()
        needed_bytes = libvips.webp_memory_bytes(header.pixels, min_side, file_bytes)
        return needed_bytes + round(header.pixels * header.kept_bytes)
    return header.pixels * (_format_of("WEBP").bytes_per_pixel + SCALING_BYTES_PER_PIXEL)


def _decode_by_rows(
    memory: ExitStack,
    file: IO[bytes],
    image: ImageFile.ImageFile,
    header: Header,
    options: DecodeOptions,
) -> Image.Image | None:
    """Decode and reduce by libvips; None when Pillow has to decode it, or to say what is wrong."""
    min_side = options.min_side_by_rows()
    if not libvips.can_read(image, min_side):
        return None
    if header.pixels is None:
        memory.enter_context(memory_for(libvips.memory_bytes(image, min_side)))
    try:
        pixels = libvips.read_reduced(file, image, min_side)
    except libvips.NotReadable as error:
        log.debug("not_read_by_libvips", reason=str(error))
        memory.close()
        if header.pixels is not None:
            needed_bytes = _webp_memory_bytes(file, header, options, by_rows=False)
            memory.enter_context(memory_for(needed_bytes))
        return None
    if image.format == "TIFF":  # Pillow transposes a TIFF while it decodes it.
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        if orientation in TRANSPOSITIONS:
            pixels = pixels.transpose(TRANSPOSITIONS[orientation])
    else:
        pixels.info = {key: image.info[key] for key in image.info if key != "transparency"}
    if profile := image.info.get("icc_profile"):
        pixels.info["icc_profile"] = profile
    return pixels


def _decode_png(
    memory: ExitStack, file: IO[bytes], image: ImageFile.ImageFile, header: Header
) -> Image.Image | None:
    """Decode a whole PNG by libvips; None when it is none for it."""
    if not libvips.can_read_whole(image):
        return None
    kept_bytes = round(image.width * image.height * header.kept_bytes)
    needed_bytes = _pillow_memory_bytes(image) + libvips.rows_memory_bytes(image) + kept_bytes
    memory.enter_context(memory_for(needed_bytes))
    try:
        pixels = libvips.read_whole(file, image)
    except libvips.NotReadable as error:
        log.debug("not_read_by_libvips", reason=str(error))
        memory.close()
        return None
    pixels.info = dict(image.info)
    return pixels


def _decode_by_pillow(
    memory: ExitStack,
    file: IO[bytes],
    image: ImageFile.ImageFile,
    header: Header,
    options: DecodeOptions,
) -> Image.Image:
    """Decode by Pillow: a JPEG is reduced meanwhile, all others are decoded whole."""
    pixels = image.width * image.height
    if options.min_side:
        image.draft(options.jpeg_mode, _draft_size(image.size, options, header.scans > 0))
    if header.pixels is None:
        each_bytes = header.kept_bytes + (COMPARING_BYTES_PER_PIXEL if header.is_cut else 0)
        memory.enter_context(memory_for(_pillow_memory_bytes(image) + round(pixels * each_bytes)))
    _load(image, file)
    return image


def _draft_size(size: tuple[int, int], options: DecodeOptions, has_scans: bool) -> tuple[int, int]:
    """The least size to which Pillow may reduce a JPEG."""
    assert options.min_side is not None  # It is to be reduced.
    if options.is_whole:
        return options.min_side, options.min_side
    if has_scans and options.min_side != CHECK_ONLY:
        return fitted(size, LARGEST_SIZE)
    return fitted(size, options.min_side)


def fitted(size: tuple[int, int], longer_side: int) -> tuple[int, int]:
    """Width and height reduced so that the longer one is at most `longer_side`, in pixels."""
    longer = max(size)
    if longer <= longer_side:
        return size
    width, height = (max(1, round(side * longer_side / longer)) for side in size)
    return width, height


def upright(image: Image.Image) -> Image.Image:
    """A copy that is transposed as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Broken EXIF data costs only the orientation: all pixels are there.
        return image.copy()


def is_upright(image: Image.Image) -> bool:
    """Whether `upright` would leave a JPEG or PNG as it is."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation) not in TRANSPOSITIONS
    except Exception:  # Broken EXIF data costs only the orientation, as in `upright`.
        return True


def is_sideways(image: Image.Image) -> bool:
    """Whether the EXIF orientation swaps width and height, by what is read of the picture."""
    try:
        # `getexif` of a PNG would decode it for what comes after its pixels.
        exif = Image.Image.getexif(image)
        return exif.get(ExifTags.Base.Orientation) in SIDEWAYS
    except Exception:  # Pillow raises many things on broken EXIF data.
        return False


def _pillow_memory_bytes(image: ImageFile.ImageFile) -> int:
    """Memory that Pillow takes to decode an image that is open, and to scale it."""
    each = _format_of(image.format).bytes_per_pixel or BYTES_IN_MEMORY.get(image.mode, 4)
    if image.mode not in SCALABLE_MODES or image.has_transparency_data:
        each += SCALING_BYTES_PER_PIXEL
    return MIN_BYTES + image.width * image.height * each


def decode_cost(image: ImageFile.ImageFile, scans: int) -> Cost:
    """What decides how long the decode of an open image takes.

    Args:
        scans: passes over the picture (`Header.scans`).
    """
    format = _format_of(image.format)
    bytes_per_pixel = BYTES_OF_MODES.get(image.mode, len(image.getbands()))
    if any(";16" in str(tile[3]) for tile in image.tile):  # Pillow keeps 8 bits of these.
        bytes_per_pixel *= 2
    return Cost(*image.size, bytes_per_pixel * format.nanoseconds_per_byte * 1e-9, scans)


def _format_of(pillow_name: str | None) -> Format:
    return next(format for format in FORMATS if pillow_name in format.pillow)


def _matching_formats(file: IO[bytes], allowed: tuple[Format, ...]) -> list[Format]:
    """The formats of which a file can be by its first bytes: one at most, for nearly all files."""
    file.seek(0)
    prefix = file.read(16)
    file.seek(0)
    openers = [(format, Image.OPEN.get(format.pillow[0])) for format in allowed]
    tests = [(format, opener[1]) for format, opener in openers if opener]
    return [format for format, matches in tests if matches and matches(prefix) is True]


def _unsupported_type(file: IO[bytes], allowed: tuple[Format, ...]) -> UnsupportedType:
    extensions = ", ".join(format.extension for format in allowed)
    kind = file_kinds.kind_of(file)
    found = f"This is a file of the kind {kind}" if kind else "The content is of an unknown kind"
    return UnsupportedType(
        f"{found}, which is none of the image formats that are accepted: {extensions}."
    )


def _open(opened: ExitStack, file: IO[bytes], formats: list[Format]) -> ImageFile.ImageFile:
    """Open an image by its header, until `opened` is closed."""
    image = _open_by_pillow(file, formats)
    opened.callback(_free_memory, image)
    # Pillow's warning, which is an error here, can be silenced by any code of the process.
    check_pixel_count(image.width * image.height)
    if image.format not in header_checks.CHECKS and hasattr(image, "n_frames"):
        frames = header_checks.Frames(Image.MAX_IMAGE_PIXELS)
        frames.add(image.width, image.height, image.n_frames)
    return image


def _open_by_pillow(file: IO[bytes], formats: list[Format]) -> ImageFile.ImageFile:
    try:
        return Image.open(file, formats=[format.pillow[0] for format in formats])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels() from error
    except Exception as error:  # Pillow raises many things on hostile bytes.
        raise _unreadable(file, formats[0].pillow[0]) from error


def _load(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    try:
        corrections.load(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels() from error
    except Exception as error:
        format = "JPEG" if image.format == "MPO" else image.format or ""
        raise _unreadable(file, format) from error


def _free_memory(image: ImageFile.ImageFile) -> None:
    """Free the memory of a picture before another picture gets it."""
    Image.Image.close(image)  # That of `ImageFile` would close the file, too.
    image.fp = None
    vars(image).pop("_decoder", None)  # That of a WebP or AVIF has most of the memory.


def _unreadable(file: IO[bytes], format: str) -> UnsupportedType | Undecodable:
    """The error for an image that Pillow cannot read: of an unsupported kind, or broken."""
    if kind := file_kinds.unreadable_kind(file, format):
        return UnsupportedType(
            f"This is a {kind}, a kind that cannot be read here; save it in a more usual one, such "
            "as with 8 bits per sample."
        )
    return Undecodable("The image is broken or incomplete.")


def check_pixel_count(pixels: int) -> None:
    """Refuse an image with more pixels than are accepted.

    Raises:
        TooManyPixels: it has more.
    """
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:
        raise _too_many_pixels()


def _too_many_pixels() -> TooManyPixels:
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None  # Without a limit, no image has too many.
    return TooManyPixels(
        f"The image has more than {limit / 1e6:g} megapixels ({limit} pixels), the most accepted."
    )
