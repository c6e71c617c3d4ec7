"""What thumbnails look like, whatever they are made of."""

import io

import photographs
import pytest
from PIL import Image, ImageCms
from thumbnail_checks import FORMATS, difference, made, opened

from clustr.domain.errors import Undecodable
from clustr.imaging.thumbnails import make_thumbnails


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", ["jpg", "png", "webp", "tif"])
def test_it_is_upright(tmp_path, orientation, stored, extension):
    content = photographs.oriented(orientation, stored)
    shown = made(content, 100, extension, tmp_path)
    expected = photographs.picture("cat", 160).resize(shown.size)
    assert shown.size == (100, 66)
    assert difference(shown, expected) < 8
    assert "exif" not in shown.info


def test_it_is_upright_when_that_is_said_behind_the_pixels(tmp_path):
    shown = made(photographs.oriented_behind_pixels(), 100, "jpg", tmp_path)
    assert difference(shown, photographs.picture("cat", 160).resize((100, 66))) < 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # which the service does not hear of, either
@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize(
    ("kind", "like"),
    [
        (photographs.cmyk, "coffee"),
        (photographs.grey_16_bit, "camera"),
        (lambda: photographs.grey_16_bit("tif"), "camera"),
        (photographs.grey_16_bit_big_endian, "camera"),
        (photographs.colour_16_bit, "coffee"),
        (photographs.floating_point, "camera"),
        (photographs.palette, "coffee"),
        (lambda: photographs.palette("tif"), "coffee"),
        (photographs.compressed_tiff, "cat"),
        (photographs.progressive_jpeg, "cat"),
        (photographs.mpo, "cat"),
        (photographs.broken_exif, "cat"),
    ],
)
def test_every_kind_of_image_has_one(tmp_path, kind, like, extension):
    shown = made(kind(), 90, extension, tmp_path)
    expected = photographs.picture(like, 160).resize(shown.size)
    assert max(shown.size) == 90
    assert difference(shown, expected) < 12


def test_black_and_white_becomes_grey(tmp_path):
    shown = made(photographs.bilevel(), 40, "jpg", tmp_path).convert("L")
    assert len(set(shown.get_flattened_data())) > 50


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_of_an_animation_it_is_the_first_frame(tmp_path, extension):
    content = photographs.animated(extension)
    shown = made(content, 50, "webp", tmp_path)
    assert getattr(shown, "n_frames", 1) == 1
    assert difference(shown, Image.open(io.BytesIO(content)).convert("RGB").resize(shown.size)) < 12


@pytest.mark.parametrize("extension", FORMATS)
def test_one_pixel_stays_one(tmp_path, extension):
    shown = made(photographs.one_pixel(), 300, extension, tmp_path)
    assert shown.size == (1, 1)
    assert difference(shown, Image.new("RGB", (1, 1), "brown")) < 6


def test_an_image_is_never_enlarged_and_a_thin_one_keeps_a_pixel(tmp_path):
    content = photographs.photograph("png", "cat", 160)
    assert made(content, 1600, "jpg", tmp_path).size == opened(content).size
    thin = photographs.encode(Image.new("RGB", (4000, 3), "teal"), "png")
    assert made(thin, 50, "jpg", tmp_path).size == (50, 1)


@pytest.mark.parametrize("kind", ["png", "webp", "palette", "grey", "key"])
def test_what_is_clear_stays_clear_where_it_can_and_is_white_in_a_jpeg(tmp_path, kind):
    image = opened(photographs.transparent())
    if kind == "grey":
        content = photographs.encode(image.convert("LA"), "png")
    elif kind == "palette":
        content = photographs.encode(image.quantize(64), "png")
    elif kind == "key":  # One colour of a picture without alpha is said to be clear.
        image = Image.new("RGB", image.size, "teal")
        image.paste("magenta", (image.width // 2, 0, *image.size))
        content = photographs.encode(image, "png", transparency=(255, 0, 255))
    else:
        content = photographs.transparent(kind)
    for extension in FORMATS:
        shown = made(content, 100, extension, tmp_path)
        clear, opaque = (90, 30), (10, 30)
        if extension == "jpg":
            assert shown.mode in ("L", "RGB")
            assert all(channel > 245 for channel in shown.convert("RGB").getpixel(clear))
        else:
            assert shown.mode == "RGBA"
            assert shown.getpixel(clear)[3] < 10
            assert shown.getpixel(opaque)[3] > 245


# The primaries of Display P3 with sRGB's curve, as phones embed them; written by littleCMS.
def wide_gamut() -> bytes:
    """A profile in which pure red is redder than any of sRGB's."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for number in range(int.from_bytes(profile[128:132], "big")):
        entry = 132 + 12 * number
        name = bytes(profile[entry : entry + 4])
        place = int.from_bytes(profile[entry + 4 : entry + 8], "big")
        for index, value in enumerate(primaries.get(name, ())):
            fixed = round(value * 65536).to_bytes(4, "big", signed=True)
            profile[place + 8 + 4 * index : place + 12 + 4 * index] = fixed
        if name == b"desc":  # Or it would say that it is sRGB.
            size = int.from_bytes(profile[entry + 8 : entry + 12], "big")
            profile[place : place + size] = profile[place : place + size].replace(
                "sRGB".encode("utf-16-be"), "wide".encode("utf-16-be")
            )
    return bytes(profile)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_are_converted_by_the_embedded_profile(tmp_path, extension, alpha):
    mode, colour = ("RGBA", (140, 100, 100, 255)) if alpha else ("RGB", (140, 100, 100))
    image = Image.new(mode, (60, 40), colour)
    as_it_is = made(photographs.encode(image, "png"), 50, extension, tmp_path)
    content = photographs.encode(image, "png", icc_profile=wide_gamut())
    shown = made(content, 50, extension, tmp_path)
    assert "icc_profile" not in shown.info
    red, green, _ = shown.convert("RGB").getpixel((20, 20))
    assert red >= 143  # by the standard it is 147
    assert green <= 100
    assert difference(shown, as_it_is) > 1.5


@pytest.mark.parametrize(
    "profile",
    [b"", b"no profile", bytes(128), ImageCms.createProfile("LAB")],
    ids=["empty", "none", "zeros", "lab"],
)
def test_a_profile_that_cannot_be_used_costs_nothing(tmp_path, profile):
    if not isinstance(profile, bytes):
        profile = ImageCms.ImageCmsProfile(profile).tobytes()
    plain = made(photographs.photograph("png"), 80, "jpg", tmp_path)
    content = photographs.encode(photographs.picture(), "png", icc_profile=profile)
    assert difference(made(content, 80, "jpg", tmp_path), plain) == 0


@pytest.mark.parametrize("extension", FORMATS)
def test_nothing_that_was_said_of_the_image_is_carried_over(tmp_path, extension):
    exif = Image.Exif()
    exif[0x010F] = "SECRET maker"
    exif.get_ifd(0x8825)[1] = "N"
    content = photographs.encode(
        photographs.picture(),
        "jpg",
        exif=exif,
        comment=b"SECRET comment",
        xmp=b"<x:xmpmeta>SECRET</x:xmpmeta>",
        icc_profile=wide_gamut(),
        dpi=(123, 123),
    )
    assert content.count(b"SECRET") == 3
    path = tmp_path / "original"
    path.write_bytes(content)
    with path.open("rb") as file:
        [(_, small)] = make_thumbnails(file, lambda: [(100, extension)])
    assert b"SECRET" not in small
    assert not {"exif", "xmp", "comment", "icc_profile", "dpi"} & set(opened(small).info)


def test_what_is_broken_says_so(tmp_path):
    content = photographs.truncated(photographs.photograph("png"), 0.5)
    with pytest.raises(Undecodable):
        made(content, 100, "jpg", tmp_path)
