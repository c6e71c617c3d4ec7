"""The result but its date: camera, lens, exposure and place, with whatever numbers there are."""

import math
from datetime import UTC
from typing import Any

from PIL.ExifTags import GPS, Base

from .dates import in_utc, satellite_time
from .tags import Tags

FULL_16_BITS = 2**16 - 1
SENSITIVITIES = (Base.RecommendedExposureIndex, Base.StandardOutputSensitivity, Base.ISOSpeed)
NORTH_AND_SOUTH = ("N", "NORTH"), ("S", "SOUTH")
EAST_AND_WEST = ("E", "EAST"), ("W", "WEST")


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
