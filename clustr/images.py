"""Pillow: what a file is, whether its pixels can be read, and the picture as displayed."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import PIL
from PIL import Image, ImageFile, ImageOps

from clustr.errors import Empty, TooManyPixels, Undecodable, UnsupportedType


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of image that can be accepted.

    `pillow` holds the names by which Pillow reports it: a JPEG with several pictures inside, as
    many cameras write it, is an MPO to Pillow and a JPEG to everybody else.
    """

    extension: str
    content_type: str
    pillow: tuple[str, ...]
    other_extensions: tuple[str, ...] = ()


FORMATS = (
    Format("jpg", "image/jpeg", ("JPEG", "MPO"), ("jpeg",)),
    Format("png", "image/png", ("PNG",)),
    Format("webp", "image/webp", ("WEBP",)),
    Format("bmp", "image/bmp", ("BMP", "DIB")),
    Format("tif", "image/tiff", ("TIFF",), ("tiff",)),
    Format("gif", "image/gif", ("GIF",)),
    Format("avif", "image/avif", ("AVIF",)),
)
CONTENT_TYPES = {format.extension: format.content_type for format in FORMATS}

# A decode of this many pixels or more waits for its turn, so that a process that serves many
# requests at once holds at most one large picture in memory.
LARGE_PIXELS = 8_000_000
_large_decode = Lock()

@dataclass(frozen=True, slots=True)
class Inspected:
    """What `inspect` found: the true format, and the displayed width and height in pixels."""

    format: Format
    width: int
    height: int


def formats_for(extensions: tuple[str, ...]) -> tuple[Format, ...]:
    """The formats that these extensions stand for.

    Raises:
        ValueError: an extension stands for no format that can be read; the message says which can.
    """
    by_extension = {e: f for f in FORMATS for e in (f.extension, *f.other_extensions)}
    unknown = [e for e in extensions if e.lower().lstrip(".") not in by_extension]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: expected some of {', '.join(by_extension)}")
    chosen = {by_extension[e.lower().lstrip(".")] for e in extensions}
    return tuple(format for format in FORMATS if format in chosen)


def prepare(max_pixels: int) -> None:
    """Load Pillow's formats into this process and refuse images of more than `max_pixels` pixels.

    Pillow's own limit is one of the process: it warns above it and raises above its double. The
    warning is made an error, so that the limit is the limit wherever an image is opened.
    """
    Image.init()
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def inspect(path: Path, allowed: tuple[Format, ...]) -> Inspected:
    """Find out what the file is and make sure that its pixels can be read.

    The header decides on format and pixels before anything is decoded. The decode is a reduced one
    where the format can do that (JPEG), as it reads every byte of the picture all the same.

    Args:
        path: the file, whatever its name.
        allowed: the formats to accept.

    Raises:
        Empty, UnsupportedType, TooManyPixels, Undecodable: what is wrong with the file.
    """
    if path.stat().st_size == 0:
        raise Empty("The file is empty.")
    with _opened(path, allowed) as image:
        format = next(f for f in allowed if image.format in f.pillow)
        width, height = displayed_size(image)
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        _load(image)
    return Inspected(format, width, height)


def open_displayed(path: Path) -> Image.Image:
    """Decode the whole image and turn it as its EXIF orientation says.

    Raises:
        TooManyPixels, Undecodable, UnsupportedType: it cannot be decoded; the message says why.
    """
    with _opened(path, FORMATS) as image:
        _load(image)
        try:
            return ImageOps.exif_transpose(image)
        except Exception:  # Broken EXIF data only costs the turn: the pixels are all there.
            return image.copy()


def displayed_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels after the EXIF orientation is applied."""
    try:
        turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
    except Exception:  # Pillow raises many things on broken EXIF data; then there is no orientation.
        turned = False
    return (image.height, image.width) if turned else (image.width, image.height)


def _opened(path: Path, allowed: tuple[Format, ...]) -> ImageFile.ImageFile:
    names = [name for format in allowed for name in format.pillow]
    try:
        return Image.open(path, formats=names)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_many_pixels() from error
    except PIL.UnidentifiedImageError as error:
        if _begins_like(path, names):
            raise Undecodable("The image is broken or incomplete.") from error
        extensions = ", ".join(format.extension for format in allowed)
        message = f"The content is none of the image formats that are accepted: {extensions}."
        raise UnsupportedType(message) from error
    except Exception as error:  # On hostile bytes Pillow raises what it likes, IndexError among it.
        raise Undecodable(f"The image cannot be read: {error}") from error


def _begins_like(path: Path, names: list[str]) -> bool:
    """Whether the first bytes are those of one of Pillow's formats `names`."""
    with path.open("rb") as file:
        prefix = file.read(16)
    return any(accept(prefix) is True for name in names if (accept := Image.OPEN[name][1]))


def _load(image: ImageFile.ImageFile) -> None:
    lock = _large_decode if image.width * image.height >= LARGE_PIXELS else None
    try:
        if lock:
            lock.acquire()
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_many_pixels() from error
    except Exception as error:
        raise Undecodable(f"The image is broken or incomplete: {error}") from error
    finally:
        if lock:
            lock.release()


def too_many_pixels() -> TooManyPixels:
    return TooManyPixels(f"The image has more than {Image.MAX_IMAGE_PIXELS} pixels.")
