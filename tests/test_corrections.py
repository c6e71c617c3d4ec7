"""What Pillow leaves out of pictures or gets wrong, and what is shown and analyzed here."""

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import color_profiles
import numpy as np
import odd_images
import photographs
import pytest
import tifffile
from PIL import Image

from clustr.imaging import images, pillow_setup
from clustr.imaging.decoding import displayed_size
from clustr.imaging.formats import FORMATS
from clustr.imaging.thumbnails import make_thumbnails
from clustr.plugins import to_rgba

MAX_PIXELS = 50_000_000
WIDTH, HEIGHT = 64, 48
RAMP = np.tile(np.linspace(0, 1, WIDTH, dtype=np.float32), (HEIGHT, 1))


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # put back afterwards
    with warnings.catch_warnings():
        pillow_setup.prepare(MAX_PIXELS)
        yield


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[bytes], Image.Image]:
    """The picture as an analyzer is given it; its size has to be what the upload's is."""

    def opened(content: bytes) -> Image.Image:
        path = tmp_path / "picture"
        path.write_bytes(content)
        picture = images.open_displayed(path)
        with path.open("rb") as file:
            found = images.inspect(file, FORMATS)
            [(_, made)] = make_thumbnails(file, lambda: [(1600, "webp")])
        small = Image.open(io.BytesIO(made))
        by_header = displayed_size(path)
        assert (found.width, found.height) == by_header == picture.size == small.size
        return picture

    return opened


def tiff(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def middle_row(picture: Image.Image) -> list[int]:
    """The brightness of the pixels from left to right."""
    shown = np.asarray(to_rgba(picture))[picture.height // 2]
    assert (shown[:, 3] == 255).all()
    return shown[:, 0].astype(int).tolist()


def is_ramp(shades: list[int]) -> bool:
    return np.abs(np.array(shades) - np.linspace(0, 255, len(shades))).max() < 3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero(opened, order, compression):
    values = ((1 - RAMP) * 65535).astype(np.uint16)
    options = {"byteorder": order, "compression": compression}
    picture = opened(tiff(values, photometric="miniswhite", **options))
    assert picture.mode.startswith("I;16")  # with all its bits
    assert is_ramp(middle_row(picture))


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (5, 5)])
@pytest.mark.parametrize("brightest", [1, 7000])
def test_one_value_that_is_no_number_leaves_the_others(opened, strange, place, brightest):
    values = RAMP * brightest
    values[place] = strange
    picture = opened(tiff(values, photometric="minisblack"))
    assert picture.mode == "F"
    assert is_ramp(middle_row(picture))
    expected = 255 if strange == np.inf else 0
    assert to_rgba(picture).getpixel(place)[0] == expected


def test_a_value_that_is_no_number_far_from_the_brightest(opened):
    values = np.zeros((1000, WIDTH), np.float32)
    values[0, 0], values[1, 1], values[999] = np.nan, np.inf, RAMP[0] * 70
    picture = to_rgba(opened(tiff(values, photometric="minisblack")))
    assert is_ramp([picture.getpixel((x, 999))[0] for x in range(WIDTH)])


def test_only_what_is_no_number_is_black(opened):
    picture = opened(tiff(np.full_like(RAMP, np.nan), photometric="minisblack"))
    assert middle_row(picture) == [0] * WIDTH


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("bits", [8, 16])
def test_planes(opened, order, compression, tile, bits):
    most = (1 << bits) - 1
    planes = np.stack([RAMP * most, RAMP[:, ::-1] * most, RAMP * most // 2])
    planes = planes.astype(np.uint16 if bits == 16 else np.uint8)
    options = {"byteorder": order, "compression": compression, "tile": tile}
    content = tiff(planes, photometric="rgb", planarconfig="separate", **options)
    red, green, blue = np.moveaxis(np.asarray(opened(content)).astype(int), 2, 0)
    assert np.abs(red - RAMP * 255).max() < 2
    assert np.abs(green - RAMP[:, ::-1] * 255).max() < 2
    assert np.abs(blue - RAMP * 127).max() < 2


def gif() -> bytes:
    """One frame in the middle of a canvas, on a background that is one of its colors."""
    file = io.BytesIO()
    Image.new("RGB", (10, 10), "teal").quantize(2).save(file, "GIF")
    return odd_images.small_frame(file.getvalue(), (30, 20), 10, 5)


def test_what_the_frame_of_a_gif_does_not_cover_is_clear(opened):
    alpha = np.asarray(opened(gif()))[..., 3]
    expected = np.zeros((20, 30))
    expected[5:15, 10:20] = 255
    assert (alpha == expected).all()


# The right half, and the middle: width, height and place of the middle, each a fraction.
APERTURES = {
    "right half": ((32, 1, 48, 1, 16, 1, 0, 1), (32, 0, 64, 48)),
    "middle": ((60, 2, 20, 1, 0, 1, -4, 1), (17, 10, 47, 30)),
    "all": ((64, 1, 48, 1, 0, 1, 0, 1), (0, 0, 64, 48)),
    "more than all": ((70, 1, 48, 1, 0, 1, 0, 1), (0, 0, 64, 48)),
    "nothing": ((0, 1, 48, 1, 0, 1, 0, 1), (0, 0, 64, 48)),
    "no number": ((32, 0, 48, 1, 0, 1, 0, 1), (0, 0, 64, 48)),
}


def avif(**options) -> bytes:
    file = io.BytesIO()
    photographs.picture("cat", None).resize((64, 48)).save(file, "AVIF", quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", APERTURES)
def test_clean_aperture(opened, name):
    numbers, box = APERTURES[name]
    whole, cut = opened(avif()), opened(odd_images.clean_aperture(avif(), *numbers))
    assert cut.tobytes() == whole.crop(box).tobytes()


def test_clean_aperture_of_a_picture_that_is_turned(opened):
    exif = Image.Exif()
    exif[0x0112] = 6
    numbers, box = APERTURES["right half"]
    cut = opened(odd_images.clean_aperture(avif(exif=exif), *numbers))
    expected = opened(avif()).crop(box).transpose(Image.Transpose.ROTATE_270)
    assert cut.size == expected.size == (48, 32)
    assert cut.tobytes() == expected.tobytes()


def test_an_analyzer_sees_colors_in_srgb_and_gray_with_all_its_bits(opened, tmp_path):
    profile = color_profiles.rgb("P3", color_profiles.DISPLAY_P3, color_profiles.srgb_curve)
    shown = opened(
        photographs.encode(Image.new("RGB", (9, 9), (200, 60, 50)), "png", icc_profile=profile)
    )
    assert shown.mode == "RGB"
    assert np.abs(np.array(shown.getpixel((4, 4))) - (217, 42, 39)).max() <= 2
    assert "icc_profile" not in shown.info
    as_stored = images.open_displayed(tmp_path / "picture", color_managed=False)
    assert as_stored.getpixel((4, 4)) == (200, 60, 50)
    for content in (photographs.cmyk("jpg"), photographs.cmyk("tif")):
        assert opened(content).mode == "RGB"
    assert opened(photographs.palette("png")).mode == "P"
    assert opened(photographs.grey_16_bit("png")).mode == "I;16"
