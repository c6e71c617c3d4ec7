"""`as_sent`: the JPEG of an image that services are sent."""

import io
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import photographs
import PIL.Image
import pytest
from analyzer_images import IMAGE_ID, analyzer_image
from PIL import ImageChops, ImageCms, ImageStat

from clustr.plugins import Fail, Image, as_sent
from clustr.plugins.pixel_formats import to_rgb

SECRET = b"48.8584 N, 2.2945 E"


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., Image]:
    """Makes an image as analyzers get it of the content of a file."""

    return partial(analyzer_image, tmp_path)


def sent_picture(image: Image, **options: int) -> PIL.Image.Image:
    """The picture that is sent, after checks that hold for all of them."""
    name, content, content_type = as_sent(image, **options)
    assert (name, content_type) == (f"{IMAGE_ID}.jpg", "image/jpeg")
    picture = PIL.Image.open(io.BytesIO(content))
    assert picture.format == "JPEG"
    assert picture.mode in ("RGB", "L")
    assert not {"exif", "icc_profile", "comment", "xmp", "mp"} & set(picture.info)
    assert SECRET not in content
    return picture


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


PLAIN = photographs.photograph("jpg")


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        photographs.photograph("jpg", "camera"),
        photographs.progressive_jpeg(),
        photographs.photograph("jpg", "retina", 1411),
        photographs.unique("jpg", width=2048, height=16),
    ],
)
def test_a_plain_jpeg_goes_as_it_is(image, content):
    assert as_sent(image(content))[1] == content


@pytest.mark.parametrize(
    "content",
    [
        with_segments(PLAIN, segment(0xE1, b"Exif\0\0" + SECRET)),
        with_segments(PLAIN, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET)),
        with_segments(PLAIN, segment(0xED, SECRET), segment(0xFE, SECRET), segment(0xEF, SECRET)),
        with_segments(PLAIN, segment(0xE0, b"JFXX\0" + SECRET), segment(0xEE, SECRET)),
        with_segments(PLAIN, segment(0xE2, b"FPXR\0" + SECRET), b"\xff" * 7),
        PLAIN + SECRET,
        PLAIN + bytes(100_000) + with_segments(PLAIN, segment(0xE1, SECRET)),
    ],
)
def test_metadata_is_cut_out_and_nothing_is_decoded(image, content):
    name, sent, _ = as_sent(image(content))
    assert name == f"{IMAGE_ID}.jpg"
    assert sent.replace(b"\xff" * 7, b"") == PLAIN


def test_the_marks_of_the_colors_stay(image):
    """An Adobe segment says that the three components are red, green and blue."""
    file = io.BytesIO()
    photographs.picture().save(file, "JPEG", keep_rgb=True)
    assert b"Adobe" in file.getvalue()
    assert as_sent(image(file.getvalue()))[1] == file.getvalue()


def test_an_upright_orientation_and_a_profile_of_srgb_are_cut_out(image):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = PIL.Image.Exif()
    exif[0x0112] = 1
    content = photographs.encode(photographs.picture(), "jpg", exif=exif, icc_profile=profile)
    assert as_sent(image(content))[1] == PLAIN


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("extension", ["jpg", "tif"])
def test_a_picture_that_lies_on_its_side_is_sent_upright(image, orientation, extension):
    sent = sent_picture(image(photographs.oriented(orientation, extension), extension))
    assert_alike(sent, photographs.picture())


def assert_alike(sent: PIL.Image.Image, expected: PIL.Image.Image) -> None:
    expected = expected.convert("RGB")
    assert sent.size == expected.size
    assert max(ImageStat.Stat(ImageChops.difference(sent.convert("RGB"), expected)).mean) < 8


@pytest.mark.parametrize(
    ("content", "extension", "name", "width"),
    [
        (photographs.photograph("png"), "png", "cat", 160),
        (photographs.photograph("webp"), "webp", "cat", 160),
        (photographs.photograph("tif"), "tif", "cat", 160),
        (photographs.photograph("bmp"), "bmp", "cat", 160),
        (photographs.photograph("png", "camera"), "png", "camera", 160),
        (photographs.cmyk("jpg"), "jpg", "coffee", 160),
        (photographs.grey_16_bit("png"), "png", "camera", 120),
        (photographs.grey_16_bit("tif"), "tif", "camera", 120),
        (photographs.grey_16_bit_big_endian(), "tif", "camera", 120),
        (photographs.colour_16_bit(), "png", "coffee", 96),
        (photographs.floating_point(), "tif", "camera", 96),
    ],
)
def test_the_jpeg_looks_like_the_original(image, content, extension, name, width):
    assert_alike(sent_picture(image(content, extension)), photographs.picture(name, width))


@pytest.mark.parametrize(
    ("content", "extension"),
    [
        (photographs.compressed_tiff("tiff_lzw"), "tif"),
        (photographs.bilevel("tif"), "tif"),
        (photographs.cmyk("tif"), "tif"),
        (photographs.palette("png"), "png"),
        (photographs.one_pixel("png"), "png"),
        (photographs.animated("webp"), "webp"),
        (photographs.mpo(), "jpg"),
    ],
)
def test_everything_becomes_a_plain_jpeg(image, content, extension):
    sent_picture(image(content, extension))


@pytest.mark.parametrize("padding", [bytes(4000), b"\xff" * 7])
def test_bytes_between_segments_do_not_become_the_beginning(image, padding):
    padded = with_segments(PLAIN, segment(0xFE, SECRET), padding)
    sent_picture(image(padded)).load()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_data_is_cut_out(image):
    sent = as_sent(image(photographs.broken_exif()))[1]
    assert b"Exif" in photographs.broken_exif()
    assert b"Exif" not in sent
    assert_alike(PIL.Image.open(io.BytesIO(sent)), photographs.picture())


@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_what_is_clear_is_white(image, extension):
    sent = sent_picture(image(photographs.transparent(extension), extension))
    assert min(sent.getpixel((sent.width - 3, 50))) > 250
    assert min(sent.getpixel((3, 50))) < 250


@pytest.mark.parametrize(
    ("width", "height", "sent_size"),
    [(2049, 64, (1024, 32)), (40, 4097, (10, 1024)), (1, 5000, (1, 1024)), (1000, 9, (1000, 9))],
)
@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_large_sides_are_made_smaller(image, width, height, sent_size, extension):
    content = photographs.unique(extension, width=width, height=height)
    assert sent_picture(image(content, extension)).size == sent_size


def test_the_longest_side_can_be_chosen(image):
    retina = image(photographs.photograph("jpg", "retina", 1411))
    assert sent_picture(retina, max_side=512).size == (512, 512)
    assert sent_picture(retina, max_side=706).size == (1411, 1411)


def test_colors_of_another_profile_are_converted(image):
    lab = ImageCms.createProfile("LAB")
    gray = bytes(range(256))
    picture = PIL.Image.frombytes("L", (16, 16), gray)
    content = photographs.encode(picture, "jpg", icc_profile=b"broken")
    assert len(as_sent(image(content))[1]) < len(content)  # It is ignored, as browsers do.
    profile = ImageCms.ImageCmsProfile(lab).tobytes()
    content = photographs.encode(photographs.picture(), "jpg", icc_profile=profile)
    assert_alike(sent_picture(image(content)), photographs.picture())


def test_originals_are_sent_to_who_asks_for_them(image):
    content = photographs.oriented(6, "tif")
    sent = as_sent(image(content, "tif"), converts=False)
    assert sent == (f"{IMAGE_ID}.tif", content, "image/tiff")


def test_16_bits_are_scaled_and_not_clipped():
    values = [0, 256, 1000, 32768, 65535]
    picture = PIL.Image.new("I;16", (len(values), 1))
    for x, value in enumerate(values):
        picture.putpixel((x, 0), value)
    scaled = to_rgb(picture)
    for x, value in enumerate(values):
        assert all(abs(each - value / 257) <= 1 for each in scaled.getpixel((x, 0)))


@pytest.mark.parametrize("extension", ["tif", "png"])
def test_an_image_that_cannot_be_decoded_fails(image, extension):
    content = photographs.truncated(photographs.photograph(extension), 0.5)
    with pytest.raises(Fail, match="broken or incomplete"):
        as_sent(image(content, extension))
