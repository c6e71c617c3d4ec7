"""What the camera wrote into the file: when, where and how the picture was taken.

Only the header is read, no pixel is decoded, and nothing that it says is trusted. Pillow finds the
block of EXIF data; the tags are read here, as Pillow would decode all that there are, however many
and large. A value that is absurd, broken or missing is null, so an image without EXIF data has a
result like any other, of nulls.

Most cameras write their clock's time without an offset. It is then read as UTC, and `utc_offset` is
null: the order of one camera's pictures is right all the same, and a client can show the time as
the clock had it.

Who made the picture (`artist`, `copyright`) is kept, as a gallery has to name them and they are
written there to be read. What identifies people or things without meaning to is not: the numbers of
camera and lens, the names of the camera's owner and of the computer, comments, the maker's notes.
Where it was taken is in `gps`, apart from all else, so that it can be left out as a whole.
"""

import io
import math
import re
import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO

import PIL.Image
from marshmallow import Schema, fields, validate
from PIL.ExifTags import GPS, IFD, Base

from clustr.plugins import Analyzer, Context, Fail, Image, hookimpl

LONGEST_TEXT = 255
LONGEST_VALUE_BYTES = 4 * LONGEST_TEXT
LARGEST_PNG_BLOCK_BYTES = 2**20
MOST_PNG_CHUNKS = 100_000
YEAR_OF_THE_FIRST_PHOTOGRAPH = 1826

# How values are stored, by the number of their type: as text (ASCII, "undefined", UTF-8), or as
# numbers, in the letters of `struct`. Two letters are a fraction.
TEXTS = (2, 7, 129)
NUMBERS = {
    1: "B",
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

DATE = re.compile(r"([0-9]{4})[:/-]([0-9]{2})[:/-]([0-9]{2})")
TIME = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}")
OFFSET = re.compile(r"[+-](0[0-9]|1[0-4]):[0-5][0-9]")


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
    """What the EXIF data says; null is what it does not say, or says in a way that cannot be."""

    camera = fields.Nested(CameraResult, required=True, metadata={"description": "The camera"})
    lens = fields.Nested(LensResult, required=True, metadata={"description": "The lens"})
    exposure = fields.Nested(
        ExposureResult, required=True, metadata={"description": "How the picture was exposed"}
    )
    taken_at = moment("When it was taken; the camera's clock, read as UTC if utc_offset is null")
    utc_offset = fields.String(
        required=True,
        allow_none=True,
        validate=validate.Regexp(OFFSET.pattern + r"\Z"),
        metadata={"description": "How far the camera's clock was ahead of UTC, such as +02:00"},
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
    """Reads the EXIF data of JPEG, PNG, WebP, TIFF and AVIF; an image of another kind has none."""

    name = "exif"
    version = 1
    result_schema = ExifResult
    summary = "Camera, lens, exposure, time and place from the EXIF data"
    fields: Mapping[str, str] = {"taken_at": "taken_at"}

    def analyze(self, image: Image, context: Context) -> dict[str, Any]:
        with image.path.open("rb") as file:
            result = describe(*read_tags(find_block(file)))
        result = fitting(result, ExifResult().validate(result))
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
        """One line of what can be seen of the text; what is no UTF-8 becomes U+FFFD."""
        kind, count, value = self._entries.get(tag, (0, 0, b""))
        if kind not in TEXTS:
            return None
        before_end, _, _ = self._read(value, count).partition(b"\0")
        characters = before_end.decode("utf-8", "replace")
        seen = "".join(c for c in characters if c.isprintable() or c.isspace())
        return " ".join(seen.split())[:LONGEST_TEXT].rstrip() or None

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

    def _read(self, value: bytes, size: int) -> bytes:
        """A value, of a long one only the beginning. It is in its entry, or where that says."""
        if size <= len(value):
            return value[:size]
        self._file.seek(*self._unpack("I", value))
        return self._file.read(min(size, LONGEST_VALUE_BYTES))

    def _unpack(self, letters: str, data: bytes) -> tuple[Any, ...]:
        """As many values as the data is long enough for."""
        count = len(data) // struct.calcsize(f"={letters}")
        return struct.unpack_from(self._order + letters * count, data)


def find_block(file: BinaryIO) -> BinaryIO:
    """The block of EXIF data in an image, or an empty one.

    Raises:
        Fail: it is no image.
    """
    try:
        with PIL.Image.open(file) as picture:
            format, block = picture.format, picture.info.get("exif")
    except Exception as error:  # On hostile bytes Pillow raises what it likes.
        raise Fail("The header of the image cannot be read.") from error
    if format == "TIFF":
        file.seek(0)
        return file
    if format == "PNG":
        block = find_png_block(file)
    if not isinstance(block, bytes):
        return io.BytesIO()
    return io.BytesIO(re.sub(rb"\A(Exif\0\0){1,2}", b"", block))


def find_png_block(file: BinaryIO) -> bytes:
    """The block may be behind the pixels, where Pillow does not look before it decodes them."""
    file.seek(8)
    for _ in range(MOST_PNG_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            return file.read(min(length, LARGEST_PNG_BLOCK_BYTES))
        file.seek(length + 4, io.SEEK_CUR)
    return b""


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
    offset = utc_offset(tags)
    flash = tags.number(Base.Flash)
    return {
        "camera": {"make": tags.text(Base.Make), "model": tags.text(Base.Model)},
        "lens": {"make": tags.text(Base.LensMake), "model": tags.text(Base.LensModel)},
        "exposure": {
            "time_seconds": tags.number(Base.ExposureTime),
            "f_number": tags.number(Base.FNumber),
            "iso": sensitivity(tags),
            "bias_ev": tags.number(Base.ExposureBiasValue),
            "focal_length_mm": tags.number(Base.FocalLength),
            "focal_length_35mm": tags.number(Base.FocalLengthIn35mmFilm),
            "flash_fired": bool(flash & 1) if isinstance(flash, int) else None,
        },
        "taken_at": time_taken(tags, offset),
        "utc_offset": offset,
        "orientation": tags.number(Base.Orientation),
        "software": tags.text(Base.Software),
        "artist": tags.text(Base.Artist),
        "copyright": tags.text(Base.Copyright),
        "gps": {
            "latitude": degrees(place, GPS.GPSLatitude, GPS.GPSLatitudeRef, ("N", "S")),
            "longitude": degrees(place, GPS.GPSLongitude, GPS.GPSLongitudeRef, ("E", "W")),
            "altitude_m": altitude(place),
            "direction_degrees": place.number(GPS.GPSImgDirection),
            "taken_at": satellite_time(place),
        },
    }


def sensitivity(tags: Tags) -> float | None:
    """The ISO value; its tag has 16 bits, and is full when a newer one has to be asked."""
    iso = tags.number(Base.ISOSpeedRatings)
    return tags.number(Base.RecommendedExposureIndex) if iso == 65535 else iso


def utc_offset(tags: Tags) -> str | None:
    offset = (tags.text(Base.OffsetTimeOriginal) or "").replace("Z", "+00:00")
    return offset if OFFSET.fullmatch(offset) else None


def time_taken(tags: Tags, offset: str | None) -> str | None:
    """When the shutter was released; not when the picture was scanned or the file was changed."""
    date, _, time = (tags.text(Base.DateTimeOriginal) or "").replace("T", " ").partition(" ")
    fraction = tags.text(Base.SubsecTimeOriginal) or ""
    if not re.fullmatch(r"[0-9]+", fraction):
        fraction = "0"
    if not TIME.fullmatch(time):
        return None
    return instant(date, f"{time}.{fraction[:6]}{offset or 'Z'}")


def satellite_time(place: Tags) -> str | None:
    parts = place.numbers(GPS.GPSTimeStamp)
    if len(parts) != 3 or not all(0 <= part < 60 for part in parts):
        return None
    hours, minutes, seconds = parts
    whole_seconds, fraction = divmod(int(seconds * 1000), 1000)
    time = f"{int(hours):02}:{int(minutes):02}:{whole_seconds:02}.{fraction:03}Z"
    return instant(place.text(GPS.GPSDateStamp) or "", time)


def instant(date: str, time: str) -> str | None:
    """A date as EXIF has it and a time with its offset, in UTC; None if there is no such day."""
    found = DATE.fullmatch(date)
    if not found or int(found[1]) < YEAR_OF_THE_FIRST_PHOTOGRAPH:
        return None
    try:
        when = datetime.fromisoformat(f"{'-'.join(found.groups())}T{time}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def degrees(place: Tags, tag: int, side_tag: int, sides: tuple[str, str]) -> float | None:
    """Degrees, minutes and seconds as one number, to the centimetre, on the second side negative.

    Without its side the number is worth nothing.
    """
    side, parts = place.text(side_tag), place.numbers(tag)
    if side not in sides or not parts:
        return None
    whole, minutes, seconds = (*parts, 0, 0)[:3]
    if not (whole >= 0 and 0 <= minutes <= 60 and 0 <= seconds <= 60):
        return None
    value = round(whole + minutes / 60 + seconds / 3600, 7)
    return value if side == sides[0] else -value


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
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Exif()]
