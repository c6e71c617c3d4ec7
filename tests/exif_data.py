"""Metadata for tests, by Pillow or by hand, and the analyzer `exif` to be held against it."""

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import photographs
import pi_heif
import PIL.Image
import structlog
from clustr_plugins import exif as plugin
from PIL.ExifTags import IFD

from clustr.analysis.http_session import Session
from clustr.analysis.runner import UploadFields
from clustr.plugins import Context, Image

Analyze = Callable[[bytes], dict[str, Any]]
Tags = dict[int, Any]

ANALYZED_WITHIN_SECONDS = 1.0  # of the processor, however busy the machine is
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
