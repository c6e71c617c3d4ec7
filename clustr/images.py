"""Pillow: what a file is, whether its pixels can be read, and the picture as displayed."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import PIL
from PIL import ExifTags, Image, ImageFile, ImageOps

from clustr.errors import Empty, TooManyPixels, Undecodable, UnsupportedType


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of image that can be accepted.

    `pillow` holds the names by which Pillow reports it: a JPEG with several pictures inside, as
    many cameras write it, is an MPO to Pillow and a JPEG to everybody else. It is opened by the
    first of them; an MPO has no opener of its own.
    """

    extension: str
    content_type: str
    pillow: tuple[str, ...]
    other_extensions: tuple[str, ...] = ()


FORMATS = (
    Format("jpg", "image/jpeg", ("JPEG", "MPO"), ("jpeg",)),
    Format("png", "image/png", ("PNG",)),
    Format("webp", "image/webp", ("WEBP",)),
    Format("bmp", "image/bmp", ("BMP",)),
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
    warning is made an error, so that the limit is the limit wherever an image is opened. What else
    Pillow warns of, such as broken EXIF data, is no reason to refuse a picture that can be seen.
    """
    Image.init()
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def inspect(path: Path, allowed: tuple[Format, ...]) -> Inspected:
    """Find out what the file is and make sure that its pixels can be read.

    The header decides on format and pixels before anything is decoded. The decode is a reduced one
    where the format can do that (JPEG), as it reads every byte of the picture all the same. The
    orientation is asked for last: a PNG may have its EXIF data behind the pixels, and Pillow turns
    a TIFF while it decodes it.

    Args:
        path: the file, whatever its name.
        allowed: the formats to accept.

    Raises:
        Empty, UnsupportedType, TooManyPixels, Undecodable: what is wrong with the file.
        OSError: the file cannot be opened.
    """
    if path.stat().st_size == 0:
        raise Empty("The file is empty.")
    with _opened(path, allowed) as image:
        format = next(f for f in allowed if image.format in f.pillow)
        width, height = image.size
        with _turn_of(image):
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            _load(image)
        if _is_turned(image):
            width, height = height, width
    return Inspected(format, width, height)


def open_displayed(path: Path) -> Image.Image:
    """Decode the whole image and turn it as its EXIF orientation says.

    Raises:
        TooManyPixels, Undecodable, UnsupportedType: it cannot be decoded; the message says why.
        OSError: the file cannot be opened.
    """
    with _opened(path, FORMATS) as image:
        with _turn_of(image):
            _load(image)
        try:
            return ImageOps.exif_transpose(image)
        except Exception:  # Broken EXIF data only costs the turn: the pixels are all there.
            return image.copy()


def _is_turned(image: Image.Image) -> bool:
    """Whether the EXIF orientation swaps the width and height of a picture that was decoded."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # Pillow raises many things on broken EXIF data.
        return False


@contextmanager
def _opened(path: Path, allowed: tuple[Format, ...]) -> Iterator[ImageFile.ImageFile]:
    """Open an image by its header, and close its file in the end.

    Pillow is given an open file, not a path: so no path gets into its messages, a file that is not
    there is not taken for a broken image, and nothing is mapped into memory.
    """
    names = [format.pillow[0] for format in allowed]
    with path.open("rb") as file:
        try:
            image = Image.open(file, formats=names)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise too_many_pixels() from error
        except PIL.UnidentifiedImageError as error:
            if _begins_like(path, names):
                raise Undecodable("The image is broken or incomplete.") from error
            extensions = ", ".join(format.extension for format in allowed)
            message = f"The content is none of the image formats that are accepted: {extensions}."
            raise UnsupportedType(message) from error
        except Exception as error:  # On hostile bytes Pillow raises what it likes.
            raise Undecodable(f"The image cannot be read: {error}") from error
        # Pillow's warning, which is an error here, can be silenced by any code of the process.
        if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise too_many_pixels()
        yield image


def _begins_like(path: Path, names: list[str]) -> bool:
    """Whether the first bytes are those of one of Pillow's formats `names`."""
    with path.open("rb") as file:
        prefix = file.read(16)
    return any(accept(prefix) is True for name in names if (accept := Image.OPEN[name][1]))


def _turn_of(image: ImageFile.ImageFile) -> AbstractContextManager[Any]:
    """The lock for large pictures, or none.

    What counts are the pixels of the file, also for a reduced decode: for a progressive JPEG
    libjpeg keeps all coefficients, 3 to 6 bytes for each pixel, whatever the size that comes out.
    """
    return _large_decode if image.width * image.height >= LARGE_PIXELS else nullcontext()


def _load(image: ImageFile.ImageFile) -> None:
    try:
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_many_pixels() from error
    except Exception as error:
        raise Undecodable(f"The image is broken or incomplete: {error}") from error


def too_many_pixels() -> TooManyPixels:
    return TooManyPixels(f"The image has more than {Image.MAX_IMAGE_PIXELS} pixels.")
