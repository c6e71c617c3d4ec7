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

from collections.abc import Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from marshmallow import Schema
from PIL.ExifTags import Base

from clustr.plugins import Analyzer, Context, Image, hookimpl

from .blocks import find_metadata
from .dates import find_dates, offset_of, when_taken
from .description import describe
from .schemas import ExifConfig, ExifResult
from .tags import read_tags

XMP_TAG = 0x02BC  # of a TIFF file


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
