"""Pillow: what a file is, whether its pixels can be read, and the picture as displayed."""

import ctypes
import io
import os
import struct
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, ImageFile, ImageOps, PngImagePlugin, WebPImagePlugin, features

from clustr import logs
from clustr.domain.errors import Empty, TooManyPixels, Undecodable, UnsupportedType
from clustr.imaging import color_management, corrections, decode_limits, header_checks, libvips
from clustr.imaging.decode_limits import Cost, memory_for
from clustr.imaging.header_checks import Header

try:
    import pi_heif
except ImportError:  # there are machines that have no wheel of it
    pi_heif = None

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of image that can be accepted.

    `pillow` holds the names by which Pillow reports it: a JPEG with several pictures inside, as
    many cameras write it, is an MPO to Pillow and a JPEG to everybody else. It is opened by the
    first of them; an MPO has no opener of its own.

    `bytes_per_pixel` is the memory that a decode by Pillow takes at most, measured with Pillow 13
    on 40 megapixels; 0 where it is that of the pixels themselves, by their mode. It is 9.6 for a
    TIFF of a single strip, 4 to 7 for other TIFFs, and 8 for a GIF whose frame does not cover its
    canvas, which becomes clear.

    `nanoseconds_per_byte` is the time that a decode takes for each byte of its pixels where the
    file says next to nothing of them, measured with Pillow 13 on pictures of 50 megapixels in one
    color: what a file holds takes more, and that grows with its size.
    """

    extension: str
    content_type: str
    pillow: tuple[str, ...]
    bytes_per_pixel: int
    nanoseconds_per_byte: float
    other_extensions: tuple[str, ...] = ()


FORMATS = (
    Format("jpg", "image/jpeg", ("JPEG", "MPO"), 0, 0.1, ("jpeg",)),
    Format("png", "image/png", ("PNG",), 0, 5),
    Format("webp", "image/webp", ("WEBP",), 17, 4.5),
    Format("bmp", "image/bmp", ("BMP",), 0, 1),
    Format("tif", "image/tiff", ("TIFF",), 10, 1.5, ("tiff",)),
    Format("gif", "image/gif", ("GIF",), 8, 2),
    Format("avif", "image/avif", ("AVIF",), 10, 3),
    Format("heic", "image/heic", ("HEIF",), 10, 3, ("heif",)),
)
CONTENT_TYPES = {format.extension: format.content_type for format in FORMATS}

# Memory for the texts of a PNG, of which the rest is left out.
PNG_TEXTS_BYTES = 4 * 1024 * 1024

# Those of Pillow that read and write these, and MPO.
PILLOW_MODULES = ("Avif", "Bmp", "Gif", "Jpeg", "Mpo", "Png", "Tiff", "WebP")

# How pictures that are made are written, by extension: what comes first is the smallest. On slower
# settings the files are a few percent smaller and take several times as long.
WRITERS = {
    "avif": ("AVIF", {"quality": 60, "speed": 9, "max_threads": 1}),
    "webp": ("WEBP", {"quality": 80, "method": 2}),
    "jpg": ("JPEG", {"quality": 80}),
}
# Besides the decode, scaling takes whole copies of a picture that is in none of these modes, or
# that has a color which stands for none.
SCALED_AS_IT_IS = ("L", "RGB", "CMYK", "LAB")
SCALING_BYTES_PER_PIXEL = 9
# What the decode of a JPEG takes besides that lacks its end mark, and is looked at as a whole.
WHOLE_BYTES_PER_PIXEL = 4
# What the smallest picture takes.
LEAST_BYTES = 1_000_000

# The longer side to which a picture is reduced by its decode, where that reads all of it whatever
# it is reduced to: enough to make the largest thumbnail of it, so that one decode makes all.
LARGEST_SIZE = 1600
FOR_ALL_SIZES = LARGEST_SIZE * 3 // 2
# The same where nothing is made of it.
FOR_NONE = 64
# How many times larger a thumbnail has to be for another to be made of it.
TIMES_LARGER = 4

# Bytes of a pixel by Pillow's modes, where they are not one for each band.
BYTES_OF_MODES = {"1": 1 / 8, "I;16": 2, "I": 4, "F": 4}
# Bytes of a pixel in Pillow's memory, where they are not four.
BYTES_IN_MEMORY = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}

# How pictures are turned that say so (EXIF 2.32, Orientation).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of <malloc.h>


@dataclass(frozen=True, slots=True)
class InspectedImage:
    """What `inspect` found: the true format, and the displayed width and height in pixels."""

    format: Format
    width: int
    height: int


def formats_for(extensions: tuple[str, ...], leave_out: bool = False) -> tuple[Format, ...]:
    """The formats that these extensions stand for.

    Args:
        leave_out: whether to leave out, with a line in the log, what cannot be read here; for a
            list that nobody has asked for.

    Raises:
        ValueError: an extension stands for no format that can be read; the message says which can.
    """
    by_extension = {e: f for f in FORMATS for e in (f.extension, *f.other_extensions)}
    unknown = [e for e in extensions if e.lower().lstrip(".") not in by_extension]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: expected some of {', '.join(by_extension)}")
    chosen = {by_extension[e.lower().lstrip(".")] for e in extensions}
    for problem in filter(None, (why_unreadable(format.extension) for format in chosen)):
        if not leave_out:
            raise ValueError(problem)
        log.warning("format_left_out", reason=problem)
    return tuple(f for f in FORMATS if f in chosen and why_unreadable(f.extension) is None)


def why_unreadable(extension: str) -> str | None:
    """Why a format is not read by what is installed, if it is not; `extension` is one of ours."""
    if can_read(extension):
        return None
    how = "install pi-heif" if extension == "heic" else "Pillow lacks it"
    return f"{extension}: cannot be read here; {how}"


def can_read(extension: str) -> bool:
    """Whether images of a format are read by what is installed; `extension` is one of ours."""
    if extension == "heic":
        return pi_heif is not None
    return extension not in ("avif", "webp") or bool(features.check(extension))


class TolerantPngStream(PngImagePlugin.PngStream):
    """Reads over what a PNG says wrongly of what its picture does not need.

    That is an animation, of which the default image is shown, how to show the picture, texts, of
    which those that are too large are left out, and the checksum of any chunk that is not critical.
    Browsers do so too: an error in such a chunk is none of the image (PNG specification, 13.1).
    """

    NOT_NEEDED = (b"acTL", b"fcTL", b"pHYs", b"gAMA", b"cHRM", b"sRGB")
    TEXTS = (b"tEXt", b"zTXt", b"iTXt")

    def call(self, cid: bytes, pos: int, length: int) -> bytes:
        """Read the content of a chunk."""
        if cid not in self.TEXTS or self.text_memory <= PngImagePlugin.MAX_TEXT_MEMORY:
            try:
                return super().call(cid, pos, length)
            except (SyntaxError, ValueError, IndexError, struct.error):
                if cid in self.TEXTS:  # So much of it was inflated, which is done a few times only.
                    self.text_memory += PngImagePlugin.MAX_TEXT_CHUNK
                elif cid in self.NOT_NEEDED:
                    self.im_n_frames = None
                else:
                    raise
        assert self.fp is not None  # It is being read.
        self.fp.seek(pos)
        return self.fp.read(length)

    def crc(self, cid: bytes, data: bytes) -> None:
        """Read the checksum of a chunk, and verify it if the chunk begins with a capital."""
        if cid[:1].islower():
            self.crc_skip(cid, data)
        else:
            super().crc(cid, data)


class TolerantWebPImageFile(WebPImagePlugin.WebPImageFile):
    """Reads a WebP to the end of its last chunk, where the size that its header states is wrong.

    Browsers do so too: they decode what has come, for as long as it makes sense.
    """

    def _open(self) -> None:
        file = self.fp
        assert file is not None  # It is being read.
        try:
            super()._open()
        except OSError:
            file.seek(0)
            self.fp = io.BytesIO(header_checks.with_true_size(file.read()))
            super()._open()
        finally:
            self.fp = file


def prepare(max_pixels: int) -> None:
    """Load our formats into this process and refuse images of more than `max_pixels` pixels.

    Of Pillow's other formats, most of which nobody has met, none is even there.

    Pillow's own limit is one of the process: it warns above it and raises above its double. The
    warning is made an error, so that the limit is the limit wherever an image is opened. What else
    Pillow warns of, such as broken EXIF data, is no reason to refuse a picture that can be seen.
    """
    for name in PILLOW_MODULES:
        import_module(f"PIL.{name}ImagePlugin")
    if pi_heif is not None:
        pi_heif.register_heif_opener()
    # Pillow has no other way to be given one.
    PngImagePlugin.PngStream = TolerantPngStream  # type: ignore[misc]
    PngImagePlugin.MAX_TEXT_MEMORY = PNG_TEXTS_BYTES
    Image.register_open("WEBP", TolerantWebPImageFile, Image.OPEN["WEBP"][1])
    corrections.prepare()
    _silence_libtiff()
    _give_memory_back()
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _silence_libtiff() -> None:
    """Keep libtiff from writing to the error output, between the lines of the log.

    Pillow turns off its warnings, but not its errors, which Pillow raises besides. The library is
    the one that Pillow has loaded; where it is built into Pillow, it goes on writing.
    """
    mapped = Path("/proc/self/maps").read_text().splitlines()
    for library in {line.split(maxsplit=5)[5] for line in mapped if "/libtiff" in line}:
        ctypes.CDLL(library).TIFFSetErrorHandler(None)


def _give_memory_back() -> None:
    """Let memory of a MiB or more go back to the system as soon as it is freed (mallopt(3)).

    glibc begins to keep such pieces once some were freed, for each thread: 100 MB of a picture of
    40 megapixels, measured. It also keeps what is smaller, for each thread until there are 16: two
    are enough where threads take turns. Other C libraries do not, and have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1024 * 1024)
        mallopt(M_ARENA_MAX, 2)


def inspect(
    file: IO[bytes], allowed: tuple[Format, ...], limit_time: bool = False
) -> InspectedImage:
    """Find out what the file is and make sure that its pixels can be read.

    The header decides on format, pixels, frames and metadata before anything is decoded. The decode
    is a reduced one, without colors, where the format can do that (JPEG), as it reads every byte
    of the picture all the same; of several frames only the first is decoded. The orientation is
    asked for last: a PNG may have its EXIF data behind the pixels, and Pillow turns a TIFF while it
    decodes it.

    Args:
        file: open for reading; it stays open.
        allowed: the formats to accept.
        limit_time: whether to refuse what takes too long to decode for the bytes that it has, as
            is done with new files; those that were stored before are not judged by it.

    Raises:
        Empty, UnsupportedType, TooManyPixels, Undecodable: what is wrong with the file.
    """
    size_bytes = file.seek(0, os.SEEK_END)
    if size_bytes == 0:
        raise Empty("The file is empty.")

    def check(image: ImageFile.ImageFile, header: Header) -> None:
        if limit_time:
            cost = _cost(image, header.scans)
            decode_limits.check_time(cost, size_bytes, Image.MAX_IMAGE_PIXELS)

    with _decoded(file, allowed, Purpose(FOR_NONE, check, mode="L")) as decoded:
        format = next(f for f in allowed if decoded.image.format in f.pillow)
        width, height = decoded.size
        if _is_turned(decoded.pixels):
            width, height = height, width
    return InspectedImage(format, width, height)


def open_displayed(
    path: Path, at_least: int | None = None, color_managed: bool = True
) -> Image.Image:
    """Decode the whole image, turn it as its EXIF orientation says, and bring it into sRGB.

    Args:
        at_least: pixels that its shorter side has to keep. A JPEG is then decoded at 1/2, 1/4 or
            1/8 of its size, which takes a fraction of the time.
        color_managed: whether to bring it into sRGB, which takes twice as long as the decode of a
            JPEG with another profile.

    Raises:
        TooManyPixels, Undecodable, UnsupportedType: it cannot be decoded; the message says why.
        OSError: the file cannot be opened.
    """
    purpose = Purpose(at_least, is_whole=True)
    with path.open("rb") as file, _decoded(file, FORMATS, purpose) as decoded:
        shown = _upright(decoded.pixels)
        return color_management.displayed(shown) if color_managed else shown


def displayed_size(path: Path) -> tuple[int, int]:
    """The width and height of an image as it is displayed, which its header says.

    No pixel is read, unless what turns a PNG is behind its pixels.

    Raises:
        TooManyPixels, Undecodable, UnsupportedType: it cannot be opened; the message says why.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file, ExitStack() as opened:
        header, likely = _read_header(file, FORMATS)
        if likely[0].extension == "png" and not header.is_still:
            return open_displayed(path, color_managed=False).size
        if header.pixels is not None:  # Pillow reserves memory for such a picture as it opens it.
            need = _webp_memory_needed(file, header, Purpose(None), by_rows=False)
            opened.enter_context(memory_for(need))
        image = _open(opened, file, likely)
        width, height = image.size
        is_avif = image.format == "AVIF"
        if is_avif and (box := corrections.clean_aperture(file.fileno(), width, height)):
            width, height = box[2] - box[0], box[3] - box[1]
        # Pillow gives the size of a TIFF as it is turned.
        is_turned = image.format != "TIFF" and _is_turned(image)
        return (height, width) if is_turned else (width, height)


def can_write(extension: str) -> bool:
    """Whether pictures can be written in a format; `extension` is one of `WRITERS`."""
    return WRITERS[extension][0] in Image.SAVE and can_read(extension)


def thumbnails(
    file: IO[bytes], wanted: Callable[[], Collection[tuple[int, str]]]
) -> Iterator[tuple[tuple[int, str], bytes]]:
    """Small copies of an image: upright, in sRGB, and without anything that was said of it.

    All are made by one decode. Of several frames it is the first. What is clear stays so where the
    format can have alpha, and becomes white in a JPEG.

    Args:
        file: open for reading; it stays open.
        wanted: says which are wanted, each by the pixels of its longer side at most and one of
            `WRITERS`; an image is never enlarged. It is asked before and after the decode: what is
            wanted meanwhile is made, too, unless it is larger than what the decode was reduced to.

    Yields:
        each that is made, with its size and extension.

    Raises:
        Empty, TooManyPixels, Undecodable, UnsupportedType: it cannot be decoded.
    """
    largest = max(size for size, _ in wanted())
    with _decoded(file, FORMATS, Purpose(largest)) as decoded:
        with _scaling():
            picture = color_management.plain(decoded.pixels)
            factor = max(picture.size) // FOR_ALL_SIZES
            picture = picture.reduce(factor) if factor > 1 else picture
            picture.info = decoded.pixels.info  # which says how it is to be turned
        most = max(largest, *picture.size)
        for size, extension in sorted(wanted(), reverse=True):
            if size <= most or picture.size == decoded.size:
                with _scaling():
                    small = _scaled(picture, _fitted(decoded.size, size))
                    made = _written(small, extension)
                yield (size, extension), made


def smaller(file: IO[bytes], size: int, extension: str) -> bytes | None:
    """A thumbnail that is made of a larger one, where nothing is lost by that.

    That one has to be `TIMES_LARGER` at least: then what its encoding has changed is averaged
    away. And its sides have to tell those of this one, though they are rounded themselves.

    Args:
        file: a thumbnail that was made here, in the same format.
        size: pixels of the longer side.
        extension: one of `WRITERS`.

    Returns:
        None where something would be lost.

    Raises:
        Undecodable, UnsupportedType: the larger one is broken.
    """
    purpose = Purpose(None, is_whole=True)
    with _decoded(file, FORMATS, purpose) as decoded:
        longer, shorter = max(decoded.size), min(decoded.size)
        sides = {max(1, round((shorter + half) * size / longer)) for half in (-0.5, 0.5)}
        if longer < TIMES_LARGER * size or len(sides) > 1:
            return None
        with _scaling():
            small = _scaled(color_management.plain(decoded.pixels), _fitted(decoded.size, size))
            return _written(small, extension)


@contextmanager
def _scaling() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Undecodable("The image cannot be scaled.") from error


def _fitted(whole: tuple[int, int], size: int) -> tuple[int, int]:
    """Width and height with the longer side at most `size`."""
    longer = max(whole)
    if longer <= size:
        return whole
    width, height = (max(1, round(side * size / longer)) for side in whole)
    return width, height


def _scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    small = picture
    if small.size != size:
        small = small.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    small.info = picture.info
    small = color_management.to_srgb(small)
    small.info = picture.info
    return _upright(small)


def _written(image: Image.Image, extension: str) -> bytes:
    format, options = WRITERS[extension]
    if image.mode == "RGBA" and format == "JPEG":
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image.getchannel("A"))
        image = opaque
    image.info = {}  # Some of it would be written.
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    """A copy, turned as the EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Broken EXIF data only costs the turn: the pixels are all there.
        return image.copy()


def _is_turned(image: Image.Image) -> bool:
    """Whether the EXIF orientation swaps width and height, by what is read of the picture."""
    try:
        # That of a PNG would decode it for what is behind its pixels.
        exif = Image.Image.getexif(image)
        return exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # Pillow raises many things on broken EXIF data.
        return False


def _no_check(_image: ImageFile.ImageFile, _header: Header) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a picture is decoded for.

    Attributes:
        at_least: pixels that its longer side has to keep; all when None. If it is to be whole, a
            JPEG alone is reduced, and it is the shorter side.
        check: called with what is known of it before the decode, to refuse it.
        mode: the one that a JPEG is decoded in.
        is_whole: whether all its pixels are wanted.
    """

    at_least: int | None
    check: Callable[[ImageFile.ImageFile, Header], None] = _no_check
    mode: str | None = None
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture that is decoded.

    Attributes:
        image: the image that Pillow opened, whose own pixels may never be read.
        pixels: the picture, perhaps reduced, and what was said of it.
        size: width and height of all of it.
    """

    image: ImageFile.ImageFile
    pixels: Image.Image
    size: tuple[int, int]


@contextmanager
def _decoded(file: IO[bytes], allowed: tuple[Format, ...], purpose: Purpose) -> Iterator[Decoded]:
    """Decode an image, with memory for that and for what is done with it then.

    The header decides on format, pixels and frames before that. Pillow is given an open file, not a
    path: so no path gets into its messages, a file that is not there is not taken for a broken
    image, and nothing is mapped into memory.
    """
    header, likely = _read_header(file, allowed)
    with ExitStack() as memory, ExitStack() as opened:
        by_rows = header.is_still and not purpose.is_whole
        if header.pixels is not None:  # Pillow reserves memory for such a picture as it opens it.
            by_rows = by_rows and header.pixels >= libvips.LEAST_PIXELS
            memory.enter_context(memory_for(_webp_memory_needed(file, header, purpose, by_rows)))
        image = _open(opened, file, likely)
        size = image.size
        purpose.check(image, header)
        pixels = _reduced(memory, file, image, header, purpose) if by_rows else None
        if pixels is None:
            pixels = _loaded(memory, file, image, header, purpose)
            if image.format == "AVIF":  # which may have been cut
                size = image.size
        yield Decoded(image, pixels, size)


def _read_header(file: IO[bytes], allowed: tuple[Format, ...]) -> tuple[Header, list[Format]]:
    """What the header says, within all limits, and the formats that it can be of."""
    likely = _begins_like(file, allowed)
    if not likely:
        raise _unsupported(file, allowed)
    header = header_checks.check(file, likely[0].pillow[0], Image.MAX_IMAGE_PIXELS)
    if header.pixels is not None:
        _check_pixels(header.pixels)
    return header, likely


def _webp_memory_needed(file: IO[bytes], header: Header, purpose: Purpose, by_rows: bool) -> int:
    assert header.pixels is not None  # Those of a WebP are told.
    if by_rows:
        size_bytes = os.fstat(file.fileno()).st_size
        need = libvips.webp_memory_needed(header.pixels, _at_least(purpose), size_bytes)
        return need + round(header.pixels * header.kept_bytes)
    return header.pixels * (_format_of("WEBP").bytes_per_pixel + SCALING_BYTES_PER_PIXEL)


def _at_least(purpose: Purpose) -> int:
    """The longer side to keep where that does not matter to the decode."""
    return FOR_NONE if purpose.at_least == FOR_NONE else FOR_ALL_SIZES


def _reduced(
    memory: ExitStack,
    file: IO[bytes],
    image: ImageFile.ImageFile,
    header: Header,
    purpose: Purpose,
) -> Image.Image | None:
    """Decode and reduce by libvips; None where that is Pillow's to do, or to say what is wrong."""
    at_least = _at_least(purpose)
    if not libvips.reads(image, at_least):
        return None
    if header.pixels is None:
        memory.enter_context(memory_for(libvips.memory_needed(image, at_least)))
    try:
        pixels = libvips.reduced(file, image, at_least)
    except libvips.NotRead as error:
        log.debug("not_read_by_libvips", reason=str(error))
        memory.close()
        if header.pixels is not None:
            need = _webp_memory_needed(file, header, purpose, by_rows=False)
            memory.enter_context(memory_for(need))
        return None
    if image.format == "TIFF":  # Pillow turns one while it decodes it.
        pixels = _turned(pixels, image)
    else:
        pixels.info = {key: image.info[key] for key in image.info if key != "transparency"}
    if profile := image.info.get("icc_profile"):
        pixels.info["icc_profile"] = profile
    return pixels


def _loaded(
    memory: ExitStack,
    file: IO[bytes],
    image: ImageFile.ImageFile,
    header: Header,
    purpose: Purpose,
) -> Image.Image:
    """Decode by Pillow: a JPEG reduced as it is decoded, all others whole."""
    pixels = image.width * image.height
    if purpose.at_least:
        image.draft(purpose.mode, _reduced_size(image.size, purpose, header.scans > 0))
    if header.pixels is None:
        each = header.kept_bytes + (WHOLE_BYTES_PER_PIXEL if header.is_cut else 0)
        need = _memory_needed(image) + round(pixels * each)
        memory.enter_context(memory_for(need))
    _load(image, file)
    return image


def _reduced_size(size: tuple[int, int], purpose: Purpose, has_scans: bool) -> tuple[int, int]:
    """The least that Pillow may reduce a JPEG to."""
    assert purpose.at_least is not None  # It is to be reduced.
    if purpose.is_whole:
        return purpose.at_least, purpose.at_least
    if has_scans and purpose.at_least != FOR_NONE:
        return _fitted(size, LARGEST_SIZE)
    return _fitted(size, purpose.at_least)


def _memory_needed(image: ImageFile.ImageFile) -> int:
    """Bytes of memory that Pillow takes for a picture that is open, and to scale it."""
    each = _format_of(image.format).bytes_per_pixel or BYTES_IN_MEMORY.get(image.mode, 4)
    if image.mode not in SCALED_AS_IT_IS or image.has_transparency_data:
        each += SCALING_BYTES_PER_PIXEL
    return LEAST_BYTES + image.width * image.height * each


def _format_of(name: str | None) -> Format:
    """The format that Pillow calls so."""
    return next(format for format in FORMATS if name in format.pillow)


def _open(opened: ExitStack, file: IO[bytes], likely: list[Format]) -> ImageFile.ImageFile:
    """Open an image by its header, for as long as the others that are opened."""
    image = _opened(file, likely)
    opened.callback(_let_go, image)
    # Pillow's warning, which is an error here, can be silenced by any code of the process.
    _check_pixels(image.width * image.height)
    if image.format not in header_checks.CHECKS and hasattr(image, "n_frames"):
        frames = header_checks.Frames(Image.MAX_IMAGE_PIXELS)
        frames.add(image.width, image.height, image.n_frames)
    return image


def _turned(pixels: Image.Image, image: ImageFile.ImageFile) -> Image.Image:
    """Turn the pixels of an image as it says."""
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return pixels.transpose(TURNS[orientation]) if orientation in TURNS else pixels


def _cost(image: ImageFile.ImageFile, scans: int) -> Cost:
    """What decides how long the decode of an image takes that was opened."""
    format = _format_of(image.format)
    bytes_per_pixel = BYTES_OF_MODES.get(image.mode, len(image.getbands()))
    if any(";16" in str(tile[3]) for tile in image.tile):  # Pillow keeps 8 bits of these.
        bytes_per_pixel *= 2
    return Cost(*image.size, bytes_per_pixel * format.nanoseconds_per_byte * 1e-9, scans)


def _let_go(image: ImageFile.ImageFile) -> None:
    """Give back the memory of a picture, before somebody else takes the room for another."""
    Image.Image.close(image)  # that of `ImageFile` would close the file, too
    image.fp = None
    vars(image).pop("_decoder", None)  # that of a WebP or AVIF holds most of it


def _begins_like(file: IO[bytes], allowed: tuple[Format, ...]) -> list[Format]:
    """The formats that the first bytes can be of; most have bytes of their own."""
    file.seek(0)
    prefix = file.read(16)
    file.seek(0)
    openers = [(format, Image.OPEN.get(format.pillow[0])) for format in allowed]
    tests = [(format, opener[1]) for format, opener in openers if opener]
    return [format for format, is_one in tests if is_one and is_one(prefix) is True]


def _unsupported(file: IO[bytes], allowed: tuple[Format, ...]) -> UnsupportedType:
    extensions = ", ".join(format.extension for format in allowed)
    kind = header_checks.kind_of(file)
    found = f"This is a file of the kind {kind}" if kind else "The content is of an unknown kind"
    return UnsupportedType(
        f"{found}, which is none of the image formats that are accepted: {extensions}."
    )


def _opened(file: IO[bytes], formats: list[Format]) -> ImageFile.ImageFile:
    try:
        return Image.open(file, formats=[format.pillow[0] for format in formats])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_many_pixels() from error
    except Exception as error:  # On hostile bytes Pillow raises what it likes.
        raise _unread(file, formats[0].pillow[0]) from error


def _unread(file: IO[bytes], format: str) -> UnsupportedType | Undecodable:
    """What to say of an image that Pillow cannot read: that it is of another kind, or broken."""
    if kind := header_checks.unread_kind(file, format):
        return UnsupportedType(
            f"This is a {kind}, a kind that cannot be read here; save it in a more usual one, such "
            "as with 8 bits per sample."
        )
    return Undecodable("The image is broken or incomplete.")


def _check_pixels(pixels: int) -> None:
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:
        raise too_many_pixels()


def _load(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    try:
        corrections.load(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_many_pixels() from error
    except Exception as error:
        format = "JPEG" if image.format == "MPO" else image.format or ""
        raise _unread(file, format) from error


def too_many_pixels() -> TooManyPixels:
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None  # Nothing has too many where there is no limit.
    return TooManyPixels(
        f"The image has more than {limit / 1e6:g} megapixels ({limit} pixels), the most accepted."
    )
