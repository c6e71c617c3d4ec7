"""The analyzer `exif` on EXIF data that nobody should write, and on what a machine thinks up."""

import struct

import photographs
import pytest
from exif_data import (
    ASCII,
    BLOCK,
    CAMERA,
    FLOAT,
    LONG,
    NOTHING,
    PHOTOGRAPH,
    PLACE,
    RATIONAL,
    SRATIONAL,
    UNDEFINED,
    Analyze,
    analyzes,
    block,
    image,
    jpeg,
    text_tag,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL.ExifTags import IFD, Base

from clustr.plugins import Fail

# Pillow warns of broken data while it opens a file; the worker ignores it (pillow_setup.prepare).
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


@pytest.fixture(scope="module")
def analyze(tmp_path_factory: pytest.TempPathFactory) -> Analyze:
    return analyzes(tmp_path_factory.mktemp("exif"))


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
