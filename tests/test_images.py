"""What is an image and what is not, tried on real photographs and on all that can be wrong."""

import json
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import odd_images
import photographs
import pytest
from PIL import Image, ImageChops, ImageStat
from running import wait_until

from clustr.domain.errors import Empty, RefusedFile, TooManyPixels, UnsupportedType
from clustr.imaging import decode_limits, images, pillow_setup
from clustr.imaging.decoding import displayed_size
from clustr.imaging.formats import FORMATS, formats_for

pytestmark = pytest.mark.usefixtures("prepared")


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
    began = time.thread_time()
    with pytest.raises(TooManyPixels, match="50000000"):
        inspect(photographs.png_bomb())
    assert time.thread_time() - began < 0.5


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


def test_a_file_that_is_not_there_is_no_broken_image(tmp_path):
    with pytest.raises(FileNotFoundError):
        images.open_displayed(tmp_path / "gone")


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
            wait_until(lambda place=place: len(memory._waiting) == place + 1, 60, f"{name} in line")
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
    began = time.thread_time()
    with pytest.raises(TooManyPixels, match=f"in a file of {len(content)} bytes"):
        inspect(content, limit_time=True)
    assert time.thread_time() - began < 0.25


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
