"""What is an image and what is not, tried on real photographs and on all that can be wrong."""

import io
import json
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import odd_images
import photographs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat
from running import wait_until

from clustr.domain.errors import Empty, RefusedFile, TooManyPixels, Undecodable, UnsupportedType
from clustr.imaging import decode_limits, header_checks, images, pillow_setup
from clustr.imaging.decoding import displayed_size
from clustr.imaging.formats import FORMATS, Format, formats_for

ALLOWED = formats_for(("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"))
MAX_PIXELS = 50_000_000


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # put back afterwards
    with warnings.catch_warnings():
        pillow_setup.prepare(MAX_PIXELS)
        yield


@pytest.fixture
def inspect(tmp_path: Path):
    def inspect(
        content: bytes, allowed: tuple[Format, ...] = ALLOWED, limit_time: bool = False
    ) -> images.InspectedImage:
        # The name says nothing, as that of a file that is being received.
        with (tmp_path / "incoming").open("w+b") as file:
            file.write(content)
            return images.inspect(file, allowed, limit_time)

    return inspect


@pytest.fixture
def opened(tmp_path: Path):
    def opened(content: bytes) -> Image.Image:
        path = tmp_path / "incoming"
        path.write_bytes(content)
        return images.open_displayed(path)

    return opened


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("extension", photographs.EXTENSIONS)
def test_the_bytes_decide_on_the_format(inspect, extension):
    found = inspect(photographs.photograph(extension))
    assert found.format.extension == extension
    assert found.format.content_type == photographs.CONTENT_TYPES[extension]
    assert (found.width, found.height) == photographs.picture().size


@pytest.mark.parametrize("name", photographs.FILES)
def test_photographs_as_they_came(inspect, name):
    found = inspect(photographs.path(name).read_bytes())
    with Image.open(photographs.path(name)) as image:
        assert (found.width, found.height) == image.size


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_dimensions_and_picture_are_as_displayed(inspect, opened, extension, orientation):
    content = photographs.oriented(orientation, extension)
    shown = photographs.picture()
    found = inspect(content)
    assert (found.width, found.height) == shown.size
    picture = opened(content).convert("RGB")
    assert picture.size == shown.size
    # Lossy formats differ a little from the original; a picture turned the wrong way by 30 or more.
    assert max(ImageStat.Stat(ImageChops.difference(picture, shown)).mean) < 8


def sizes_of(path: Path) -> tuple[tuple[int, int], ...] | None:
    """By the header alone, and by a decode; None where that finds the pixels broken."""
    try:
        decoded = images.open_displayed(path).size
    except RefusedFile:
        return None
    return displayed_size(path), decoded


@pytest.mark.parametrize("name", odd_images.ACCEPTED)
def test_the_header_says_what_a_decode_shows(tmp_path, name):
    (tmp_path / "image").write_bytes(odd_images.odd(name))
    by_header, by_decode = sizes_of(tmp_path / "image") or ((), ())
    assert by_header == by_decode != ()


def test_the_header_says_how_a_picture_is_turned(tmp_path):
    path, shown = tmp_path / "image", photographs.picture().size
    for orientation in range(1, 9):
        for extension in ("jpg", "png", "webp", "tif"):
            path.write_bytes(photographs.oriented(orientation, extension))
            assert displayed_size(path) == shown
        path.write_bytes(photographs.oriented_behind_pixels(orientation))
        assert displayed_size(path) == shown


def test_orientation_behind_the_pixels_of_a_png(inspect, opened):
    content = photographs.oriented_behind_pixels(6)
    assert content.index(b"eXIf") > content.index(b"IDAT")
    found = inspect(content)
    assert (found.width, found.height) == photographs.picture().size == opened(content).size


@pytest.mark.parametrize(
    ("content", "extension"),
    [
        (photographs.cmyk("jpg"), "jpg"),
        (photographs.cmyk("tif"), "tif"),
        (photographs.grey_16_bit("png"), "png"),
        (photographs.grey_16_bit("tif"), "tif"),
        (photographs.grey_16_bit_big_endian(), "tif"),
        (photographs.colour_16_bit(), "png"),
        (photographs.floating_point(), "tif"),
        (photographs.transparent("png"), "png"),
        (photographs.transparent("webp"), "webp"),
        (photographs.transparent("tif"), "tif"),
        (photographs.one_pixel("png"), "png"),
        (photographs.one_pixel("jpg"), "jpg"),
        (photographs.palette("png"), "png"),
        (photographs.bilevel("tif"), "tif"),
        (photographs.compressed_tiff("tiff_lzw"), "tif"),
        (photographs.compressed_tiff("tiff_adobe_deflate"), "tif"),
        (photographs.compressed_tiff("jpeg"), "tif"),
        (photographs.animated("webp"), "webp"),
        (photographs.animated("png"), "png"),
        (photographs.animated("tif"), "tif"),
        (photographs.progressive_jpeg(), "jpg"),
        (photographs.mpo(), "jpg"),
        (photographs.huge_exif(), "jpg"),
        (photographs.broken_exif(), "jpg"),
    ],
)
def test_unusual_images_are_accepted(inspect, opened, content, extension):
    found = inspect(content)
    assert found.format.extension == extension
    assert (found.width, found.height) == opened(content).size


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


def test_empty(inspect):
    with pytest.raises(Empty):
        inspect(photographs.empty())


@pytest.mark.parametrize(
    "content",
    [
        photographs.text(),
        b"x",
        b"%PDF-1.7\n" * 9,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        bytes(64),
    ],
)
def test_what_is_no_image(inspect, content):
    with pytest.raises(UnsupportedType, match="png"):
        inspect(content)


def test_formats_that_are_not_allowed(inspect):
    with pytest.raises(UnsupportedType):
        inspect((photographs.folder() / "no_time_for_that_tiny.gif").read_bytes())
    with pytest.raises(UnsupportedType, match=r"accepted: jpg\."):
        inspect(photographs.photograph("png"), formats_for(("jpg",)))


def test_a_bitmap_without_its_file_header_is_none(inspect):
    with pytest.raises(UnsupportedType):
        inspect(photographs.photograph("bmp")[14:])


def test_a_bomb_is_refused_by_its_header(inspect):
    began = time.monotonic()
    with pytest.raises(TooManyPixels, match="50000000"):
        inspect(photographs.png_bomb())
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(("width", "refused"), [(1000, False), (1001, True), (2000, True)])
def test_the_limit_is_exact(inspect, width, refused):
    pillow_setup.prepare(1000 * 10)
    content = photographs.unique("png", width=width, height=10)
    if refused:
        with pytest.raises(TooManyPixels, match="10000"):
            inspect(content)
    else:
        assert inspect(content).width == width


def test_the_limit_holds_when_somebody_silences_warnings(inspect, opened):
    pillow_setup.prepare(1000 * 10)
    warnings.simplefilter("ignore")
    content = photographs.unique("png", width=1001, height=10)
    with pytest.raises(TooManyPixels):
        inspect(content)
    with pytest.raises(TooManyPixels):
        opened(content)


def test_what_pillow_only_warns_of_is_accepted(inspect):
    # An entry of the directory says that its data is a megabyte, which the file is not.
    content = bytearray(photographs.oriented(6, "tif"))
    entry = content.index(b"\x12\x01\x03\x00\x01\x00\x00\x00")
    content[entry : entry + 12] = b"\x0e\x01\x02\x00\x00\x00\x10\x00\x08\x00\x00\x00"
    found = inspect(bytes(content))
    assert found.format.extension == "tif"


def test_a_file_that_is_not_there_is_no_broken_image(tmp_path):
    with pytest.raises(FileNotFoundError):
        images.open_displayed(tmp_path / "gone")


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


def test_no_file_stays_open(inspect, opened):
    inspect(photographs.photograph("png"))  # whatever is loaded once is loaded now
    before = open_files()
    kept = []
    for extension in photographs.EXTENSIONS:
        content = photographs.photograph(extension)
        inspect(content)
        kept.append(opened(content))
        for part in (content[:40], photographs.truncated(content, 0.6)):
            with pytest.raises(RefusedFile):
                inspect(part)
    for content in (photographs.mpo(), photographs.animated("tif"), photographs.animated("webp")):
        inspect(content)
        kept.append(opened(content))
    with pytest.raises(TooManyPixels):
        inspect(photographs.png_bomb())
    assert open_files() == before


def test_pictures_can_be_used_after_their_file_is_gone(opened, tmp_path):
    for extension in photographs.EXTENSIONS:
        picture = opened(photographs.photograph(extension))
        (tmp_path / "incoming").unlink()
        assert picture.convert("L").resize((4, 4)).getextrema() != (0, 0)


def test_G11_libtiff_writes_nothing_between_the_lines_of_the_log(inspect, opened, capfd):
    content = bytearray(photographs.compressed_tiff("tiff_adobe_deflate"))
    content[20:30] = bytes(10)
    for act in (inspect, opened):
        with pytest.raises(Undecodable):
            act(bytes(content))
    assert capfd.readouterr().err == ""


def test_extensions_stand_for_formats():
    chosen = formats_for(("TIFF", ".jpeg", "png"))
    assert [format.extension for format in chosen] == ["jpg", "png", "tif"]
    with pytest.raises(ValueError, match="exe"):
        formats_for(("png", "exe"))


@pytest.mark.parametrize("extension", ["gif", "avif", "heic", "heif"])
def test_more_formats_can_be_switched_on(inspect, tmp_path, extension):
    content = odd_images.HEIC if "he" in extension else photographs.encode_as(extension.upper())
    with pytest.raises(UnsupportedType):
        inspect(content)
    found = inspect(content, formats_for((extension,)))
    assert found.format.content_type in (f"image/{extension}", "image/heic")
    assert images.open_displayed(tmp_path / "incoming").size == (found.width, found.height)


WITHOUT_PI_HEIF = """
import sys
sys.modules["pi_heif"] = None  # as if it were not installed
from clustr.imaging import pillow_setup
from clustr.imaging.formats import formats_for
pillow_setup.prepare(1000)
"""


def test_a_format_that_nothing_installed_reads_says_how_to_get_it():
    script = f"{WITHOUT_PI_HEIF}formats_for(('gif', 'heif'))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.endswith("ValueError: heic: cannot be read here; install pi-heif\n")


def test_a_format_that_nobody_asked_for_and_nothing_installed_reads_is_left_out():
    script = (
        f"{WITHOUT_PI_HEIF}from clustr import logs\n"
        "logs.configure('json', 'info')\n"
        "found = formats_for(('gif', 'heic', 'heif', 'png'), leave_out=True)\n"
        "print(*(format.extension for format in found))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *logged, printed = (ran.stderr + ran.stdout).splitlines()
    assert printed == "png gif"
    [line] = map(json.loads, logged)
    assert (line["event"], line["level"]) == ("format_left_out", "warning")
    assert line["reason"] == "heic: cannot be read here; install pi-heif"


def test_pictures_share_memory_and_a_large_one_gets_its_turn():
    """Those that come after a large one that waits do not get in before it."""
    memory = decode_limits.MemoryBudget(100)
    order: list[str] = []

    def decode(name: str, size_bytes: int) -> None:
        with memory.reserved(size_bytes):
            order.append(name)

    threads = []
    with memory.reserved(60):
        with memory.reserved(40):
            pass
        for place, (name, size_bytes) in enumerate([("large", 1000), ("next", 10), ("last", 90)]):
            threads.append(threading.Thread(target=decode, args=(name, size_bytes), daemon=True))
            threads[-1].start()
            wait_until(lambda place=place: len(memory._waiting) == place + 1, 10, f"{name} in line")
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == ["large", "next", "last"]


def test_a_small_picture_does_not_wait_for_large_ones():
    with decode_limits.memory_for(850_000_000), decode_limits.memory_for(10_000_000):
        pass


@pytest.mark.parametrize("name", odd_images.TOO_DEAR)
def test_what_takes_too_long_for_its_bytes_is_refused_before_it_is_decoded(inspect, name):
    content = odd_images.odd(name)
    began = time.process_time()
    with pytest.raises(TooManyPixels, match=f"in a file of {len(content)} bytes"):
        inspect(content, limit_time=True)
    assert time.process_time() - began < 0.25


def test_what_was_stored_before_is_not_judged_by_its_decode_time(inspect):
    found = inspect(odd_images.odd("a WebP of 36 megapixels in 34 bytes"))
    assert (found.width, found.height) == (6000, 6000)


@pytest.mark.parametrize(
    ("extension", "mode", "options"),
    [
        ("webp", "RGB", {"quality": 50}),
        ("png", "RGBA", {}),
        ("png", "RGB", {}),
        ("png", "L", {}),
        ("png", "1", {}),
        ("tif", "1", {"compression": "group4"}),
        ("tif", "RGB", {"compression": "tiff_adobe_deflate"}),
        ("jpg", "RGB", {"progressive": True}),
        ("jpg", "L", {}),
    ],
)
def test_a_large_page_without_a_word_on_it_is_accepted(inspect, extension, mode, options):
    """No picture that people make is emptier than this one, of 48 megapixels."""
    page = photographs.encode(Image.new(mode, (8000, 6000)), extension, **options)
    found = inspect(page, FORMATS, limit_time=True)
    assert (found.width, found.height) == (8000, 6000)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"GIF89a" + bytes(20), "GIF"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"\0\0\0\x18ftypmp42" + bytes(20), "MP4 or QuickTime"),
        (b"<!DOCTYPE html><p>", "HTML"),
        (b"\n  <svg xmlns=''/>", "SVG"),
    ],
)
def test_a_refused_file_is_called_what_it_is(inspect, content, kind):
    with pytest.raises(UnsupportedType, match=f"kind {kind}.* accepted: jpg, png"):
        inspect(content)


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
    deadline=2000,
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
