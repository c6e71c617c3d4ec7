"""When a photograph was taken, as files say it: in many places, with and without an offset."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import odd_images
import photographs
import pytest
from clustr_plugins import exif as plugin
from exif_data import (
    Analyze,
    Tags,
    analyzes,
    block,
    date,
    date_of,
    image,
    text_chunk,
    text_tag,
    with_xmp,
    xmp,
)
from PIL.ExifTags import GPS, Base

from clustr.plugin_manager import load_plugins

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

TEN = "2024:07:01 10:00:00"
ORIGINAL = {Base.DateTimeOriginal: TEN}


@pytest.fixture(scope="module")
def analyze(tmp_path_factory: pytest.TempPathFactory) -> Analyze:
    return analyzes(tmp_path_factory.mktemp("dates"))


def place(date_stamp: str, hour: float, minute: float = 0, second: float = 0) -> Tags:
    return {GPS.GPSDateStamp: date_stamp, GPS.GPSTimeStamp: (hour, minute, float(second))}


# Where the date is from.


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(
    ("camera", "photograph", "expected"),
    [
        (
            {},
            ORIGINAL | {Base.OffsetTimeOriginal: "+02:00"},
            date(
                "2024-07-01T08:00:00Z",
                "2024-07-01T10:00:00",
                "+02:00",
                "exif_original",
                "offset_original",
            ),
        ),
        (
            {},
            {Base.DateTimeDigitized: "1987:12:24 18:30:00"},
            date("1987-12-24T18:30:00Z", "1987-12-24T18:30:00", None, "exif_digitized", "setting"),
        ),
        (
            {Base.DateTime: TEN},
            {},
            date("2024-07-01T10:00:00Z", "2024-07-01T10:00:00", None, "exif_modified", "setting"),
        ),
        (
            {Base.DateTime: "2026:01:01 00:00:00"},
            {
                Base.DateTimeOriginal: "0000:00:00 00:00:00",
                Base.DateTimeDigitized: TEN,
                Base.SubsecTimeOriginal: "1",
                Base.SubsecTimeDigitized: "25",
                Base.SubsecTime: "3",
                Base.OffsetTimeOriginal: "+09:00",
                Base.OffsetTimeDigitized: "-03:30",
                Base.OffsetTime: "+05:00",
            },
            date(
                "2024-07-01T13:30:00.250Z",
                "2024-07-01T10:00:00.250",
                "-03:30",
                "exif_digitized",
                "offset_digitized",
            ),
        ),
        (
            {Base.DateTime: TEN},
            {
                Base.DateTimeOriginal: "    :  :     :  :  ",
                Base.DateTimeDigitized: "",
                Base.SubsecTime: "5",
                Base.OffsetTime: "+02:00",
                Base.OffsetTimeOriginal: "+09:00",
            },
            date(
                "2024-07-01T08:00:00.500Z",
                "2024-07-01T10:00:00.500",
                "+02:00",
                "exif_modified",
                "offset",
            ),
        ),
    ],
    ids=["original", "digitized", "modified", "zeros", "blank"],
)
def test_the_first_date_that_is_one_counts_with_what_belongs_to_it(
    analyze, extension, camera, photograph, expected
):
    assert date_of(analyze, image(extension, camera, photograph)) == expected


def test_every_date_comes_before_that_of_the_files_last_change(analyze):
    """A text of a PNG, then XMP data, then each date of EXIF data, is added to what there was."""
    tags: Tags = {}
    chunks: list[bytes] = []
    found = []
    for add in (
        lambda: tags.update({Base.DateTime: "2024:07:05 10:00:00"}),
        lambda: chunks.append(text_chunk(b"tEXt", b"Creation Time", b"2024-07-04T10:00:00")),
        lambda: chunks.append(
            text_chunk(
                b"iTXt", b"XML:com.adobe.xmp", xmp('exif:DateTimeOriginal="2024-07-03T10:00:00"')
            )
        ),
        lambda: tags.update({Base.DateTimeDigitized: "2024:07:02 10:00:00"}),
        lambda: tags.update(ORIGINAL),
    ):
        add()
        entries = [text_tag(tag, f"{value}\0".encode()) for tag, value in tags.items()]
        content = odd_images.png_with(*chunks, odd_images.chunk(b"eXIf", block(*entries)))
        result = date_of(analyze, content)
        found.append((result["source"], result["taken_at_local"]))
    assert found == [
        ("exif_modified", "2024-07-05T10:00:00"),
        ("png_creation_time", "2024-07-04T10:00:00"),
        ("xmp", "2024-07-03T10:00:00"),
        ("exif_digitized", "2024-07-02T10:00:00"),
        ("exif_original", "2024-07-01T10:00:00"),
    ]


@pytest.mark.parametrize(
    ("written", "taken_at"),
    [
        ("9999:12:31 23:59:59", None),
        ("0001:01:01 00:00:00", None),
        ("1825:12:31 23:59:59", None),
        ("1826:01:01 00:00:00", "1826-01-01T00:00:00Z"),
    ],
)
def test_a_date_that_cannot_be_right_is_only_told_as_written(analyze, written, taken_at):
    tags = {Base.DateTimeOriginal: written, Base.DateTimeDigitized: TEN}
    local = f"{written[:10].replace(':', '-')}T{written[11:]}"
    expected = date(taken_at, local, None, "exif_original", "setting")
    assert date_of(analyze, image("jpg", {}, tags)) == expected


@pytest.mark.parametrize(("hours", "is_known"), [(23, True), (25, False)])
def test_a_day_in_the_future_is_the_most(analyze, hours, is_known):
    soon = datetime.now(UTC) + timedelta(hours=hours)
    tags = {Base.DateTimeOriginal: soon.strftime("%Y:%m:%d %H:%M:%S")}
    for offset, moved in (("+00:00", 0), ("+14:00", 14), ("-12:00", -12)):
        local = soon + timedelta(hours=moved)
        tags = {
            Base.DateTimeOriginal: local.strftime("%Y:%m:%d %H:%M:%S"),
            Base.OffsetTimeOriginal: offset,
        }
        result = date_of(analyze, image("jpg", {}, tags))
        assert (result["taken_at"] is not None) is is_known
        assert result["taken_at_local"] == local.strftime("%Y-%m-%dT%H:%M:%S")
        assert result["utc_offset"] == offset


def test_a_time_that_no_clock_shows_in_utc(analyze):
    tags = {Base.DateTimeOriginal: "9999:12:31 23:00:00", Base.OffsetTimeOriginal: "-12:00"}
    result = date_of(analyze, image("jpg", {}, tags))
    assert (result["taken_at"], result["taken_at_local"]) == (None, "9999-12-31T23:00:00")


# Where the offset is from.


@pytest.mark.parametrize(
    ("tags", "offset", "source"),
    [
        ({Base.OffsetTimeOriginal: "-05:00"}, "-05:00", "offset_original"),
        ({Base.OffsetTimeOriginal: "   :  "}, "+01:00", "offset"),
        ({Base.OffsetTimeOriginal: "+99:99"}, "+01:00", "offset"),
        ({Base.OffsetTimeDigitized: "-05:00"}, "+01:00", "offset"),
        ({Base.OffsetTime: ""}, "+02:00", "gps"),
        ({Base.OffsetTime: "   :  "}, "+02:00", "gps"),
    ],
)
def test_the_offset_is_that_of_the_date_then_the_general_one_then_that_of_gps(
    analyze, tags, offset, source
):
    written = ORIGINAL | {Base.OffsetTime: "+01:00"} | tags
    result = date_of(analyze, image("jpg", {}, written, place("2024:07:01", 8)))
    assert (result["utc_offset"], result["offset_source"]) == (offset, source)
    local = datetime.fromisoformat(f"{result['taken_at_local']}{offset}")
    assert datetime.fromisoformat(result["taken_at"]) == local


@pytest.mark.parametrize(
    ("satellites", "offset"),
    [
        (place("2024:07:01", 8, 0, 4), "+02:00"),
        (place("2024:07:01", 7, 52, 31), "+02:00"),
        (place("2024:07:01", 8, 7, 29), "+02:00"),
        (place("2024:07:01", 7, 52, 29), "+02:15"),
        (place("2024:07:01", 4, 15), "+05:45"),
        (place("2024:07:01", 10, 0, 59), "+00:00"),
        (place("2024:07:01", 13, 30), "-03:30"),
        (place("2024:07:02", 1), "-15:00"),
        (place("2024:06:30", 19), "+15:00"),
        (place("2024:06:30", 18, 45), None),
        (place("2024:07:02", 1, 15), None),
        (place("2024:06:20", 8), None),
        (place("", 8), None),
        (place("2024:02:30", 8), None),
        (place("2024:07:01", 24), None),
        ({GPS.GPSDateStamp: "2024:07:01"}, None),
    ],
)
def test_the_time_of_the_satellites_tells_the_offset(analyze, satellites, offset):
    result = date_of(analyze, image("jpg", {}, ORIGINAL, satellites))
    assert result["utc_offset"] == offset
    assert result["offset_source"] == ("gps" if offset else "setting")
    local = datetime.fromisoformat(f"2024-07-01T10:00:00{offset or 'Z'}")
    assert datetime.fromisoformat(result["taken_at"]) == local


@pytest.mark.parametrize(
    ("zone", "written", "taken_at"),
    [
        ("Europe/Berlin", TEN, "2024-07-01T08:00:00Z"),
        ("Europe/Berlin", "2024:01:01 10:00:00", "2024-01-01T09:00:00Z"),
        ("America/St_Johns", "1987:12:24 18:30:00", "1987-12-24T22:00:00Z"),
        ("Europe/Berlin", "2024:10:27 02:30:00", "2024-10-27T00:30:00Z"),  # there are two of it
        ("Europe/Berlin", "2024:03:31 02:30:00", "2024-03-31T01:30:00Z"),  # there is none
        ("Asia/Kathmandu", "0001:01:01 00:00:00", None),
        ("Etc/GMT+12", "9999:12:31 23:00:00", None),
    ],
)
def test_the_setting_is_asked_last(tmp_path, zone, written, taken_at):
    analyze = analyzes(tmp_path, zone)
    local = f"{written[:10].replace(':', '-')}T{written[11:]}"
    expected = date(taken_at, local, None, "exif_original", "setting")
    assert date_of(analyze, image("jpg", {}, {Base.DateTimeOriginal: written})) == expected


def test_the_setting_counts_for_nothing_that_says_its_offset(tmp_path):
    analyze = analyzes(tmp_path, "Asia/Tokyo")
    said = ORIGINAL | {Base.OffsetTime: "+02:00"}
    for content in (
        image("jpg", {}, said),
        image("jpg", {}, ORIGINAL, place("2024:07:01", 8)),
        with_xmp(xmp('photoshop:DateCreated="2024-07-01T10:00:00+02:00"')),
    ):
        assert analyze(content)["taken_at"] == "2024-07-01T08:00:00Z"


# Phones.


def test_heic_is_read_as_jpeg(analyze):
    whole = odd_images.HEIC_WITH_EXIF
    start = whole.index(b"Exif\0\0MM") + 6
    same = photographs.encode(
        photographs.picture("cat", 64), "jpg", exif=b"Exif\0\0" + whole[start : start + 200]
    )
    expected = date(
        "2024-07-01T08:00:00.250Z",
        "2024-07-01T10:00:00.250",
        "+02:00",
        "exif_original",
        "offset_original",
    )
    assert date_of(analyze, whole) == date_of(analyze, same) == expected
    assert analyze(whole)["camera"] == {"make": "Apple", "model": "iPhone 15"}
    without = whole.replace(b"+02:00", b"   :  ")
    assert date_of(analyze, without)["offset_source"] == "setting"


# The setting.


def loaded(tmp_path: Path, **environment: str) -> Any:
    plugin_manager = load_plugins(tmp_path, ("exif",), (), tmp_path / "none.toml", environment)
    return next(one for one in plugin_manager.plugins if one.name == "exif")


def test_another_time_zone_is_another_configuration(tmp_path):
    hashes = {loaded(tmp_path, TIME_ZONE=zone).config_hash for zone in ("Asia/Tokyo", "UTC", "")}
    assert len(hashes) == 2
    assert loaded(tmp_path).config_hash == loaded(tmp_path, TIME_ZONE="UTC").config_hash
    assert loaded(tmp_path, TIME_ZONE="Asia/Tokyo").config["time_zone"] == "Asia/Tokyo"


@pytest.mark.parametrize(
    "zone",
    [
        "Mars/Olympus",
        "Europe",
        "../UTC",
        "/etc/passwd",
        "zone.tab",
        "+02:00",
        "x" * 300,
    ],
)
def test_what_is_no_time_zone_is_named(tmp_path, zone):
    found = loaded(tmp_path, TIME_ZONE=zone)
    assert found.state == "misconfigured"
    assert found.reason == (
        "time_zone: expected the name of a time zone of the IANA database, "
        "such as Europe/Berlin or UTC"
    )


def test_time_zones_are_known_where_the_system_has_none(tmp_path):
    name = f"{plugin.__name__}.schemas"
    script = f"import {name} as schemas; schemas.is_time_zone('Europe/Berlin'); print('known')"
    environment = {**os.environ, "PYTHONTZPATH": str(tmp_path)}
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "known\n"
