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
    BLOCK,
    CAMERA,
    FLOAT,
    LONG,
    NOTHING,
    PHOTOGRAPH,
    PLACE,
    RATIONAL,
    RESULT,
    SHORT,
    SRATIONAL,
    Analyze,
    analyzes,
    block,
    directory,
    exif,
    fraction,
    image,
    jpeg,
    text_tag,
)
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational
from running import wait_until

from clustr.analysis.ends import UploadFields

# Pillow warns of broken data while it opens a file; the worker ignores it (pillow_setup.prepare).
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


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
