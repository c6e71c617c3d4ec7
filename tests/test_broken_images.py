"""Images that are cut off, broken or of a kind that is not read, and what is said of them."""

import io
import re
import struct
import tempfile
from pathlib import Path

import odd_images
import photographs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clustr.domain.errors import RefusedFile, Undecodable, UnsupportedType
from clustr.imaging import header_checks
from clustr.imaging.formats import FORMATS

MAX_PIXELS = 50_000_000
pytestmark = pytest.mark.usefixtures("prepared")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("extension", photographs.EXTENSIONS)
def test_truncated_images_are_refused(inspect, opened, extension, fraction):
    content = photographs.truncated(photographs.photograph(extension), fraction)
    with pytest.raises(Undecodable):
        inspect(content)
    with pytest.raises(Undecodable):
        opened(content)


@pytest.mark.parametrize("content", [photographs.progressive_jpeg(), photographs.mpo()])
def test_other_truncated_jpegs_are_refused(inspect, content):
    with pytest.raises(Undecodable):
        inspect(photographs.truncated(content, 0.5))


JPEGS = {
    "usual": {},
    "gray": {"mode": "L"},
    "progressive": {"progressive": True},
    "with marks to begin again at": {"restart_marker_blocks": 3},
    "in CMYK": {"mode": "CMYK"},
    "without subsampling": {"subsampling": 0, "optimize": True},
}


def jpeg(name: str, picture: str = "cat") -> bytes:
    options = dict(JPEGS[name])
    image = photographs.picture(picture, 160).convert(options.pop("mode", "RGB"))
    return photographs.encode(image, "jpg", **options)


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("picture", ["cat", "rocket", "astronaut"])
def test_a_jpeg_that_lacks_only_its_end_mark_is_accepted(inspect, opened, name, missing, picture):
    content = jpeg(name, picture)
    found = inspect(content[:-missing])
    whole, cut = opened(content), opened(content[:-missing])
    assert (found.width, found.height) == whole.size
    assert cut.tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_lacks_pixels_is_refused_wherever_it_ends(inspect, opened, name):
    content = jpeg(name)
    last_scan = content.rindex(b"\xff\xda") + 12
    places = [*range(len(content) - 30, len(content) - 4), *range(last_scan, len(content) - 4, 97)]
    ends = [place for place in places if place < len(content) - 4]
    for marker in re.finditer(rb"\xff[\xd0-\xd7]|\xff\xda", content):  # where one begins or ends
        ends += [marker.start(), marker.start() + 1, marker.end()]
    for end in ends:
        with pytest.raises(Undecodable):
            inspect(content[:end])
    with pytest.raises(Undecodable):
        opened(content[: ends[-1]])


def test_a_cut_jpeg_takes_room_for_all_its_pixels_and_one_before_a_video_does_not():
    whole = photographs.photograph("jpg")
    video = bytes(1000)
    for content, is_cut in ((whole, False), (whole[:-2], True), (whole + video, False)):
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            assert header_checks.check(file, "JPEG", MAX_PIXELS).is_cut == is_cut


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        (photographs.photograph("png"), range(1, 17)),  # the end, and the checksum of the pixels
        (photographs.encode_as("GIF"), range(1, 3)),
        (photographs.encode(photographs.picture("cat", 157), "bmp"), range(1, 2)),
        (photographs.mpo(), range(1, 500, 100)),
        (photographs.animated("tif"), range(1, 5000, 900)),
    ],
)
def test_what_lacks_no_pixel_of_the_first_picture_is_accepted(inspect, content, missing):
    whole = inspect(content, FORMATS)
    for count in missing:
        assert inspect(content[:-count], FORMATS) == whole


@pytest.mark.parametrize("extension", photographs.EXTENSIONS)
@pytest.mark.parametrize("length", [16, 20, 30, 60])
def test_a_cut_header_is_a_broken_image_and_no_other_type(inspect, extension, length):
    with pytest.raises(Undecodable):
        inspect(photographs.photograph(extension)[:length])


@pytest.mark.parametrize("extension", photographs.EXTENSIONS)
@pytest.mark.parametrize("length", range(1, 16))
def test_a_few_bytes_are_refused(inspect, extension, length):
    with pytest.raises((Undecodable, UnsupportedType)):
        inspect(photographs.photograph(extension)[:length])


def test_what_pillow_only_warns_of_is_accepted(inspect):
    # An entry of the directory says that its data is a megabyte, which the file is not.
    content = bytearray(photographs.oriented(6, "tif"))
    entry = content.index(b"\x12\x01\x03\x00\x01\x00\x00\x00")
    content[entry : entry + 12] = b"\x0e\x01\x02\x00\x00\x00\x10\x00\x08\x00\x00\x00"
    found = inspect(bytes(content))
    assert found.format.extension == "tif"


def test_messages_hold_no_path(inspect, opened, tmp_path):
    for extension in photographs.EXTENSIONS:
        for content in (
            photographs.photograph(extension)[:40],
            photographs.truncated(photographs.photograph(extension), 0.6),
        ):
            for act in (inspect, opened):
                with pytest.raises(RefusedFile) as refusal:
                    act(content)
                assert str(tmp_path) not in str(refusal.value)


def test_G11_libtiff_writes_nothing_between_the_lines_of_the_log(inspect, opened, capfd):
    content = bytearray(photographs.compressed_tiff("tiff_adobe_deflate"))
    content[20:30] = bytes(10)
    for act in (inspect, opened):
        with pytest.raises(Undecodable):
            act(bytes(content))
    assert capfd.readouterr().err == ""


NONSENSE = {
    "frames beyond all": odd_images.png_with(odd_images.control(2**32 - 1)),
    "frames": odd_images.png_with(odd_images.control(1_000_000)),
    "no frames": odd_images.png_with(odd_images.control(0)),
    "frames twice": odd_images.png_with(odd_images.control(2), odd_images.control(3)),
    "half a number of frames": odd_images.png_with(odd_images.chunk(b"acTL", b"123")),
    "a frame out of order": odd_images.png_with(
        odd_images.control(2), odd_images.frame_control(7, 160, 106)
    ),
    "a frame outside": odd_images.png_with(
        odd_images.control(2), odd_images.frame_control(0, 999, 999)
    ),
    "half a frame": odd_images.png_with(odd_images.control(2), odd_images.chunk(b"fcTL", b"123")),
    "half a density": odd_images.png_with(odd_images.chunk(b"pHYs", b"12")),
    "half a gamma": odd_images.png_with(odd_images.chunk(b"gAMA", b"")),
    "the checksum of a text": odd_images.png_with(
        odd_images.chunk(b"tEXt", b"Title\0a")[:-4] + b"\0\0\0\0"
    ),
    "values of a tag": odd_images.tiff((65_000, 3, 2**31, 1000)),
    "bytes of a tag": odd_images.tiff((65_000, 1, 2**32 - 1, 1000)),
    "where a tag is": odd_images.tiff((305, 2, 100, 2**32 - 1)),
    "bytes of a bitmap": photographs.photograph("bmp")[:2]
    + b"\xff" * 4
    + photographs.photograph("bmp")[6:],
}


@pytest.mark.parametrize("name", NONSENSE)
def test_numbers_that_are_not_needed_decide_nothing(inspect, opened, name):
    found = inspect(NONSENSE[name], limit_time=True)
    assert (found.width, found.height) == opened(NONSENSE[name]).size
    assert (found.width, found.height) in ((160, 106), (8, 8))


def test_an_animation_is_one_as_long_as_its_numbers_are_right():
    with Image.open(io.BytesIO(photographs.animated("png", frames=3))) as animation:
        assert animation.n_frames == 3
        animation.seek(2)
        animation.load()
    with Image.open(io.BytesIO(NONSENSE["a frame outside"])) as still:
        assert not still.is_animated


def float_planes() -> bytes:
    return (photographs.folder() / "multipage_rgb.tif").read_bytes()


def jpeg_with_process(marker: int, bits: int) -> bytes:
    """A JPEG that says it is of another process or another precision."""
    content = photographs.photograph("jpg")
    at = content.index(b"\xff\xc0")
    return (
        content[: at + 1]
        + bytes([marker])
        + content[at + 2 : at + 4]
        + bytes([bits])
        + (content[at + 5 :])
    )


def bitmap_with(compression: int, bits: int = 24) -> bytes:
    content = photographs.photograph("bmp")
    return content[:28] + struct.pack("<HI", bits, compression) + content[34:]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (
            float_planes(),
            "TIFF with 3 samples per pixel of 64 bits (fractions) in separate planes",
        ),
        (
            odd_images.tiff((258, 3, 1, 64), (339, 3, 1, 3)),
            "TIFF with samples of 64 bits (fractions)",
        ),
        (
            odd_images.tiff((258, 3, 1, 16), (339, 3, 1, 3)),
            "TIFF with samples of 16 bits (fractions)",
        ),
        (odd_images.tiff((258, 3, 1, 24)), "TIFF with samples of 24 bits (whole numbers)"),
        (odd_images.tiff((339, 3, 1, 6)), "TIFF with samples of 8 bits (complex numbers)"),
        (odd_images.tiff((259, 3, 1, 34712)), "TIFF with the compression 34712"),
        (jpeg_with_process(0xC0, 12), "JPEG with 12 bits per sample"),
        (jpeg_with_process(0xC3, 8), "lossless JPEG"),
        (jpeg_with_process(0xC5, 8), "hierarchical JPEG"),
        (bitmap_with(4), "BMP with a JPEG inside"),
        (bitmap_with(5), "BMP with a PNG inside"),
        (bitmap_with(0, 64), "BMP with 64 bits per pixel"),
    ],
)
def test_a_kind_that_is_not_read_is_not_called_broken(inspect, opened, content, kind):
    for read in (inspect, opened):
        with pytest.raises(UnsupportedType) as refused:
            read(content)
        assert str(refused.value).startswith(f"This is a {kind}, a kind that cannot be read here;")


@pytest.mark.parametrize(
    "content",
    [
        odd_images.tiff((258, 3, 1, 0)),
        odd_images.tiff((258, 3, 1, 60_000)),
        odd_images.tiff((339, 3, 1, 99)),
        odd_images.tiff((262, 3, 1, 99)),
        odd_images.tiff()[:90],
        photographs.truncated(photographs.photograph("jpg"), 0.5),
        jpeg_with_process(0xC0, 99),
        photographs.photograph("bmp")[:30],
        odd_images.png_with(odd_images.chunk(b"PLTE", bytes(3))[:-4] + bytes(4)),
    ],
    ids=range(9),
)
def test_what_is_broken_is_called_broken(inspect, content):
    with pytest.raises(Undecodable, match="broken or incomplete"):
        inspect(content)


SEEDS = [
    *(photographs.photograph(extension, width=48) for extension in photographs.EXTENSIONS),
    photographs.oriented(6, "tif"),
    photographs.oriented_behind_pixels(),
    photographs.compressed_tiff("tiff_lzw"),
    photographs.compressed_tiff("jpeg"),
    photographs.progressive_jpeg(width=48),
    photographs.mpo(),
    photographs.transparent("webp"),
    photographs.animated("png"),
    photographs.palette("png"),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An image with some bytes changed, most of them near the start, and sometimes cut or grown."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 8))):
        limit = draw(st.sampled_from([64, 512, len(content)]))
        position = draw(st.integers(0, min(limit, len(content)) - 1))
        content[position] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    if draw(st.integers(0, 3)) == 0:
        content = content[: draw(st.integers(1, len(content)))]
    return bytes(content) + draw(st.binary(max_size=8))


@given(content=mutated() | st.binary(min_size=1, max_size=200))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_bytes_are_an_image_or_refused(inspect, opened, content):
    before = open_files()
    try:
        found = inspect(content)
    except RefusedFile:
        found = None
    assert open_files() == before
    try:
        picture = opened(content)
    except RefusedFile:
        return
    if found:
        assert (found.width, found.height) == picture.size
