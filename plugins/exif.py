"""What the camera wrote into the file: when, where and how the picture was taken.

Only the header is read, no pixel is decoded, and nothing that it says is trusted. Pillow finds the
block of EXIF data; the tags are read here, as Pillow would decode all that there are, however many
and large. A value that is absurd, broken or missing is null, so an image without EXIF data has a
result like any other, of nulls.

Many files have several dates, and most dates have no offset from UTC. `docs/dates.md` says which
date is taken and where its offset comes from, and the result says which it was. The time as the
camera's clock showed it is in the result as well.

Who made the picture (`artist`, `copyright`) is kept, as a gallery has to name them and they are
written there to be read. What identifies people or things without meaning to is not: the numbers of
camera and lens, the names of the camera's owner and of the computer, comments, the maker's notes.
Where it was taken is in `gps`, apart from all else, so that it can be left out as a whole.
"""

import codecs
import io
import math
import re
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, BinaryIO, NamedTuple
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import PIL.Image
from marshmallow import Schema, ValidationError, fields, validate
from PIL.ExifTags import GPS, IFD, Base

from clustr.plugins import Analyzer, Context, Fail, Image, hookimpl

LONGEST_TEXT = 255
LONGEST_VALUE_BYTES = 4 * LONGEST_TEXT
LARGEST_BLOCK_BYTES = 2**20  # of a PNG's EXIF data, and of XMP data in any file
MOST_PNG_CHUNKS = 100_000
YEAR_OF_THE_FIRST_PHOTOGRAPH = 1826
MOST_IN_THE_FUTURE = timedelta(days=1)
QUARTER_OF_AN_HOUR = timedelta(minutes=15)
LARGEST_OFFSET_BY_GPS = timedelta(hours=15)

# How values are stored, by the number of their type: as text (ASCII, "undefined", UTF-8), or as
# numbers, in the letters of `struct`. Two letters are a fraction.
TEXTS = (2, 7, 129)
BYTE = 1
NUMBERS = {
    BYTE: "B",
    3: "H",
    4: "I",
    5: "II",
    8: "h",
    9: "i",
    10: "ii",
    11: "f",
    12: "d",
    13: "I",
}

FULL_16_BITS = 2**16 - 1
SENSITIVITIES = (Base.RecommendedExposureIndex, Base.StandardOutputSensitivity, Base.ISOSpeed)
NORTH_AND_SOUTH = ("N", "NORTH"), ("S", "SOUTH")
EAST_AND_WEST = ("E", "EAST"), ("W", "WEST")

# A character of UTF-8 that is more than ASCII.
UTF_8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
# Characters of two bytes in Shift-JIS: all of them; those that are common, beginning with 81 to 9F;
# and those that are hardly ever in a text in Windows-1252, where these bytes are quotation marks,
# dashes and a few letters, most with ASCII letters beside them, or are not used. Some of the common
# ones are as sure when they come second, as no quotation is opened in the middle of a word.
TWO_BYTES = {
    b"any": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
    b"common": rb"[\x81-\x9f][\x40-\x7e\x80-\xfc]",
    b"sure": rb"(?:[\x81-\x83\x8d\x8f\x90\x9d][\x40-\x7e\x80-\xfc]"
    rb"|[\x81-\x9f][\x40\x5b-\x60\x7b-\x7e\x80-\xfc])",
    b"second": rb"(?:[\x84\x86-\x89\x8b\x91\x93\x95\x98\x99\x9b][\x40-\x7e\x80-\xfc]"
    rb"|[\xe0-\xea][\x80-\xfc])",
}
# A text is in Shift-JIS if it has two of them side by side, or consists of them.
SHIFT_JIS = re.compile(
    rb"(?:[\0-\x7f\xa1-\xdf]|%(any)b)*?"
    rb"(?:%(sure)b%(common)b|%(common)b%(sure)b|%(common)b%(second)b)"
    rb"|(?:%(any)b| )*?%(sure)b(?:%(any)b| )*\Z" % TWO_BYTES
)
# Characters that are not seen themselves: those that join letters or keep them apart, marks of the
# direction of the text beside them, and those of which flags of parts of countries are made.
UNSEEN = set("\u200c\u200d\u2060\u061c\u200e\u200f") | {chr(n) for n in range(0xE0020, 0xE0080)}

# Dates as EXIF data has them, as XMP data and PNG have them (ISO 8601, with or without the parts
# behind the day), and as RFC 1123 has them, which PNG also allows.
DAY = r"(?P<year>[0-9]{4})[:/-](?P<month>[0-9]{2})[:/-](?P<day>[0-9]{2})"
HOUR = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
EXIF_DATE = re.compile(rf"{DAY}[ T]{HOUR}:(?P<second>[0-9]{{2}})")
ISO_DATE = re.compile(
    rf"{DAY}(?:[ T]{HOUR}(?::(?P<second>[0-9]{{2}})(?:[.,](?P<fraction>[0-9]+))?)?"
    r" ?(?P<offset>Z|[+-][0-9:]+)?)?"
)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
RFC_1123_DATE = re.compile(
    rf"(?:[A-Z][a-z]{{2}}, )?(?P<day>[0-9]{{1,2}}) (?P<month>{'|'.join(MONTHS)}) "
    rf"(?P<year>[0-9]{{4}}) {HOUR}(?::(?P<second>[0-9]{{2}}))?(?: (?P<offset>UTC?|GMT|[+-][0-9]+))?"
)
OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>0[0-9]|1[0-4])(?::?(?P<minutes>[0-5][0-9]))?")
UTC_OFFSETS = ("Z", "UT", "UTC", "GMT")

# Where a date can be from, in the order in which they are asked; and where its offset can be from.
# Those of EXIF data have three tags: the date, the fraction of its second, and its offset.
EXIF_DATES = {
    "exif_original": (Base.DateTimeOriginal, Base.SubsecTimeOriginal, Base.OffsetTimeOriginal),
    "exif_digitized": (Base.DateTimeDigitized, Base.SubsecTimeDigitized, Base.OffsetTimeDigitized),
    "exif_modified": (Base.DateTime, Base.SubsecTime, Base.OffsetTime),
}
SOURCES = ("exif_original", "exif_digitized", "xmp", "png_creation_time", "exif_modified")
OWN_OFFSETS = {
    "exif_original": "offset_original",
    "exif_digitized": "offset_digitized",
    "xmp": "xmp",
    "png_creation_time": "png_creation_time",
    "exif_modified": "offset",
}
OFFSET_SOURCES = (*OWN_OFFSETS.values(), "gps", "setting")

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
XMP_DATES = (
    "{http://ns.adobe.com/photoshop/1.0/}DateCreated",
    "{http://ns.adobe.com/exif/1.0/}DateTimeOriginal",
)
XMP_TAG = 0x02BC  # of a TIFF file
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"  # in the same block of a JPEG as EXIF data is in

# The texts of a PNG that are read.
XMP_KEYWORD, CREATION_TIME = b"XML:com.adobe.xmp", b"Creation Time"
RAW_XMP = b"Raw profile type xmp"
RAW_BLOCKS = (b"Raw profile type exif", b"Raw profile type APP1")  # in a JPEG, APP1 is either
PNG_KEYWORDS = (XMP_KEYWORD, CREATION_TIME, RAW_XMP, *RAW_BLOCKS)
RAW_PROFILE = re.compile(rb"\s*+\w++\s++[0-9]++\s++([0-9A-Fa-f\s]*+)")


class TimeZone(fields.String):
    """The name of a time zone of the IANA database, as a field of a configuration."""

    def __init__(self, **options: Any):
        super().__init__(validate=is_time_zone, **options)


def is_time_zone(name: str) -> None:
    """Refuse what is no name of a time zone.

    Raises:
        ValidationError: it is none.
    """
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # OSError: "Europe" alone is a folder.
        expected = "expected the name of a time zone of the IANA database, such as Europe/Berlin"
        raise ValidationError(f"{expected} or UTC") from error


class ExifConfig(Schema):
    """What can be configured."""

    time_zone = TimeZone(
        load_default="UTC",
        metadata={
            "env": "TIME_ZONE",
            "description": "Where cameras' clocks are, for photographs that do not say it",
        },
    )


def text(description: str) -> fields.String:
    return fields.String(
        required=True,
        allow_none=True,
        validate=validate.Length(1, LONGEST_TEXT),
        metadata={"description": description},
    )


def number(description: str, low: float, high: float) -> fields.Float:
    return fields.Float(
        required=True,
        allow_none=True,
        validate=validate.Range(low, high),
        metadata={"description": description},
    )


def whole_number(description: str, low: int, high: int) -> fields.Integer:
    return fields.Integer(
        required=True,
        allow_none=True,
        strict=True,
        validate=validate.Range(low, high),
        metadata={"description": description},
    )


def moment(description: str) -> fields.AwareDateTime:
    return fields.AwareDateTime(
        required=True, allow_none=True, metadata={"description": description}
    )


def one_of(names: Iterable[str]) -> validate.Regexp:
    """One of these names, or null. OpenAPI 3.0 has no set of values that all its tools read so."""
    return validate.Regexp(rf"({'|'.join(names)})\Z")


class CameraResult(Schema):
    """The camera."""

    make = text("Who made it")
    model = text("Which one it is")


class LensResult(Schema):
    """The lens."""

    make = text("Who made it")
    model = text("Which one it is")


class ExposureResult(Schema):
    """How the picture was exposed."""

    time_seconds = number("How long the shutter was open", 1e-9, 1e6)
    f_number = number("Focal length divided by aperture", 0.1, 1000)
    iso = whole_number("Sensitivity", 1, 100_000_000)
    bias_ev = number("How much brighter or darker it was made", -100, 100)
    focal_length_mm = number("Focal length", 0.1, 100_000)
    focal_length_35mm = whole_number("Focal length of the same view on 35 mm film", 1, 100_000)
    flash_fired = fields.Boolean(
        required=True, allow_none=True, metadata={"description": "Whether there was a flash"}
    )


class GpsResult(Schema):
    """Where the picture was taken."""

    latitude = number("In degrees, negative in the south", -90, 90)
    longitude = number("In degrees, negative in the west", -180, 180)
    altitude_m = number("Metres above the sea", -12_000, 100_000)
    direction_degrees = number("Where the camera looked, clockwise from the north", 0, 360)
    taken_at = moment("When the satellites said it was")


class ExifResult(Schema):
    """What the file says of itself; null is what it does not say, or says in a way that cannot be.

    All is from the EXIF data but the date, which can also be from XMP data or a text of a PNG.
    """

    camera = fields.Nested(CameraResult, required=True, metadata={"description": "The camera"})
    lens = fields.Nested(LensResult, required=True, metadata={"description": "The lens"})
    exposure = fields.Nested(
        ExposureResult, required=True, metadata={"description": "How the picture was exposed"}
    )
    taken_at = moment(
        "When it was taken, in UTC. Null without a date, and with one that cannot be right: before "
        "1826, or more than a day in the future"
    )
    taken_at_local = fields.String(
        required=True,
        allow_none=True,
        validate=validate.Regexp(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]{3})?\Z"),
        metadata={
            "description": "What the camera's clock showed, such as 2024-07-01T10:00:00: the date "
            "as it was written, without a time zone",
            "example": "2024-07-01T10:00:00",
        },
    )
    utc_offset = fields.String(
        required=True,
        allow_none=True,
        validate=validate.Regexp(r"[+-](0[0-9]|1[0-5]):[0-5][0-9]\Z"),
        metadata={
            "description": "How far the camera's clock was ahead of UTC, such as +02:00. Null "
            "without a date, and when nothing in the file says it: then `taken_at` was reckoned "
            "with the setting `TIME_ZONE`",
            "example": "+02:00",
        },
    )
    source = fields.String(
        required=True,
        allow_none=True,
        validate=one_of(SOURCES),
        metadata={
            "description": "Where the date is from; the first of these that there is: "
            "`exif_original`, EXIF's DateTimeOriginal; `exif_digitized`, its DateTimeDigitized, "
            "when a scan was made; `xmp`, XMP's photoshop:DateCreated or exif:DateTimeOriginal; "
            "`png_creation_time`, the text Creation Time of a PNG; `exif_modified`, EXIF's "
            "DateTime, when the file was changed. Null without a date",
            "example": "exif_original",
        },
    )
    offset_source = fields.String(
        required=True,
        allow_none=True,
        validate=one_of(OFFSET_SOURCES),
        metadata={
            "description": "Where the offset from UTC is from; the first of these that there is: "
            "what belongs to the date, which is `offset_original` (EXIF's OffsetTimeOriginal), "
            "`offset_digitized` (OffsetTimeDigitized), `xmp` or `png_creation_time` (the date "
            "itself ends with it); `offset`, EXIF's OffsetTime; `gps`, how far the date is from "
            "the time of the satellites, to a quarter of an hour; `setting`, the setting "
            "`TIME_ZONE`. Null without a date",
            "example": "offset_original",
        },
    )
    orientation = whole_number("How the stored picture is turned; 1 is upright", 1, 8)
    software = text("What wrote the file")
    artist = text("Who took the picture")
    copyright = text("Who has the rights to it")
    gps = fields.Nested(
        GpsResult,
        required=True,
        allow_none=True,
        metadata={"description": "Null when it says nothing of a place"},
    )


class Exif(Analyzer):
    """Reads the metadata of JPEG, PNG, WebP, TIFF, AVIF and HEIC; other images have none.

    Args:
        time_zone: of cameras' clocks, for dates of which nothing in the file says the offset.
    """

    name = "exif"
    version = 2
    result_schema = ExifResult
    summary = "Camera, lens, exposure, time and place from the EXIF data"
    fields: Mapping[str, str] = {"taken_at": "taken_at"}

    def __init__(self, time_zone: ZoneInfo):
        self._time_zone = time_zone
        self._schema = ExifResult()  # To make one takes longer than to use it.

    def analyze(self, image: Image, context: Context) -> dict[str, Any]:
        with image.path.open("rb") as file:
            found = find_metadata(file)
            tags, place = read_tags(found.exif)
            xmp = found.xmp or tags.content(XMP_TAG)
            dates = filter(None, find_dates(tags, xmp, found.creation_time))
            result = describe(tags, place) | when_taken(
                next(dates, None), offset_of(tags, Base.OffsetTime), place, self._time_zone
            )
        result = fitting(result, self._schema.validate(result))
        return result | {"gps": known(result["gps"])}


class Tags:
    """The tags of one or more directories, whose values are read when they are asked for.

    Args:
        file: the block of EXIF data, or a TIFF file, which is built in the same way.
        order: of its bytes, `<` or `>`.
    """

    def __init__(self, file: BinaryIO, order: str):
        self._file = file
        self._order = order
        self._entries: dict[int, tuple[int, int, bytes]] = {}

    def add_directory(self, offset: float | None) -> None:
        """Add the tags of the directory that is there; it can have 65,535."""
        if not isinstance(offset, int) or offset < 0:
            return
        self._file.seek(offset)
        (count,) = self._unpack("H", self._file.read(2)) or (0,)
        listed = self._file.read(count * 12)
        whole = listed[: len(listed) // 12 * 12]
        for tag, kind, size, value in struct.iter_unpack(f"{self._order}HHI4s", whole):
            self._entries.setdefault(tag, (kind, size, value))

    def text(self, tag: int) -> str | None:
        """One line of what can be seen of the text."""
        kind, count, value = self._entries.get(tag, (0, 0, b""))
        if kind not in TEXTS:
            return None
        before_end, _, _ = self._read(value, count).partition(b"\0")
        seen = "".join(c for c in decoded(before_end) if c.isspace() or is_seen(c))
        return " ".join(seen.split())[:LONGEST_TEXT].rstrip() or None

    def content(self, tag: int) -> bytes:
        """The bytes of the tag, if they are bytes and there are not too many."""
        kind, count, value = self._entries.get(tag, (0, 0, b""))
        if kind not in (*TEXTS, BYTE) or count > LARGEST_BLOCK_BYTES:
            return b""
        return self._read(value, count, LARGEST_BLOCK_BYTES)

    def numbers(self, tag: int) -> list[float]:
        """The numbers of the tag, of many only the first; what is divided by 0 is `nan`."""
        kind, count, value = self._entries.get(tag, (0, 0, b""))
        letters = NUMBERS.get(kind)
        if letters is None:
            return []
        found = self._unpack(letters, self._read(value, count * struct.calcsize(f"={letters}")))
        if len(letters) == 1:
            return list(found)
        pairs = zip(found[::2], found[1::2], strict=True)
        return [above / below if below else math.nan for above, below in pairs]

    def number(self, tag: int) -> float | None:
        return next(iter(self.numbers(tag)), None)

    def _read(self, value: bytes, size: int, most: int = LONGEST_VALUE_BYTES) -> bytes:
        """A value, of a long one only the beginning. It is in its entry, or where that says."""
        if size <= len(value):
            return value[:size]
        self._file.seek(*self._unpack("I", value))
        return self._file.read(min(size, most))

    def _unpack(self, letters: str, data: bytes) -> tuple[Any, ...]:
        """As many values as the data is long enough for."""
        count = len(data) // struct.calcsize(f"={letters}")
        return struct.unpack_from(self._order + letters * count, data)


def decoded(text: bytes) -> str:
    """A text whose encoding nobody says: UTF-8, as it should be, Shift-JIS, or Windows-1252.

    What is cut at its end loses the half of a character there; what is broken elsewhere in UTF-8
    becomes U+FFFD.
    """
    if (characters := without_half("utf-8", text)) is not None:
        return characters
    if SHIFT_JIS.match(text) and (characters := without_half("cp932", text)) is not None:
        return characters
    if sum(map(len, UTF_8.findall(text))) > len(re.sub(rb"[\0-\x7f]+", b"", text)) / 2:
        return text.decode("utf-8", "replace")
    try:
        return text.decode("cp1252")
    except UnicodeDecodeError:  # It has no characters for five of the bytes.
        return text.decode("latin-1")


def without_half(encoding: str, text: bytes) -> str | None:
    """The text in this encoding, without the half of a character at its end; None if it is not.

    A half after nothing but ASCII letters is no half, but a whole character of another encoding.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        characters = decoder.decode(text)
    except UnicodeDecodeError:
        return None
    half, _ = decoder.getstate()
    return None if half and characters.isascii() else characters


def is_seen(character: str) -> bool:
    """Whether a character is shown, or decides how those beside it are.

    One that is not assigned yet, for all that this Python knows, may be: emoji are added each year.
    """
    category, number = unicodedata.category(character), ord(character)
    if category == "Cn":
        return number & 0xFFFE != 0xFFFE and not 0xFDD0 <= number <= 0xFDEF
    return category[0] != "C" or character in UNSEEN


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


def read_tags(file: BinaryIO) -> tuple[Tags, Tags]:
    """The tags of the picture, and those of the place.

    Three directories are read, each once, so one that names itself is no loop. A block that does
    not begin as it has to has no tags; neither has a TIFF file of the kind for more than 4 GB.
    """
    head = file.read(8)
    order = ">" if head.startswith(b"MM") else "<"
    tags, place = Tags(file, order), Tags(file, order)
    if len(head) == 8 and head[:4] in (b"II*\0", b"MM\0*"):
        tags.add_directory(*struct.unpack(f"{order}I", head[4:]))
        place.add_directory(tags.number(IFD.GPSInfo))
        tags.add_directory(tags.number(IFD.Exif))
    return tags, place


def describe(tags: Tags, place: Tags) -> dict[str, Any]:
    """The result, with whatever numbers there are."""
    flash = tags.number(Base.Flash)
    return {
        "camera": {"make": tags.text(Base.Make), "model": tags.text(Base.Model)},
        "lens": {"make": tags.text(Base.LensMake), "model": tags.text(Base.LensModel)},
        "exposure": {
            "time_seconds": tags.number(Base.ExposureTime),
            "f_number": tags.number(Base.FNumber),
            "iso": whole(sensitivity(tags)),
            "bias_ev": tags.number(Base.ExposureBiasValue),
            "focal_length_mm": tags.number(Base.FocalLength),
            "focal_length_35mm": whole(tags.number(Base.FocalLengthIn35mmFilm)),
            "flash_fired": bool(flash & 1) if isinstance(flash, int) else None,
        },
        "orientation": tags.number(Base.Orientation),
        "software": tags.text(Base.Software),
        "artist": tags.text(Base.Artist),
        "copyright": tags.text(Base.Copyright),
        "gps": {
            "latitude": degrees(place, GPS.GPSLatitude, GPS.GPSLatitudeRef, NORTH_AND_SOUTH),
            "longitude": degrees(place, GPS.GPSLongitude, GPS.GPSLongitudeRef, EAST_AND_WEST),
            "altitude_m": altitude(place),
            "direction_degrees": place.number(GPS.GPSImgDirection),
            "taken_at": in_utc(satellite_time(place), UTC),
        },
    }


def sensitivity(tags: Tags) -> float | None:
    """The ISO value; its tag has 16 bits, and is full when a newer one has to be asked.

    Which of the newer ones there are is said by SensitivityType (CIPA DC-008, tag 0x8830), but not
    by all cameras.
    """
    iso = tags.number(Base.ISOSpeedRatings)
    if iso and iso != FULL_16_BITS:
        return iso
    return next(filter(None, map(tags.number, SENSITIVITIES)), iso)


def whole(value: float | None) -> int | None:
    """The nearest whole number; some programs write fractions where the standard has none."""
    return round(value) if value is not None and math.isfinite(value) else None


class Date(NamedTuple):
    """A date with its time, as it is written.

    Attributes:
        local: what the clock showed, without a time zone.
        offset: how far the clock was ahead of UTC, if that is written beside it.
        source: one of `SOURCES`.
    """

    local: datetime
    offset: timedelta | None
    source: str


def find_dates(tags: Tags, xmp: bytes, creation_time: str) -> Iterator[Date | None]:
    """Each date, in the order of `SOURCES`; None for one that is not there or is no date."""
    yield exif_date(tags, "exif_original")
    yield exif_date(tags, "exif_digitized")
    yield from (plain_date(text, "xmp") for text in xmp_dates(xmp))
    yield plain_date(creation_time, "png_creation_time")
    yield exif_date(tags, "exif_modified")


def exif_date(tags: Tags, source: str) -> Date | None:
    """The date of a source that is one of `EXIF_DATES`."""
    tag, fraction_tag, offset_tag = EXIF_DATES[source]
    found = EXIF_DATE.fullmatch(tags.text(tag) or "")
    local = found and date_and_time(found, tags.text(fraction_tag) or "")
    return Date(local, offset_of(tags, offset_tag), source) if local else None


def plain_date(text: str, source: str) -> Date | None:
    """The date of a source that has all of it in one text; a day alone begins at midnight."""
    found = ISO_DATE.fullmatch(text.strip()) or RFC_1123_DATE.fullmatch(text.strip())
    local = found and date_and_time(found, found.groupdict().get("fraction") or "")
    return Date(local, read_offset(found["offset"] or ""), source) if found and local else None


def date_and_time(found: re.Match[str], fraction: str) -> datetime | None:
    """What a pattern of a date has found; None if there is no such day or time.

    Args:
        fraction: the digits behind the second; anything else counts as 0.
    """
    month = found["month"]
    number = MONTHS.index(month) + 1 if month in MONTHS else int(month)
    hour, minute, second = (int(found[part] or 0) for part in ("hour", "minute", "second"))
    if not re.fullmatch(r"[0-9]+", fraction):
        fraction = "0"
    microsecond = int(fraction[:6].ljust(6, "0"))
    try:
        year, day = int(found["year"]), int(found["day"])
        return datetime(year, number, day, hour, minute, second, microsecond)
    except ValueError:
        return None


def offset_of(tags: Tags, tag: int) -> timedelta | None:
    return read_offset(tags.text(tag) or "")


def read_offset(text: str) -> timedelta | None:
    """An offset from UTC such as `+02:00`, `+0200` or `Z`; None if it is none."""
    if text in UTC_OFFSETS:
        return timedelta()
    found = OFFSET.fullmatch(text)
    if not found:
        return None
    offset = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"] or 0))
    return -offset if found["sign"] == "-" else offset


def xmp_dates(packet: bytes) -> Iterator[str]:
    """When the picture was made, as XMP data says it: in an attribute, or in an element.

    Only what is said of the picture itself is read, not what is said of others that it was made of.
    """
    document = read_xml(packet)
    rdf = None if document is None else next(document.iter(f"{RDF}RDF"), None)
    descriptions = [] if rdf is None else rdf.findall(f"{RDF}Description")
    for name in XMP_DATES:
        for description in descriptions:
            yield description.get(name) or description.findtext(name) or ""


def read_xml(packet: bytes) -> ElementTree.Element | None:
    """The XML of XMP data; None if it is none, or too long.

    One that declares a document type is not read: so there are no entities, and nothing elsewhere
    is looked at. In every encoding that is read its beginning is written in the same bytes.
    """
    packet = packet.rstrip(b"\0")
    if len(packet) > LARGEST_BLOCK_BYTES or b"\0" in packet or b"<!DOCTYPE" in packet:
        return None
    try:
        return ElementTree.fromstring(packet)  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError):  # LookupError: its encoding
        return None


def when_taken(
    date: Date | None, general_offset: timedelta | None, place: Tags, time_zone: ZoneInfo
) -> dict[str, Any]:
    """The part of the result that says when the picture was taken."""
    if date is None:
        return dict.fromkeys(
            ("taken_at", "taken_at_local", "utc_offset", "source", "offset_source")
        )
    offsets = (
        (date.offset, OWN_OFFSETS[date.source]),
        (general_offset, "offset"),
        (offset_by_gps(date.local, satellite_time(place)), "gps"),
    )
    known = ((offset, source) for offset, source in offsets if offset is not None)
    offset, offset_source = next(known, (None, "setting"))
    return {
        "taken_at": in_utc(date.local, time_zone if offset is None else timezone(offset)),
        "taken_at_local": written(date.local),
        "utc_offset": None if offset is None else offset_text(offset),
        "source": date.source,
        "offset_source": offset_source,
    }


def satellite_time(place: Tags) -> datetime | None:
    """When the satellites said it was, in UTC; without a date their time is worth nothing."""
    found = re.fullmatch(DAY, place.text(GPS.GPSDateStamp) or "")
    parts = place.numbers(GPS.GPSTimeStamp)
    if not found or len(parts) != 3 or not all(0 <= part < 60 for part in parts):
        return None
    hour, minute, second = parts
    microsecond = int(second % 1 * 1e6)
    year, month, day = (int(found[part]) for part in ("year", "month", "day"))
    try:
        return datetime(year, month, day, int(hour), int(minute), int(second), microsecond)
    except ValueError:
        return None


def offset_by_gps(local: datetime, satellites: datetime | None) -> timedelta | None:
    """How far a clock is ahead of that of the satellites, which is UTC's, unless it is absurd."""
    if satellites is None:
        return None
    quarters = round((local - satellites) / QUARTER_OF_AN_HOUR)
    offset = quarters * QUARTER_OF_AN_HOUR
    return offset if abs(offset) <= LARGEST_OFFSET_BY_GPS else None


def in_utc(local: datetime | None, time_zone: tzinfo) -> str | None:
    """A time of this zone in UTC; None if no photograph can be of then."""
    if local is None or local.year < YEAR_OF_THE_FIRST_PHOTOGRAPH:
        return None
    try:
        when = local.replace(tzinfo=time_zone).astimezone(UTC)
    except OverflowError:
        return None
    if when > datetime.now(UTC) + MOST_IN_THE_FUTURE:
        return None
    return written(when.replace(tzinfo=None)) + "Z"


def offset_text(offset: timedelta) -> str:
    hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
    return f"{'-' if offset < timedelta() else '+'}{hours:02}:{minutes:02}"


def written(when: datetime) -> str:
    """The time in ISO 8601, with thousandths of a second if there are any."""
    precision = "milliseconds" if when.microsecond >= 1000 else "seconds"
    return when.isoformat(timespec=precision)


def degrees(
    place: Tags, tag: int, side_tag: int, sides: tuple[tuple[str, str], tuple[str, str]]
) -> float | None:
    """Degrees, minutes and seconds as one number, to the centimetre, on the second side negative.

    Without its side the number is worth nothing.
    """
    side, parts = (place.text(side_tag) or "").upper(), place.numbers(tag)
    if side not in (*sides[0], *sides[1]) or not parts:
        return None
    full, minutes, seconds = (*parts, 0, 0)[:3]
    if not (full >= 0 and 0 <= minutes <= 60 and 0 <= seconds <= 60):
        return None
    value = round(full + minutes / 60 + seconds / 3600, 7)
    return value if side in sides[0] else -value


def altitude(place: Tags) -> float | None:
    above = place.number(GPS.GPSAltitude)
    is_below = place.number(GPS.GPSAltitudeRef) == 1
    return -above if above is not None and is_below else above


def fitting(values: Mapping[str, Any], errors: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with None for those in which a schema found errors."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            kept[key] = fitting(value, errors.get(key, {}))
        else:
            kept[key] = None if key in errors else value
    return kept


def known(place: Mapping[str, Any]) -> dict[str, Any] | None:
    """The place, without half a position; None if nothing is known of it."""
    if None in (place["latitude"], place["longitude"]):
        place = {**place, "latitude": None, "longitude": None}
    return None if all(value is None for value in place.values()) else dict(place)


@hookimpl
def clustr_config_schema() -> type[Schema]:
    return ExifConfig


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Exif(ZoneInfo(config["time_zone"]))]
