"""Corrections of what Pillow's decoders get wrong or leave out.

Each is for one format; what is said about Pillow was observed with Pillow 13.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any, cast

from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from clustr.imaging import header_checks

# Tags of TIFF 6.0, and values of two of them.
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR_CONFIGURATION = 258, 262, 284
WHITE_IS_ZERO, IN_PLANES = 0, 2
INVERTED = bytes(range(255, -1, -1))

# The end mark of a JPEG (ITU-T T.81, annex B).
END_MARK = b"\xff\xd9"
# Two continuations for a JPEG that ends too early: bytes that are no marker, and all restart
# markers. For whichever restart marker a decoder waits, one of the two has it before the decoder
# gives up, so that the two result in different pixels where pixels are missing.
CONTINUATIONS = tuple(
    b"".join(filler + bytes([0xFF, 0xD0 + (first + place) % 8]) for place in range(8)) + filler
    for filler, first in ((b"\xa5\x5a\x3c\x69" * 8, 0), (b"\x5b\x96\xc3\x2d" * 8, 4))
)
ROWS_AT_ONCE = 256

# The offset of the bit depth of a PNG.
PNG_BIT_DEPTH_OFFSET = 24

# The boxes that describe an AVIF have some hundred bytes, and a color profile.
MAX_META_BYTES = 4 * 1024 * 1024

Box = tuple[int, int, int, int]


def prepare() -> None:
    """Let Pillow open a kind of TIFF that it knows in the other byte order only."""
    kind = (TiffImagePlugin.MM, WHITE_IS_ZERO, (1,), 1, (16,), ())
    TiffImagePlugin.OPEN_INFO.setdefault(kind, ("I;16B", "I;16B"))


def load(image: ImageFile.ImageFile) -> None:
    """Decode an open image to the pixels that viewers display.

    Raises:
        Exception: any that Pillow raises on broken images.
    """
    decode = FORMATS.get(image.format or "")
    if decode and image.tile:
        decode(image)
    else:
        image.load()


def _load_jpeg(image: JpegImagePlugin.JpegImageFile) -> None:
    """Accept a missing end mark, which viewers do not need, if no pixel is missing."""
    file = image.fp
    assert file is not None  # It is open.
    if _load_with_end(image, END_MARK) and not _has_all_pixels(file):
        raise OSError("image file is truncated")


def _load_with_end(image: JpegImagePlugin.JpegImageFile, end: bytes) -> bool:
    """Decode a JPEG with `end` appended to its file; return whether the decoder read that."""
    file, rest = image.fp, [end]
    assert file is not None  # It is open.

    def load_read(read_bytes: int) -> bytes:
        return file.read(read_bytes) or (rest.pop() if rest else b"")

    image.load_read = load_read  # type: ignore[method-assign]  # for this image alone
    try:
        image.load()
    finally:
        del image.load_read
    return not rest


def _has_all_pixels(file: IO[bytes]) -> bool:
    """Whether a JPEG without its end mark has all its pixels: what is appended changes none."""
    if not header_checks.has_all_scans(file):
        return False
    ends_in_mark = os.pread(file.fileno(), 1, file.seek(0, os.SEEK_END) - 1) == END_MARK[:1]
    start = b"\0" if ends_in_mark else b""  # Then that is no marker.
    return len({_digest(file, start + more + END_MARK) for more in CONTINUATIONS}) == 1


def _digest(file: IO[bytes], end: bytes) -> bytes:
    """A hash of the pixels of a JPEG with `end` appended."""
    digest = hashlib.sha256()
    with Image.open(file, formats=["JPEG"]) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)  # So is an MPO.
        _load_with_end(image, end)
        for top in range(0, image.height, ROWS_AT_ONCE):
            bottom = min(image.height, top + ROWS_AT_ONCE)
            digest.update(image.crop((0, top, image.width, bottom)).tobytes())
    return digest.digest()


def _load_png(image: ImageFile.ImageFile) -> None:
    """Convert the transparent color to the bits of Pillow's samples.

    Pillow scales samples of fewer than 8 bits up, and cuts those of colors to 8.
    """
    clear = image.info.get("transparency")
    assert image.fp is not None  # It is open.
    [depth] = os.pread(image.fp.fileno(), 1, PNG_BIT_DEPTH_OFFSET) or b"\0"
    image.load()
    if isinstance(clear, int) and image.mode == "L" and depth in (2, 4):
        image.info["transparency"] = clear * 255 // ((1 << depth) - 1)
    elif isinstance(clear, tuple) and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _load_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Let libtiff read planes of 16 bits, and invert 16 bits in which white is 0.

    Pillow's own reader mistakes each byte of such planes for a pixel.
    """
    tags = image.tag_v2
    bits = tags.get(BITS_PER_SAMPLE, (1,))
    decoder = image.tile[0]
    if tags.get(PLANAR_CONFIGURATION) == IN_PLANES and 16 in bits and decoder.codec_name == "raw":
        of_tiles = [cast("tuple[Any, ...]", tile.args) for tile in image.tile]
        bands = "".join(dict.fromkeys(arguments[0] for arguments in of_tiles))
        image.use_load_libtiff = True
        args = (f"{bands};16N", False, tags.offset)
        image.tile = [ImageFile._Tile("libtiff", (0, 0, *image.size), 0, args)]
    image.load()
    if image.mode.startswith("I;16") and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        inverted = image.tobytes().translate(INVERTED)
        _replace(image, Image.frombytes(image.mode, image.size, inverted))


def _load_gif(image: ImageFile.ImageFile) -> None:
    """Leave transparent what the first frame does not cover, as browsers do."""
    frame = image.tile[0].extents
    image.load()
    if frame != (0, 0, *image.size):
        shown = image.convert("RGBA")
        alpha = Image.new("L", image.size)
        alpha.paste(shown.getchannel("A").crop(frame), frame)
        shown.putalpha(alpha)
        _replace(image, shown)
        image.info.pop("transparency", None)


def _load_avif(image: ImageFile.ImageFile) -> None:
    """Cut the picture to its clean aperture, which libavif leaves to its callers."""
    assert image.fp is not None  # It is open.
    box = clean_aperture(image.fp.fileno(), *image.size)
    image.load()
    if box:
        _replace(image, image.crop(box))


def _replace(image: ImageFile.ImageFile, pixels: Image.Image) -> None:
    """Replace the pixels of an image, and keep its metadata."""
    image.im = pixels.im
    image._mode = pixels.mode
    image._size = pixels.size


# Each gets the image that Pillow has opened.
FORMATS: dict[str, Callable[[Any], None]] = {
    "JPEG": _load_jpeg,
    "MPO": _load_jpeg,
    "PNG": _load_png,
    "TIFF": _load_tiff,
    "GIF": _load_gif,
    "AVIF": _load_avif,
}


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes inside another of an ISO base media file (ISO/IEC 14496-12, 4.2)."""

    data: bytes

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the kind and the content of each box."""
        position = 0
        while position + 8 <= len(self.data):
            length, kind = struct.unpack_from(">I4s", self.data, position)
            if length < 8:
                return
            yield kind, self.data[position + 8 : position + length]
            position += length

    def find(self, kind: bytes) -> bytes:
        """The content of the first box of a kind; empty if there is none."""
        return next((content for found, content in self if found == kind), b"")


def clean_aperture(file: int, width: int, height: int) -> Box | None:
    """The part of an AVIF's picture to display, before its orientation is applied.

    It is specified in ISO/IEC 23008-12, 6.5.9, and 14496-12, 12.1.4.3.

    Args:
        width, height: of the decoded picture, in pixels.

    Returns:
        left, top, right and bottom in pixels; None when all of the picture is displayed, or when
        the aperture is not inside it.
    """
    try:
        [clap] = [each for each in _properties(_meta(file)) if each[0] == b"clap"]
        numbers = struct.unpack_from(">4I iIiI", clap[1])
        across, down, right, below = (
            Fraction(*numbers[place : place + 2]) for place in range(0, 8, 2)
        )
    except (ValueError, struct.error, ZeroDivisionError, IndexError):
        return None
    left = round((width - across) / 2 + right)
    top = round((height - down) / 2 + below)
    box = (left, top, left + round(across), top + round(down))
    is_inside = 0 <= left < box[2] <= width and 0 <= top < box[3] <= height
    return box if is_inside and box != (0, 0, width, height) else None


def _meta(file: int) -> bytes:
    """The boxes that describe the items of a file; empty if there are none."""
    position = 0
    while True:
        head = os.pread(file, 8, position)
        length, kind = struct.unpack(">I4s", head)
        if kind == b"meta" and 12 <= length <= MAX_META_BYTES:
            return os.pread(file, length - 12, position + 12)
        if length < 8:
            return b""
        position += length


def _properties(meta: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The properties of the primary item, each with its kind and its content."""
    boxes = Boxes(meta)
    primary, properties = boxes.find(b"pitm"), Boxes(boxes.find(b"iprp"))
    [item] = struct.unpack_from(">I" if primary[0] else ">H", primary, 4)
    every = list(Boxes(properties.find(b"ipco")))
    told = properties.find(b"ipma")
    id_form = ">I" if told[0] else ">H"
    place_form, mask = (">H", 0x7FFF) if told[3] & 1 else (">B", 0x7F)
    [count] = struct.unpack_from(">I", told, 4)
    position = 8
    for _ in range(count):
        [of_item] = struct.unpack_from(id_form, told, position)
        position += struct.calcsize(id_form)
        associations = told[position]
        position += 1
        for _ in range(associations):
            [place] = struct.unpack_from(place_form, told, position)
            position += struct.calcsize(place_form)
            if of_item == item and 0 < place & mask <= len(every):
                yield every[(place & mask) - 1]
