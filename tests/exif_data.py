"""Metadata for tests, by Pillow or by hand, and the analyzer `exif` to be held against it."""

import json
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import odd_images
import photographs
import pi_heif
import PIL.Image
import structlog
from clustr_plugins import exif as plugin
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from clustr.analysis.ends import UploadFields
from clustr.analysis.http_session import Session
from clustr.plugins import Context, Image

Analyze = Callable[[bytes], dict[str, Any]]
Tags = dict[int, Any]

ANALYZED_WITHIN_SECONDS = 3.0  # of the processor, however busy the machine is
ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, FLOAT = 2, 3, 4, 5, 7, 10, 11


def analyzes(folder: Path, time_zone: str = "UTC") -> Analyze:
    """Analyzes a file; whatever is in it, the result fits the schema, is small and JSON, soon."""
    (analyzer,) = plugin.clustr_register_analyzers(config={"time_zone": time_zone})
    pi_heif.register_heif_opener()

    def analyze(content: bytes) -> dict[str, Any]:
        path = folder / "5f0000000000000000000001.bin"
        path.write_bytes(content)
        image = Image("5f0000000000000000000001", "0" * 64, "image/any", len(content), 1, 1, path)
        log = structlog.stdlib.get_logger()
        with Session() as http:
            context = Context({}, {}, log, http, time.monotonic() + 60, folder)
            began = time.process_time()
            result = analyzer.analyze(image, context)
            assert time.process_time() - began < ANALYZED_WITHIN_SECONDS
        assert analyzer.result_schema().validate(result) == {}
        encoded = json.dumps(result, allow_nan=False, ensure_ascii=False).encode()
        assert json.loads(encoded) == result
        assert len(encoded) < 10_000
        UploadFields().load({"taken_at": result["taken_at"]} if result["taken_at"] else {})
        return result

    return analyze


def exif(camera: Tags | None = None, photograph: Tags | None = None, place: Tags | None = None):
    """EXIF data as Pillow writes it."""
    written = PIL.Image.Exif()
    written.update(camera or {})
    for ifd, tags in ((IFD.Exif, photograph), (IFD.GPSInfo, place)):
        if tags:
            written.get_ifd(ifd).update(tags)
            written[ifd] = tags  # for TIFF, in which they are left out otherwise
    return written


def image(extension: str = "jpg", *tags: Tags) -> bytes:
    return photographs.encode(photographs.picture("cat", 64), extension, exif=exif(*tags))


def directory(*entries: tuple[int, int, int, bytes], offset: int = 8, order: str = "<") -> bytes:
    """A directory as it stands at `offset`, with its values behind it.

    Args:
        entries: tag, type, how many values, and their bytes.
    """
    listed, values = b"", b""
    end = offset + 2 + 12 * len(entries) + 4
    for tag, kind, count, data in entries:
        place = data.ljust(4, b"\0")
        if len(data) > 4:
            place = struct.pack(f"{order}I", end + len(values))
            values += data
        listed += struct.pack(f"{order}HHI", tag, kind, count) + place
    return struct.pack(f"{order}H", len(entries)) + listed + bytes(4) + values


def block(
    *main: tuple[int, int, int, bytes], gps: list[tuple[int, int, int, bytes]] | None = None
) -> bytes:
    """A whole block of EXIF data by hand, with tags of the picture and of the place."""
    head = b"II*\0" + struct.pack("<I", 8)
    if not gps:
        return head + directory(*main)
    length = len(directory(*main, (IFD.GPSInfo, LONG, 1, bytes(4))))
    pointer = (int(IFD.GPSInfo), LONG, 1, struct.pack("<I", 8 + length))
    return head + directory(*main, pointer) + directory(*gps, offset=8 + length)


def jpeg(block: bytes) -> bytes:
    return photographs.encode(photographs.picture("cat", 64), "jpg", exif=b"Exif\0\0" + block)


def text_tag(tag: int, value: bytes, kind: int = ASCII) -> tuple[int, int, int, bytes]:
    return int(tag), kind, len(value), value


def fraction(tag: int, above: int, below: int) -> tuple[int, int, int, bytes]:
    signed = above < 0 or below < 0
    packed = struct.pack("<ii" if signed else "<II", above, below)
    return int(tag), SRATIONAL if signed else RATIONAL, 1, packed


DATE_KEYS = ("taken_at", "taken_at_local", "utc_offset", "source", "offset_source")
NO_DATE = dict.fromkeys(DATE_KEYS)


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
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{}</rdf:RDF></x:xmpmeta>'
)
NAMESPACES = (
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
    'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"'
)


def date_of(analyze: Analyze, content: bytes) -> dict[str, Any]:
    """The part of the result that says when the picture was taken."""
    result = analyze(content)
    return {key: result[key] for key in DATE_KEYS}


def date(
    taken_at: str | None, local: str, offset: str | None, source: str, offset_source: str
) -> dict[str, Any]:
    return dict(zip(DATE_KEYS, (taken_at, local, offset, source, offset_source), strict=True))


def xmp(attributes: str = "", elements: str = "") -> bytes:
    """XMP data that says this of the picture."""
    return xmp_of(described(attributes, elements))


def xmp_of(*descriptions: str) -> bytes:
    return XMP.format("".join(descriptions)).encode()


def described(attributes: str = "", elements: str = "") -> str:
    return f"<rdf:Description {NAMESPACES} {attributes}>{elements}</rdf:Description>"


def with_xmp(packet: bytes, *tags: Tags, extension: str = "jpg") -> bytes:
    """A photograph with XMP data, and with EXIF data."""
    picture = photographs.picture("cat", 64)
    if extension == "png":
        return odd_images.png_with(text_chunk(b"iTXt", b"XML:com.adobe.xmp", packet))
    written = exif(*tags)
    if extension == "tif":
        written[Base.XMLPacket] = packet
    return photographs.encode(picture, extension, xmp=packet, exif=written)


def text_chunk(kind: bytes, keyword: bytes, text: bytes, compressed: bool = False) -> bytes:
    """A text in a PNG."""
    content = zlib.compress(text) if compressed else text
    between = {b"tEXt": b"", b"zTXt": b"\0", b"iTXt": bytes([compressed, 0, 0, 0])}[kind]
    return odd_images.chunk(kind, keyword + b"\0" + between + content)


def png_ending_with(chunk: bytes) -> bytes:
    """A photograph as PNG with one more chunk behind its pixels, where Pillow does not look."""
    content = photographs.photograph("png")
    return content[:-12] + chunk + content[-12:]
