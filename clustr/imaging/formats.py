"""The image formats that Clustr knows, and which of them can be read on this machine."""

from dataclasses import dataclass

from PIL import features

from clustr import logs

try:
    import pi_heif
except ImportError:  # There is no wheel of it for some machines.
    pi_heif = None

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Format:
    """An image format that can be accepted.

    Attributes:
        extension: without a dot; the one that stored files get.
        content_type: its media type.
        pillow: Pillow's names of it. A JPEG with several pictures inside, as many cameras write it,
            is an MPO to Pillow and a JPEG to everybody else. Files are opened by the first name; an
            MPO has no opener of its own.
        bytes_per_pixel: the memory that a decode by Pillow takes at most, measured with Pillow 13
            on 40 megapixels; 0 where it is that of the pixels themselves, by their mode. It is 9.6
            for a TIFF of a single strip, 4 to 7 for other TIFFs, and 8 for a GIF whose frame does
            not cover its canvas, which becomes transparent.
        nanoseconds_per_byte: the time that a decode takes for each byte of the pixels of a small
            file, measured with Pillow 13 on pictures of 50 megapixels in one color. More content
            takes more time, which grows with the size of the file.
        other_extensions: further extensions of the same format.
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


def formats_for(extensions: tuple[str, ...], leave_out: bool = False) -> tuple[Format, ...]:
    """The formats of these extensions.

    Args:
        leave_out: whether to leave out what cannot be read on this machine, with a line in the log;
            for a default that nobody has chosen.

    Raises:
        ValueError: an extension is of no format that can be read; the message says which can.
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
    """Why the installed libraries cannot read a format; None if they can."""
    if can_read(extension):
        return None
    how = "install pi-heif" if extension == "heic" else "Pillow lacks it"
    return f"{extension}: cannot be read here; {how}"


def can_read(extension: str) -> bool:
    """Whether the installed libraries read a format, given by its `extension`."""
    if extension == "heic":
        return pi_heif is not None
    return extension not in ("avif", "webp") or bool(features.check(extension))
