"""How much memory pictures take that are decoded, and what libvips may do and does."""

import functools
import io
import os
import signal
import threading
from pathlib import Path

import photographs
import pytest
from fork_server import run_program
from PIL import Image, ImageChops, ImageStat
from running import wait_until

from clustr.domain.errors import RefusedFile, Undecodable
from clustr.imaging import (
    color_management,
    decode_limits,
    decoding,
    formats,
    images,
    libvips,
    thumbnails,
)

SECONDS = 120

# Decodes the pictures that are named, all at once, and prints by how many megabytes it has grown.
DECODER = """
import sys, threading
from pathlib import Path
from clustr.imaging import decode_limits, decoding, formats, images, pillow_setup, thumbnails
pillow_setup.prepare(50_000_000)
decode_limits.limit_memory(int(sys.argv[2]))
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(each for each in lines if each.startswith(name)).split()[1]) * 1024 / 1e6
def decode(path):
    with open(path, "rb") as file:
        if sys.argv[1] == "check":
            images.inspect(file, formats.FORMATS)
        elif sys.argv[1] == "whole":
            images.open_displayed(Path(path))
        else:
            assert list(thumbnails.make_thumbnails(file, lambda: [(300, "jpg"), (1600, "jpg")]))
before = memory("VmRSS")
threads = [threading.Thread(target=decode, args=(path,)) for path in sys.argv[3:]]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(memory("VmHWM") - before)
"""


def grown(what: str, memory_bytes: int, *paths: Path) -> float:
    """Megabytes by which a process grows at most that decodes these pictures at once."""
    arguments = ["-c", DECODER, what, str(memory_bytes), *map(str, paths)]
    ran = run_program(arguments, {}, Path.cwd(), SECONDS)
    assert ran.returncode == 0, ran.stderr
    return float(ran.stdout)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[str, Path]:
    """A picture of 40 megapixels in several formats, packed as fast as each can be."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = Image.effect_noise((80, 50), 60)
    small = Image.merge("RGB", (noise, noise.rotate(180), noise))
    picture = small.resize((8000, 5000), Image.Resampling.NEAREST)
    options = {
        "lossless.webp": {"lossless": True, "method": 0, "quality": 0},
        "png": {"compress_level": 0},
        "webp": {"method": 0},
        "tif": {"compression": "packbits"},
        "jpg": {},
        "progressive.jpg": {"progressive": True},
    }
    paths = {name: folder / f"picture.{name}" for name in options}
    for name, path in paths.items():
        picture.save(path, **options[name])
    return paths


@pytest.mark.parametrize("what", ["check", "thumbnails"])
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("png", 100),
        ("webp", 110),
        ("lossless.webp", 330),
        ("tif", 100),
        ("jpg", 60),
        ("progressive.jpg", 200),
    ],
)
def test_a_large_picture_takes_what_is_counted_for_it(pictures, what, name, most):
    """A decode as a whole would be 160 MB or more, and 640 MB for a WebP."""
    assert 0 < grown(what, 400_000_000, pictures[name]) < most


def test_a_large_png_that_is_needed_whole_takes_little_more_than_its_pixels(pictures):
    """They are 160 MB."""
    assert 160 < grown("whole", 400_000_000, pictures["png"]) < 220


def test_pictures_that_are_decoded_at_once_stay_within_the_memory_for_that(tmp_path):
    """One of 12 megapixels takes 48 MB: of six at once three have room, and not six."""
    small = Image.effect_noise((40, 30), 60).convert("RGB")
    picture = small.resize((4000, 3000), Image.Resampling.NEAREST)
    path = tmp_path / "picture.png"
    picture.save(path, compress_level=0)
    assert 80 < grown("thumbnails", 200_000_000, *[path] * 6) < 250


def test_those_that_need_more_than_there_is_are_decoded_one_after_the_other(pictures):
    """80 MB each for the coefficients of a progressive JPEG, of which the share is a half."""
    one = grown("check", 60_000_000, pictures["progressive.jpg"])
    assert one > 60
    assert grown("check", 60_000_000, *[pictures["progressive.jpg"]] * 4) < 1.5 * one


# Turns of processes


def forked(act) -> int:
    """Run that in a fork, which ends with it."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return pid


def test_a_large_picture_waits_for_those_of_other_processes_and_for_none_that_is_dead():
    lock = decode_limits.HostLock()
    reading, written = os.pipe()

    def hold() -> None:
        with lock.held(exclusive=False):
            os.write(written, b"x")
            signal.pause()

    other = forked(hold)
    assert os.read(reading, 1) == b"x"
    order: list[str] = []

    def decode(name: str, exclusive: bool) -> None:
        with lock.held(exclusive):
            order.append(name)

    with lock.held(exclusive=False):
        order.append("beside the other")
    large = threading.Thread(target=decode, args=("large", True), daemon=True)
    large.start()
    gate = f":{os.fstat(lock._gate).st_ino} "  # as /proc/locks has it: device and inode
    wait_until(
        lambda: gate in Path("/proc/locks").read_text(), SECONDS, "the large one at the gate"
    )
    later = threading.Thread(target=decode, args=("later", False), daemon=True)
    later.start()
    assert order == ["beside the other"]
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    large.join(SECONDS)
    later.join(SECONDS)
    assert order == ["beside the other", "large", "later"]


# What libvips may do


def test_libvips_reads_three_formats_and_writes_none(tmp_path):
    pyvips = libvips.libvips()
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    contents = {"svg": svg, "csv": b"1,2\n3,4\n", "gif": photographs.encode_as("GIF")}
    contents |= {each: photographs.photograph(each) for each in ("jpg", "bmp")}
    for name, content in contents.items():
        path = tmp_path / f"picture.{name}"
        path.write_bytes(content)
        with pytest.raises(pyvips.Error):
            pyvips.Image.new_from_file(str(path))
        with pytest.raises(pyvips.Error):
            pyvips.Image.new_from_buffer(content, "")
    with pytest.raises(pyvips.Error, match="blocked"):
        pyvips.Image.svgload_buffer(svg)
    black = pyvips.Image.black(9, 9)
    for name in ("png", "tif", "webp", "v"):
        with pytest.raises(pyvips.Error):
            black.write_to_file(str(tmp_path / f"written.{name}"))
    for name in ("png", "tif", "webp"):
        path = tmp_path / f"read.{name}"
        path.write_bytes(photographs.photograph(name))
        assert pyvips.Image.new_from_file(str(path)).width == 160


FORKS = """
import os, signal, sys
from clustr.imaging import decoding, formats, images, pillow_setup, thumbnails
pillow_setup.prepare(50_000_000)
def decode():
    with open(sys.argv[1], "rb") as file:
        assert list(thumbnails.make_thumbnails(file, lambda: [(300, "jpg")]))
signal.alarm(110)
for before in (False, True):  # whether it has decoded, and has threads, when it is forked
    if before:
        decode()
    pids = []
    for _ in range(2):
        pids.append(os.fork())
        if not pids[-1]:
            signal.alarm(100)
            decode()
            os._exit(7)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [7, 7], codes
print("done")
"""


def test_pictures_are_decoded_on_both_sides_of_a_fork(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded("png"))
    ran = run_program(["-c", FORKS, str(path)], {}, tmp_path, SECONDS)
    assert ran.stdout == "done\n", ran.stderr


# What becomes of a picture


@functools.cache
def long(mode: str = "RGB") -> Image.Image:
    """A picture that is long enough to be reduced by libvips, in this mode."""
    if mode == "RGB":
        return photographs.picture("coffee", None).resize((5000, 500))
    picture = long()
    if mode in ("LA", "RGBA"):
        picture = picture.convert(mode)
        fading = Image.linear_gradient("L").rotate(90).resize(picture.size)
        picture.putalpha(fading)
        return picture
    return picture.quantize(64) if mode == "P" else picture.convert(mode)


FASTEST = {"png": {"compress_level": 1}, "webp": {"method": 0}, "tif": {}}


def encoded(extension: str, mode: str = "RGB", **options) -> bytes:
    """That picture, packed as fast as the format allows."""
    return photographs.encode(long(mode), extension, **{**FASTEST[extension], **options})


KINDS = [
    *(("png", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    ("png", "RGB", {"transparency": (255, 0, 255)}),
    ("png", "P", {"transparency": 3}),
    *(("tif", mode, {}) for mode in ("L", "RGB", "RGBA", "CMYK", "P")),
    *(("tif", "RGB", {"compression": each}) for each in ("tiff_lzw", "tiff_adobe_deflate")),
    *(("webp", mode, {"quality": 95}) for mode in ("RGB", "RGBA")),
]


@pytest.mark.parametrize(("extension", "mode", "options"), KINDS)
def test_it_looks_as_pillow_reduces_it(tmp_path, extension, mode, options):
    content = encoded(extension, mode, **options)
    path = tmp_path / "original"
    path.write_bytes(content)
    with path.open("rb") as file:
        image = Image.open(file)
        assert libvips.can_read(image, decoding.ALL_THUMBNAILS)
        found = libvips.read_reduced(file, image, decoding.ALL_THUMBNAILS)
    whole = color_management.plain(Image.open(io.BytesIO(content)))
    mode = "CMYK" if whole.mode == "CMYK" else "RGBA"
    expected = whole.resize(found.size, Image.Resampling.BOX).convert(mode)
    found = found.convert(mode)
    if mode == "RGBA":  # What is clear has no color.
        found, expected = (_on_grey(each) for each in (found, expected))
    apart = ImageStat.Stat(ImageChops.difference(found, expected)).mean
    assert max(apart) < 2


def _on_grey(image: Image.Image) -> Image.Image:
    grey = Image.new("RGBA", image.size, "grey")
    return Image.alpha_composite(grey, image)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_whole_png_has_the_pixels_and_the_metadata_that_pillow_reads(tmp_path, mode):
    path = tmp_path / "original.png"
    path.write_bytes(encoded("png", mode, dpi=(300, 300)))
    with path.open("rb") as file, Image.open(path) as image:
        assert libvips.can_read_whole(image)
        by_rows = libvips.read_whole(file, image)
        assert (by_rows.mode, by_rows.tobytes()) == (mode, image.tobytes())
        found = images.open_displayed(path)
        assert (found.mode, found.tobytes(), found.info) == (mode, image.tobytes(), image.info)


@pytest.mark.parametrize(
    ("mode", "options"),
    [("1", {}), ("P", {}), ("P", {"transparency": 3}), ("RGB", {"transparency": (255, 0, 255)})],
)
def test_a_whole_png_whose_pixels_libvips_gives_in_another_mode_is_left_to_pillow(mode, options):
    assert not libvips.can_read_whole(Image.open(io.BytesIO(encoded("png", mode, **options))))


def test_sixteen_bits_are_reduced_too(tmp_path):
    """Pillow keeps the upper ones of colors, and so does libvips here."""
    rows = long().tobytes()
    samples = bytearray(2 * len(rows))
    samples[::2], samples[1::2] = rows, bytes([77]) * len(rows)
    chunked = b"".join(b"\0" + samples[at : at + 30_000] for at in range(0, len(samples), 30_000))
    path = tmp_path / "original.png"
    path.write_bytes(photographs.png(5000, 500, photographs.zlib.compress(chunked, 1), 16))
    with path.open("rb") as file:
        image = Image.open(file)
        assert not libvips.can_read_whole(image)
        assert libvips.can_read(image, decoding.ALL_THUMBNAILS)
        found = libvips.read_reduced(file, image, decoding.ALL_THUMBNAILS)
    expected = long().resize(found.size, Image.Resampling.BOX)
    assert max(ImageStat.Stat(ImageChops.difference(found, expected)).mean) < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_a_large_picture_is_upright(tmp_path, extension, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # of Image.Transpose
    upright = long()
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    path = tmp_path / "original"
    path.write_bytes(photographs.encode(stored, extension, exif=exif, **FASTEST[extension]))
    with path.open("rb") as file:
        inspected = images.inspect(file, formats.FORMATS)
        [(_, content)] = thumbnails.make_thumbnails(file, lambda: [(400, "webp")])
    assert (inspected.width, inspected.height) == upright.size
    if extension == "png":
        assert images.open_displayed(path).tobytes() == upright.tobytes()
    shown = Image.open(io.BytesIO(content)).convert("RGB")
    assert shown.size == (400, 40)
    apart = ImageStat.Stat(ImageChops.difference(shown, upright.resize(shown.size))).mean
    assert max(apart) < 12


@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_what_libvips_takes_for_sound_pillow_can_read(tmp_path, extension):
    """Analyzers can read what was accepted."""
    content = encoded(extension, **({"compression": "tiff_lzw"} if extension == "tif" else {}))
    path = tmp_path / "original"
    refused = 0
    for number in range(20):
        broken = bytearray(content)
        place = len(content) * number // 20
        if number % 2:
            del broken[place:]
        else:
            broken[place] ^= 0xFF
        path.write_bytes(broken)
        try:
            with path.open("rb") as file:
                images.inspect(file, formats.FORMATS)
        except RefusedFile:
            refused += 1
        else:
            images.open_displayed(path)
    assert refused >= 9


@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_of_a_large_picture_that_is_broken_nothing_is_made(tmp_path, extension):
    content = encoded(extension)
    path = tmp_path / "original"
    path.write_bytes(content[: len(content) // 2])
    with path.open("rb") as file, pytest.raises(Undecodable):
        list(thumbnails.make_thumbnails(file, lambda: [(300, "jpg")]))


# One of another


def test_a_thumbnail_is_made_of_one_that_is_four_times_larger_and_tells_its_sides(tmp_path):
    def smaller(width: int, height: int, size: int) -> tuple[int, int] | None:
        path = tmp_path / "larger"
        path.write_bytes(photographs.encode(long().resize((width, height)), "webp"))
        with path.open("rb") as file:
            made = thumbnails.reduce_thumbnail(file, size, "webp")
        return made and Image.open(io.BytesIO(made)).size

    assert smaller(1600, 1067, 400) == (400, 267)
    assert smaller(1067, 1600, 300) == (200, 300)
    assert smaller(1600, 1067, 600) is None
    assert smaller(400, 267, 100) == (100, 67)
    assert smaller(400, 267, 200) is None  # which could be 133 or 134 pixels high
