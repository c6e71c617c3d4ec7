"""The analyzer `exif` on what cameras write, and on what nobody should write."""

# ruff: noqa: RUF001  Letters of all scripts are meant here.

import io
import json
import struct
import zlib
from datetime import UTC, datetime
from typing import Any

import odd_images
import photographs
import pytest
from calling import get, uploaded
from clustr_plugins import exif as plugin
from exif_data import (
    ASCII,
    FLOAT,
    LONG,
    RATIONAL,
    SHORT,
    SRATIONAL,
    UNDEFINED,
    Analyze,
    Tags,
    analyzes,
    block,
    directory,
    exif,
    fraction,
    image,
    jpeg,
    text_tag,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational
from running import wait_until

from clustr.analysis.runner import UploadFields
from clustr.plugins import Fail

# Pillow warns of broken data while it opens a file; the worker does not listen (images.prepare).
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


CAMERA: Tags = {
    Base.Make: "FUJIFILM",
    Base.Model: "X-T5",
    Base.Software: "Digital Camera X-T5 Ver2.01",
    Base.Artist: "Zoë Müller".encode(),
    Base.Copyright: "© 2024 Zoë Müller".encode(),
    Base.Orientation: 1,
    Base.HostComputer: "Zoe's laptop",
}
PHOTOGRAPH: Tags = {
    Base.LensMake: "FUJIFILM",
    Base.LensModel: "XF23mmF1.4 R LM WR",
    Base.ExposureTime: IFDRational(1, 250),
    Base.FNumber: IFDRational(56, 10),
    Base.ISOSpeedRatings: 400,
    Base.ExposureBiasValue: IFDRational(-2, 3),
    Base.FocalLength: IFDRational(23, 1),
    Base.FocalLengthIn35mmFilm: 35,
    Base.Flash: 0x19,
    Base.DateTimeOriginal: "2024:05:01 12:30:45",
    Base.SubsecTimeOriginal: "25",
    Base.OffsetTimeOriginal: "+02:00",
    Base.CameraOwnerName: "Zoe the owner",
    Base.BodySerialNumber: "SECRET-1",
    Base.LensSerialNumber: "SECRET-2",
    Base.UserComment: b"ASCII\0\0\0a comment",
    Base.MakerNote: b"a note",
}
PLACE: Tags = {
    GPS.GPSLatitudeRef: "S",
    GPS.GPSLatitude: (33.0, 51.0, 24.84),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (151.0, 12.0, 54.72),
    GPS.GPSAltitudeRef: 1,
    GPS.GPSAltitude: 12.5,
    GPS.GPSImgDirection: 270.25,
    GPS.GPSDateStamp: "2024:05:01",
    GPS.GPSTimeStamp: (10.0, 30.0, 45.5),
}
RESULT = {
    "camera": {"make": "FUJIFILM", "model": "X-T5"},
    "lens": {"make": "FUJIFILM", "model": "XF23mmF1.4 R LM WR"},
    "exposure": {
        "time_seconds": 1 / 250,
        "f_number": 5.6,
        "iso": 400,
        "bias_ev": -2 / 3,
        "focal_length_mm": 23.0,
        "focal_length_35mm": 35,
        "flash_fired": True,
    },
    "taken_at": "2024-05-01T10:30:45.250Z",
    "taken_at_local": "2024-05-01T12:30:45.250",
    "utc_offset": "+02:00",
    "source": "exif_original",
    "offset_source": "offset_original",
    "orientation": 1,
    "software": "Digital Camera X-T5 Ver2.01",
    "artist": "Zoë Müller",
    "copyright": "© 2024 Zoë Müller",
    "gps": {
        "latitude": -33.8569,
        "longitude": 151.2152,
        "altitude_m": -12.5,
        "direction_degrees": 270.25,
        "taken_at": "2024-05-01T10:30:45.500Z",
    },
}
NO_DATE = dict.fromkeys(("taken_at", "taken_at_local", "utc_offset", "source", "offset_source"))
NOTHING = {
    "camera": {"make": None, "model": None},
    "lens": {"make": None, "model": None},
    "exposure": dict.fromkeys(RESULT["exposure"]),
    **NO_DATE,
    "orientation": None,
    "software": None,
    "artist": None,
    "copyright": None,
    "gps": None,
}

BLOCK = exif(CAMERA, PHOTOGRAPH, PLACE).tobytes().removeprefix(b"Exif\0\0")


@pytest.fixture(scope="module")
def analyze(tmp_path_factory: pytest.TempPathFactory) -> Analyze:
    return analyzes(tmp_path_factory.mktemp("exif"))


# What cameras write.


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_everything_that_is_read(analyze, extension):
    assert analyze(image(extension, CAMERA, PHOTOGRAPH, PLACE)) == RESULT


def test_avif(analyze):
    file = io.BytesIO()
    written = exif(CAMERA, PHOTOGRAPH, PLACE)
    photographs.picture("cat", 64).save(file, "AVIF", exif=written)
    assert analyze(file.getvalue()) | {"orientation": 1} == RESULT  # Pillow takes upright out


def test_a_jpeg_with_two_pictures(analyze):
    file = io.BytesIO()
    first = photographs.picture("cat", 64)
    tags = exif(CAMERA, PHOTOGRAPH, PLACE)
    first.save(file, "MPO", save_all=True, append_images=[first.resize((8, 8))], exif=tags)
    assert analyze(file.getvalue()) == RESULT


def test_both_orders_of_bytes(analyze):
    motorola = b"MM\0*" + struct.pack(">I", 8)
    entry = (int(Base.Orientation), SHORT, 1, struct.pack(">H", 6))
    make = text_tag(Base.Make, b"Canon\0")
    read = analyze(jpeg(motorola + directory(make, entry, order=">")))
    assert (read["orientation"], read["camera"]["make"]) == (6, "Canon")


@pytest.mark.parametrize("extension", photographs.EXTENSIONS)
def test_no_exif_data_is_a_result_of_nulls(analyze, extension):
    assert analyze(photographs.photograph(extension)) == NOTHING


@pytest.mark.parametrize(
    "content",
    [
        photographs.mpo(),
        photographs.animated("webp"),
        photographs.animated("png"),
        photographs.animated("tif"),
        photographs.grey_16_bit_big_endian(),
        photographs.compressed_tiff(),
        photographs.encode_as("GIF"),
        photographs.encode_as("AVIF"),
        photographs.broken_exif(),
    ],
)
def test_nor_have_others(analyze, content):
    assert analyze(content) == NOTHING


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(analyze, extension, orientation):
    assert analyze(photographs.oriented(orientation, extension))["orientation"] == orientation


def test_exif_data_behind_the_pixels_of_a_png(analyze):
    assert analyze(photographs.oriented_behind_pixels(6))["orientation"] == 6


def raw_profile(block: bytes, name: bytes = b"exif") -> bytes:
    """A block of metadata as ImageMagick writes it into a PNG, compressed or not."""
    digits = block.hex()
    lines = [digits[start : start + 72] for start in range(0, len(digits), 72)]
    return b"\n%s\n%8d\n" % (name, len(block)) + "\n".join(lines).encode() + b"\n"


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("name", [b"exif", b"APP1"])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
def test_a_raw_profile_of_a_png(analyze, kind, name, prefix):
    text = raw_profile(prefix + BLOCK, name)
    text = b"\0" + zlib.compress(text) if kind == b"zTXt" else text
    chunk = odd_images.chunk(kind, b"Raw profile type " + name + b"\0" + text)
    assert analyze(odd_images.png_with(chunk)) == RESULT


def test_xmp_in_a_raw_profile_of_a_png(analyze):
    packet = (
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
        b'photoshop:DateCreated="2019-03-05T07:08:09Z"/></rdf:RDF>'
    )
    in_app1 = raw_profile(b"http://ns.adobe.com/xap/1.0/\0" + packet, b"APP1")
    for keyword, text in ((b"xmp", raw_profile(packet, b"xmp")), (b"APP1", in_app1)):
        chunk = odd_images.chunk(b"tEXt", b"Raw profile type " + keyword + b"\0" + text)
        found = analyze(odd_images.png_with(chunk))
        assert (found["taken_at"], found["source"]) == ("2019-03-05T07:08:09Z", "xmp")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\nexif\n",
        b"\nexif\n 8\n4949zz",
        b"\nexif\n 8\n494",
        b"\nexif\n 8\n" + bytes(range(256)).hex().encode(),
        b"e" * 1_000_000,
        b"\nexif\n8" + b" " * 500_000 + b"4" * 500_000 + b"x",
        b"\nexif\n" + b"8" * 500_000 + b"\n" + b"4 " * 250_000 + b"x",
    ],
    ids=range(8),
)
def test_raw_profiles_that_are_none(analyze, text):
    chunk = odd_images.chunk(b"tEXt", b"Raw profile type exif\0" + text)
    content = photographs.photograph("png")
    assert analyze(content[:-12] + chunk + content[-12:]) == NOTHING


def test_no_pixel_is_decoded(analyze):
    content = image("jpg", CAMERA, PHOTOGRAPH, PLACE)
    header = content[: content.index(b"\xff\xda") + 20]
    assert analyze(header) == RESULT


def test_A9_nothing_of_serial_numbers_owners_and_comments(analyze):
    text = json.dumps(analyze(image("jpg", CAMERA, PHOTOGRAPH, PLACE)))
    assert not [word for word in ("SECRET", "owner", "laptop", "comment", "note") if word in text]


def test_it_fills_the_uploads_taken_at(analyze):
    (analyzer,) = plugin.clustr_register_analyzers(config={"time_zone": "UTC"})
    assert dict(analyzer.fields) == {"taken_at": "taken_at"}
    loaded = UploadFields().load({"taken_at": RESULT["taken_at"]})
    assert loaded["taken_at"] == datetime(2024, 5, 1, 10, 30, 45, 250_000, tzinfo=UTC)


def test_an_upload_has_it(service):
    [one] = uploaded(service, image("jpg", CAMERA, PHOTOGRAPH, PLACE))

    def stored() -> dict[str, Any]:
        return get(service, f"/api/uploads/{one['id']}").json()

    wait_until(lambda: stored()["analyses"]["exif"]["status"] == "succeeded", 60)
    assert stored()["analyses"]["exif"]["result"] == RESULT
    assert stored()["taken_at"] == "2024-05-01T10:30:45.250000Z"


def test_directories_named_by_the_type_for_that(analyze):
    length = len(directory((int(IFD.Exif), 13, 1, bytes(4))))
    pointer = (int(IFD.Exif), 13, 1, struct.pack("<I", 8 + length))
    model = directory(text_tag(Base.LensModel, b"a lens"), offset=8 + length)
    assert analyze(jpeg(block(pointer) + model))["lens"]["model"] == "a lens"


# Numbers.


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_are_none(analyze, value):
    assert analyze(image("jpg", {Base.Orientation: value}))["orientation"] is None


@pytest.mark.parametrize(
    ("tag", "key"),
    [
        (Base.ExposureTime, "time_seconds"),
        (Base.FNumber, "f_number"),
        (Base.ISOSpeedRatings, "iso"),
        (Base.FocalLength, "focal_length_mm"),
        (Base.FocalLengthIn35mmFilm, "focal_length_35mm"),
    ],
)
@pytest.mark.parametrize(
    ("above", "below"), [(0, 0), (1, 0), (0, 1), (2**32 - 1, 1), (1, 2**32 - 1), (-1, 1), (-1, 0)]
)
def test_A11_absurd_numbers_are_left_out(analyze, tag, key, above, below):
    assert analyze(jpeg(block(fraction(tag, above, below)))) == NOTHING


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000])
def test_infinity_is_no_number(analyze, bits):
    entry = (int(Base.FNumber), FLOAT, 1, struct.pack("<I", bits))
    assert analyze(jpeg(block(entry))) == NOTHING


@pytest.mark.parametrize(
    ("flash", "fired"), [(0, False), (1, True), (0x10, False), (0x5F, True), (0x20, False)]
)
def test_flash(analyze, flash, fired):
    assert analyze(image("jpg", {}, {Base.Flash: flash}))["exposure"]["flash_fired"] is fired


def test_a_sensitivity_of_more_than_16_bits(analyze):
    tags = {Base.ISOSpeedRatings: 65535, Base.RecommendedExposureIndex: 102_400}
    assert analyze(image("jpg", {}, tags))["exposure"]["iso"] == 102_400


@pytest.mark.parametrize(
    ("entries", "iso"),
    [
        ([(Base.ISOSpeedRatings, LONG, struct.pack("<I", 102_400))], 102_400),
        ([(Base.ISOSpeedRatings, SHORT, b"\xff\xff")], 65_535),
        ([(Base.ISOSpeedRatings, SHORT, b"\0\0")], None),
        ([(Base.ISOSpeedRatings, RATIONAL, struct.pack("<II", 800, 2))], 400),
        ([(Base.ISOSpeedRatings, RATIONAL, struct.pack("<II", 0, 0))], None),
        ([(Base.ISOSpeed, LONG, struct.pack("<I", 204_800))], 204_800),
        (
            [
                (Base.ISOSpeedRatings, SHORT, b"\xff\xff"),
                (Base.StandardOutputSensitivity, LONG, struct.pack("<I", 102_400)),
            ],
            102_400,
        ),
        (
            [
                (Base.ISOSpeedRatings, SHORT, b"\xff\xff"),
                (Base.RecommendedExposureIndex, LONG, struct.pack("<I", 0)),
                (Base.ISOSpeed, LONG, struct.pack("<I", 409_600)),
            ],
            409_600,
        ),
        (
            [
                (Base.ISOSpeedRatings, SHORT, b"\x90\x01"),
                (Base.ISOSpeed, LONG, struct.pack("<I", 204_800)),
            ],
            400,
        ),
    ],
)
def test_sensitivities(analyze, entries, iso):
    tags = ((int(tag), kind, 1, packed) for tag, kind, packed in entries)
    assert analyze(jpeg(block(*tags)))["exposure"]["iso"] == iso


@pytest.mark.parametrize(("above", "below", "found"), [(35, 1, 35), (276, 10, 28), (1, 4, None)])
def test_focal_lengths_as_fractions(analyze, above, below, found):
    content = jpeg(block(fraction(Base.FocalLengthIn35mmFilm, above, below)))
    assert analyze(content)["exposure"]["focal_length_35mm"] == found


def test_numbers_as_text_and_text_as_numbers_are_left_out(analyze):
    numbers = (text_tag(tag, b"400\0\0\0\0\0") for tag in (Base.ISOSpeedRatings, Base.FNumber))
    texts = ((int(tag), SHORT, 2, b"AB\0\0") for tag in (Base.Make, Base.Artist))
    assert analyze(jpeg(block(*texts, *numbers))) == NOTHING


# Time.


@pytest.mark.parametrize(
    ("text", "taken_at"),
    [
        ("2024:05:01 12:30:45", "2024-05-01T12:30:45Z"),
        ("2024-05-01T12:30:45", "2024-05-01T12:30:45Z"),
        ("2024/05/01 12:30:45", "2024-05-01T12:30:45Z"),
        (" 2024:05:01 12:30:45  ", "2024-05-01T12:30:45Z"),
        ("2024:02:29 00:00:00", "2024-02-29T00:00:00Z"),
        ("2000:02:29 23:59:59", "2000-02-29T23:59:59Z"),
        ("1826:06:01 00:00:00", "1826-06-01T00:00:00Z"),
        ("2023:02:29 00:00:00", None),
        ("1900:02:29 00:00:00", None),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("2024:13:01 00:00:00", None),
        ("2024:04:31 00:00:00", None),
        ("2024:05:01 24:00:00", None),
        ("2024:05:01 12:60:00", None),
        ("2024:05:01 12:30:60", None),
        ("2024:05:01 12:30", None),
        ("2024:05:01", None),
        ("12:30:45", None),
        ("2024:5:1 12:30:45", None),
        ("24:05:01 12:30:45", None),
        ("12024:05:01 12:30:45", None),
        ("-024:05:01 12:30:45", None),
        ("2024:05:01 12:30:45 PM", None),
        ("2024:05:01 12:30:45.5", None),
        ("٢٠٢٤:٠٥:٠١ ١٢:٣٠:٤٥", None),
        ("yesterday", None),
        ("$where", None),
        ("", None),
    ],
)
def test_dates(analyze, text, taken_at):
    result = analyze(image("jpg", {}, {Base.DateTimeOriginal: text}))
    assert (result["taken_at"], result["utc_offset"]) == (taken_at, None)


@pytest.mark.parametrize(
    ("text", "offset", "time"),
    [
        ("+00:00", "+00:00", "2024-05-01T12:00:00Z"),
        ("Z", "+00:00", "2024-05-01T12:00:00Z"),
        ("+02:00", "+02:00", "2024-05-01T10:00:00Z"),
        ("-09:30", "-09:30", "2024-05-01T21:30:00Z"),
        ("+05:45", "+05:45", "2024-05-01T06:15:00Z"),
        ("+14:00", "+14:00", "2024-04-30T22:00:00Z"),
        ("-12:00", "-12:00", "2024-05-02T00:00:00Z"),
        ("+15:00", None, "2024-05-01T12:00:00Z"),
        ("+99:99", None, "2024-05-01T12:00:00Z"),
        ("+02:60", None, "2024-05-01T12:00:00Z"),
        ("02:00", None, "2024-05-01T12:00:00Z"),
        ("+2:00", None, "2024-05-01T12:00:00Z"),
        ("+0200", "+02:00", "2024-05-01T10:00:00Z"),
        ("-0930", "-09:30", "2024-05-01T21:30:00Z"),
        ("+02", "+02:00", "2024-05-01T10:00:00Z"),
        ("+1500", None, "2024-05-01T12:00:00Z"),
        ("0200", None, "2024-05-01T12:00:00Z"),
        ("   :  ", None, "2024-05-01T12:00:00Z"),
        ("ZZ", None, "2024-05-01T12:00:00Z"),
        ("Europe/Berlin", None, "2024-05-01T12:00:00Z"),
        ("", None, "2024-05-01T12:00:00Z"),
    ],
)
def test_offsets(analyze, text, offset, time):
    tags = {Base.DateTimeOriginal: "2024:05:01 12:00:00", Base.OffsetTimeOriginal: text}
    result = analyze(image("jpg", {}, tags))
    assert (result["taken_at"], result["utc_offset"]) == (time, offset)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("5", ".500"),
        ("05", ".050"),
        ("5 ", ".500"),
        ("123", ".123"),
        ("9" * 300, ".999"),
        ("000", ""),
        ("0004", ""),
        ("", ""),
        ("-1", ""),
        ("1.5", ""),
        ("½", ""),
    ],
)
def test_fractions_of_a_second(analyze, text, milliseconds):
    tags = {Base.DateTimeOriginal: "2024:05:01 12:00:00", Base.SubsecTimeOriginal: text}
    assert analyze(image("jpg", {}, tags))["taken_at"] == f"2024-05-01T12:00:00{milliseconds}Z"


# Place.


@pytest.mark.parametrize(
    ("changed", "latitude", "longitude"),
    [
        ({}, -33.8569, 151.2152),
        ({GPS.GPSLatitude: (90.0, 0.0, 0.0)}, -90, 151.2152),
        ({GPS.GPSLongitude: (180.0, 0.0, 0.0), GPS.GPSLongitudeRef: "W"}, -33.8569, -180),
        ({GPS.GPSLatitude: (33.5,), GPS.GPSLatitudeRef: "N"}, 33.5, 151.2152),
        ({GPS.GPSLatitude: (33.0, 30.0)}, -33.5, 151.2152),
        ({GPS.GPSLatitude: (90.0, 0.0, 1.0)}, None, None),
        ({GPS.GPSLatitude: (33.0, 61.0, 0.0)}, None, None),
        ({GPS.GPSLatitude: (33.0, 0.0, 61.0)}, None, None),
        ({GPS.GPSLongitude: (180.0, 1.0, 0.0)}, None, None),
        ({GPS.GPSLongitude: (4e9, 4e9, 4e9)}, None, None),
        ({GPS.GPSLatitude: (IFDRational(0, 0),) * 3}, None, None),
        ({GPS.GPSLatitude: (33.0, IFDRational(1, 0), 0.0)}, None, None),
        ({GPS.GPSLatitudeRef: "s", GPS.GPSLongitudeRef: "w"}, -33.8569, -151.2152),
        ({GPS.GPSLatitudeRef: "North", GPS.GPSLongitudeRef: "EAST"}, 33.8569, 151.2152),
        ({GPS.GPSLatitudeRef: "south", GPS.GPSLongitudeRef: "West "}, -33.8569, -151.2152),
        ({GPS.GPSLatitudeRef: "Nord"}, None, None),
        ({GPS.GPSLatitudeRef: "East"}, None, None),
        ({GPS.GPSLatitudeRef: ""}, None, None),
        ({GPS.GPSLatitudeRef: "E"}, None, None),
        ({GPS.GPSLatitudeRef: "NS"}, None, None),
        ({GPS.GPSLongitudeRef: "$where"}, None, None),
    ],
)
def test_positions(analyze, changed, latitude, longitude):
    found = analyze(image("jpg", {}, {}, PLACE | changed))["gps"]
    assert (found["latitude"], found["longitude"]) == (latitude, longitude)
    assert found["altitude_m"] == -12.5


@pytest.mark.parametrize("missing", list(PLACE)[:4])
def test_half_a_position_is_none(analyze, missing):
    tags = {tag: value for tag, value in PLACE.items() if tag != missing}
    assert analyze(image("jpg", {}, {}, tags))["gps"] == RESULT["gps"] | {
        "latitude": None,
        "longitude": None,
    }
    only = {tag: value for tag, value in tags.items() if tag in list(PLACE)[:4]}
    assert analyze(image("jpg", {}, {}, only))["gps"] is None


def test_negative_degrees_are_none(analyze):
    signed = struct.pack("<iiiiii", -33, 1, 0, 1, 0, 1)
    sides = text_tag(GPS.GPSLatitudeRef, b"N\0"), text_tag(GPS.GPSLongitudeRef, b"E\0")
    angles = [(int(tag), SRATIONAL, 3, signed) for tag in (GPS.GPSLatitude, GPS.GPSLongitude)]
    assert analyze(jpeg(block(gps=[*sides, *angles])))["gps"] is None


@pytest.mark.parametrize(
    ("changed", "key", "value"),
    [
        ({GPS.GPSAltitudeRef: 0}, "altitude_m", 12.5),
        ({GPS.GPSAltitude: 4e6}, "altitude_m", None),
        ({GPS.GPSAltitude: IFDRational(0, 0)}, "altitude_m", None),
        ({GPS.GPSImgDirection: 361.0}, "direction_degrees", None),
        ({GPS.GPSImgDirection: 0.0}, "direction_degrees", 0),
        ({GPS.GPSTimeStamp: (10.0, 30.0, 59.9999)}, "taken_at", "2024-05-01T10:30:59.999Z"),
        ({GPS.GPSTimeStamp: (10.0, 30.0)}, "taken_at", None),
        ({GPS.GPSTimeStamp: (24.0, 0.0, 0.0)}, "taken_at", None),
        ({GPS.GPSTimeStamp: (10.0, 60.0, 0.0)}, "taken_at", None),
        ({GPS.GPSTimeStamp: (IFDRational(0, 0),) * 3}, "taken_at", None),
        ({GPS.GPSDateStamp: ""}, "taken_at", None),
        ({GPS.GPSDateStamp: "2023:02:29"}, "taken_at", None),
    ],
)
def test_the_rest_of_the_place(analyze, changed, key, value):
    assert analyze(image("jpg", {}, {}, PLACE | changed))["gps"] == RESULT["gps"] | {key: value}


# Text.

TEXTS = (
    (Base.Make, lambda result: result["camera"]["make"]),
    (Base.Model, lambda result: result["camera"]["model"]),
    (Base.LensMake, lambda result: result["lens"]["make"]),
    (Base.LensModel, lambda result: result["lens"]["model"]),
    (Base.Software, lambda result: result["software"]),
    (Base.Artist, lambda result: result["artist"]),
    (Base.Copyright, lambda result: result["copyright"]),
)
FLAG = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
JOINED = f"👩\u200d🚀 می\u200cکنم {FLAG} a\u2060b"
STRINGS = {
    "html": (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
    "operator": (b'{"$where": "sleep(1)"}', '{"$where": "sleep(1)"}'),
    "sql": (b"'; DROP TABLE users;--", "'; DROP TABLE users;--"),
    "format": (b"%s%n{0.__class__}${jndi:ldap://a}", "%s%n{0.__class__}${jndi:ldap://a}"),
    "padded": (b"  OLYMPUS  CORP.   \0\0\0", "OLYMPUS CORP."),
    "behind its end": (b"Canon\0what was in memory", "Canon"),
    "NUL first": (b"\0secret", None),
    "nothing": (b"    ", None),
    "controls": (b"a\x1b[31mb\x07\x7f\xc2\x9bc", "a[31mbc"),
    "lines": (b"two\r\nlines\tof text", "two lines of text"),
    "directions": ("a\u202eb\u2066c\u200fd\ufeffe\u202c".encode(), "abc\u200fde"),
    "unicode": ("Ω≈ç 田中さん 👩 e\u0301".encode(), "Ω≈ç 田中さん 👩 e\u0301"),
    "joiners": (JOINED.encode(), JOINED),
    "of a later Unicode": (
        "\U0001fae8\U0001fae9\U000e1000".encode(),
        "\U0001fae8\U0001fae9\U000e1000",
    ),
    "surrogates": (b"a\xed\xa0\x80b", "a\ufffd\ufffd\ufffdb"),
    "latin-1": (b"M\xfcller", "Müller"),
    "nothing of windows-1252": (b"\x81M\xfcller", "Müller"),
    "not characters": ("a\ufffeb\U0010ffffc\ue000d\ufdd0".encode(), "abcd"),
    "cut": ("Zoë Müllerö".encode()[:-1], "Zoë Müller"),
    "broken": ("Zoë".encode() + b"\xff" + "Müller".encode(), "Zoë\ufffdMüller"),
    "long": (b"x" * 60_000, "x" * 255),
    "long characters": ("😀".encode() * 10_000, "😀" * 255),
}


@pytest.mark.parametrize("name", STRINGS)
@pytest.mark.parametrize(("tag", "read"), TEXTS)
def test_A11_texts(analyze, name, tag, read):
    written, expected = STRINGS[name]
    result = analyze(jpeg(block(text_tag(tag, written))))
    assert read(result) == expected


@pytest.mark.parametrize(
    ("encoding", "texts"),
    [
        ("utf-8", "Zoë Müller|田中さん|Привет|日本|é|😀|Ω≈ç"),
        (
            "latin-1",
            "Müller|Zoë Müller|Hélène|préférés|étés|MÜLLER © 2024|André|Ångström|¡Olé!|niño|é"
            "|Ñandú|çà et là|Große Straße|Français, à l'été|Ærø|ÀÉÎ|± 0.5°|Þórður",
        ),
        (
            "cp1252",
            "It’s O’Brien|“Hello” he said — “bye”|Žižek|Šaša Žižek|cœur|€ 100|l’été|™ Foo®"
            "|wait…what|L’Œuvre d’été|‘A’|Rock’n’Roll|Copyright © 2024 – Zoë’s “Studio”",
        ),
        (
            "cp932",
            "山田太郎|田中|撮影者|カメラ|キヤノン株式会社|日本|林|森|渡邊|Nikon カメラ"
            "|株式会社ニコン|DSC-H7 撮影|ひらがな|東京タワー|佐藤 花子|高木"
            "|鈴木|Copyright 2024 山田|デジタル一眼レフ|ﾆｺﾝ 日本製|木村|伊藤|中村"
            "|撮影 渡邊太郎 (C) 2024",
        ),
    ],
)
def test_texts_in_the_encodings_that_programs_write(analyze, encoding, texts):
    for text in texts.split("|"):
        for ending in (b"\0", b" \0\0", b""):
            written = text_tag(Base.Artist, text.encode(encoding) + ending)
            assert analyze(jpeg(block(written)))["artist"] == text


@pytest.mark.parametrize(
    ("encoding", "character"), [("utf-8", "田"), ("cp932", "田"), ("utf-8", "é")]
)
@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_long_texts_are_not_cut_within_a_character(analyze, encoding, character, before):
    written = text_tag(Base.Artist, (before + character * 5_000).encode(encoding))
    assert analyze(jpeg(block(written)))["artist"] == (before + character * 255)[:255]


# What nobody should write.


@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_A11_nasty_strings_in_all_tags_of_other_formats(analyze, extension):
    for written, _ in STRINGS.values():
        value = written.decode("latin-1")[:20_000]
        tags = dict.fromkeys((tag for tag, _ in TEXTS), value)
        analyze(image(extension, tags, dict.fromkeys(PHOTOGRAPH, value), {1: value, 29: value}))


def test_directories_that_name_themselves(analyze):
    pointers = [(int(tag), LONG, 1, struct.pack("<I", 8)) for tag in (IFD.Exif, IFD.GPSInfo)]
    make = text_tag(Base.Make, b"x\0")
    whole = block(make, *pointers)
    endless = whole[: 8 + 2 + 36] + struct.pack("<I", 8) + whole[8 + 2 + 36 + 4 :]
    assert analyze(jpeg(endless))["camera"]["make"] == "x"


@pytest.mark.parametrize("offset", [0, 1, 7, 9, 65_000, 2**31, 2**32 - 1])
@pytest.mark.parametrize("pointer", [IFD.Exif, IFD.GPSInfo, Base.Make])
def test_offsets_to_nowhere(analyze, pointer, offset):
    kind, count = (ASCII, 100) if pointer == Base.Make else (LONG, 1)
    software = text_tag(Base.Software, b"x\0")
    content = jpeg(block(software, (int(pointer), kind, count, struct.pack("<I", offset))))
    assert analyze(content)["software"] == "x"


@pytest.mark.parametrize("kind", [FLOAT, RATIONAL, SRATIONAL, ASCII, UNDEFINED, 0, 255])
def test_directories_whose_offset_is_no_whole_number(analyze, kind):
    entry = (int(IFD.Exif), kind, 1, struct.pack("<f", float("nan")) + b"\xff\xff\xff\xff")
    assert analyze(jpeg(block(entry))) == NOTHING


def overlapping_tags(count: int, length: int) -> bytes:
    """Tags that all have the same megabytes as their value."""
    size = 8 + 2 + 12 * count + 4 + length
    entries = ((tag, ASCII, size - 8, struct.pack("<I", 8)) for tag in range(count))
    listed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, count) + listed + bytes(4) + b"x" * length


def test_very_many_very_large_tags(analyze):
    tags = overlapping_tags(50_000, 8_000_000)
    head, tail = photographs.photograph("png")[:33], photographs.photograph("png")[33:]
    chunk = photographs._chunk(b"eXIf", tags)
    assert len(analyze(head + chunk + tail)["camera"]["make"]) <= 255
    analyze(photographs.encode(photographs.picture("cat", 64), "webp", exif=tags))
    analyze(jpeg(overlapping_tags(5_000, 5_000)))


def test_metadata_of_the_largest_size(analyze):
    assert analyze(photographs.huge_exif())["orientation"] == 6


def test_a_png_of_very_many_chunks(analyze):
    content = photographs.oriented_behind_pixels(6)
    end = content.index(b"eXIf") - 4
    assert analyze(content[:end] + photographs._chunk(b"teST", b"") * 90_000 + content[end:])
    analyze(content[:end] + photographs._chunk(b"teST", b"") * 500_000 + content[end:])


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0"]
)
def test_what_is_no_image_fails(analyze, content):
    with pytest.raises(Fail, match="cannot be read"):
        analyze(content)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_files_that_end_anywhere(analyze, extension):
    content = image(extension, CAMERA, PHOTOGRAPH, PLACE)
    for length in range(0, min(len(content), 3000), 17):
        unless_refused(analyze, content[:length])
        unless_refused(analyze, content[:-length])


def unless_refused(analyze: Analyze, content: bytes) -> None:
    try:
        analyze(content)
    except Fail as error:
        assert error.reason == "The header of the image cannot be read."


GOOD = jpeg(BLOCK)
assert BLOCK in GOOD
FUZZ = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(block=st.binary(max_size=2000))
@example(block=b"II*\0\x08\0\0\0\xff\xff")
@example(block=b"MM\0*\0\0\0\0")
@example(block=b"II*\0")
def test_any_bytes_as_exif_data(analyze, block):
    for order in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        unless_refused(analyze, GOOD.replace(BLOCK, (order + block).ljust(len(BLOCK))))


@FUZZ
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(BLOCK) - 1), st.binary(min_size=1, max_size=4)), min_size=1
    )
)
def test_good_exif_data_with_bytes_changed(analyze, changes):
    block = bytearray(BLOCK)
    for position, new in changes:
        block[position : position + len(new)] = new
    unless_refused(analyze, GOOD.replace(BLOCK, bytes(block[: len(BLOCK)])))


entries = st.tuples(
    st.sampled_from([*CAMERA, *PHOTOGRAPH, *PLACE, *IFD]).map(lambda tag: int(tag) & 0xFFFF),
    st.integers(0, 14),
    st.one_of(st.integers(0, 8), st.integers(0, 2**32 - 1)),
    st.binary(max_size=40),
)


@FUZZ
@given(main=st.lists(entries, max_size=30), gps=st.lists(entries, max_size=15))
def test_directories_of_all_tags_of_all_types(analyze, main, gps):
    unless_refused(analyze, jpeg(block(*main, gps=gps)))
