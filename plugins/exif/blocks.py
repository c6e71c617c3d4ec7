"""Where the metadata is in a file: EXIF data, XMP data, and the texts of a PNG."""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import PIL.Image

from clustr.plugins import Fail

LARGEST_BLOCK_BYTES = 2**20  # of a PNG's EXIF data, and of XMP data in any file
MOST_PNG_CHUNKS = 100_000
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"  # in the same block of a JPEG as EXIF data is in

# The texts of a PNG that are read.
XMP_KEYWORD, CREATION_TIME = b"XML:com.adobe.xmp", b"Creation Time"
RAW_XMP = b"Raw profile type xmp"
RAW_BLOCKS = (b"Raw profile type exif", b"Raw profile type APP1")  # in a JPEG, APP1 is either
PNG_KEYWORDS = (XMP_KEYWORD, CREATION_TIME, RAW_XMP, *RAW_BLOCKS)
RAW_PROFILE = re.compile(rb"\s*+\w++\s++[0-9]++\s++([0-9A-Fa-f\s]*+)")


class Metadata(NamedTuple):
    """What an image file says of itself, unread.

    Attributes:
        exif: the block of EXIF data, or the whole of a TIFF file, which is built in the same way.
        xmp: the XMP data, XML; of a TIFF file it is in one of its tags.
        creation_time: the text of this name in a PNG.
    """

    exif: BinaryIO
    xmp: bytes = b""
    creation_time: str = ""


def find_metadata(file: BinaryIO) -> Metadata:
    """Find what an image says of itself; what it does not have is empty.

    Raises:
        Fail: it is no image.
    """
    try:
        with PIL.Image.open(file) as picture:
            format, info = picture.format, picture.info
    except Exception as error:  # On hostile bytes Pillow raises what it likes.
        raise Fail("The header of the image cannot be read.") from error
    if format == "TIFF":
        file.seek(0)
        return Metadata(file)
    if format == "PNG":
        return find_png_metadata(file)
    exif, xmp = (info.get(key) for key in ("exif", "xmp"))
    return Metadata(
        without_prefix(exif if isinstance(exif, bytes) else b""),
        xmp if isinstance(xmp, bytes) else b"",
    )


def without_prefix(block: bytes) -> BinaryIO:
    """A block of EXIF data from where its own addresses count."""
    return io.BytesIO(re.sub(rb"\A(Exif\0\0){1,2}", b"", block))


def find_png_metadata(file: BinaryIO) -> Metadata:
    """Find what a PNG says of itself.

    Its chunks may be behind the pixels, where Pillow does not look before it decodes them.
    """
    exif = b""
    texts = dict.fromkeys(PNG_KEYWORDS, b"")
    for kind, length in png_chunks(file):
        if kind == b"eXIf":
            exif = exif or file.read(min(length, LARGEST_BLOCK_BYTES))
        elif kind in PNG_TEXTS and length <= LARGEST_BLOCK_BYTES:
            keyword, _, content = file.read(length).partition(b"\0")
            if keyword in texts and not texts[keyword]:
                texts[keyword] = PNG_TEXTS[kind](content)
    blocks = [raw_profile(texts[keyword]) for keyword in RAW_BLOCKS]
    exifs = [exif, *(block for block in blocks if not block.startswith(XMP_PREFIX))]
    packets = [texts[XMP_KEYWORD], raw_profile(texts[RAW_XMP])]
    packets += [block[len(XMP_PREFIX) :] for block in blocks if block.startswith(XMP_PREFIX)]
    return Metadata(
        without_prefix(next(filter(None, exifs), b"")),
        next(filter(None, packets), b""),
        texts[CREATION_TIME].decode("utf-8", "replace"),
    )


def raw_profile(text: bytes) -> bytes:
    """A block of metadata as ImageMagick writes it into a PNG: name, length, hexadecimal digits."""
    found = RAW_PROFILE.fullmatch(text)
    digits = re.sub(rb"\s+", b"", found[1]) if found else b""
    return bytes.fromhex(digits[: len(digits) // 2 * 2].decode())


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The kind and length of each chunk of a PNG, with its content to be read next."""
    position = 8
    for _ in range(MOST_PNG_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        yield kind, length
        position += 12 + length


def compressed_text(content: bytes) -> bytes:
    """The text of a chunk `zTXt`, behind its keyword; nothing if it is broken or too long."""
    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(content[1:], LARGEST_BLOCK_BYTES)
    except zlib.error:
        return b""
    return text if decoder.eof else b""


def international_text(content: bytes) -> bytes:
    """The text of a chunk `iTXt`, behind its keyword."""
    is_compressed, method, rest = content[:1] == b"\1", content[1:2], content[2:]
    text = b"".join(rest.split(b"\0", 2)[2:])  # behind the language and the keyword translated
    return compressed_text(method + text) if is_compressed else text


# How to read the chunks of a PNG that are texts: plain, compressed, and in UTF-8 (PNG, 11.3.3).
PNG_TEXTS: dict[bytes, Callable[[bytes], bytes]] = {
    b"tEXt": bytes,
    b"zTXt": compressed_text,
    b"iTXt": international_text,
}
