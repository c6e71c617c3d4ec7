"""The configuration, and the result."""

from collections.abc import Iterable
from typing import Any
from zoneinfo import ZoneInfo

from marshmallow import Schema, ValidationError, fields, validate

from .dates import OFFSET_SOURCES, SOURCES
from .tags import LONGEST_TEXT


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
