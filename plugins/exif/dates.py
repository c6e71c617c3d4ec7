"""When a picture was taken: the dates in the metadata, and the offset from UTC of each.

`docs/dates.md` says which date is taken and where its offset comes from.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, NamedTuple
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

from PIL.ExifTags import GPS, Base

from .blocks import LARGEST_BLOCK_BYTES
from .tags import Tags

YEAR_OF_THE_FIRST_PHOTOGRAPH = 1826
MOST_IN_THE_FUTURE = timedelta(days=1)
QUARTER_OF_AN_HOUR = timedelta(minutes=15)
LARGEST_OFFSET_BY_GPS = timedelta(hours=15)

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
