"""Colors beside those of libvips: of thumbnails, palettes and placeholders, as a table.

Each row is a file that is built here: six patches in some mode, with some profile. What is compared
are the patches, by CIEDE2000 (CIE 142-2001): below 1 nobody sees a difference, and 2 to 3 is what
the lossy formats and the 25 bytes of a placeholder cost. The worst patch counts. `-rP` shows it.
"""

import base64
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import color_profiles
import numpy as np
import odd_images
import photographs
import pytest
import pyvips
import tifffile
from clustr_plugins import palette
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from test_palette import Placeholder, looked_at

from clustr.imaging import libvips, pillow_setup
from clustr.imaging.thumbnails import make_thumbnails
from clustr.plugins import to_rgba

PATCH = 80
# Where two patches meet a few pixels are of both.
EDGE_WEIGHT = 0.05
COLORS = {
    "RGB": [
        (200, 60, 50),
        (60, 150, 80),
        (50, 80, 180),
        (230, 180, 60),
        (120, 60, 130),
        (225, 225, 225),
    ],
    "CMYK": [
        (0, 190, 180, 20),
        (180, 40, 190, 10),
        (200, 150, 20, 0),
        (10, 60, 200, 0),
        (120, 120, 120, 120),
        (10, 8, 12, 0),
    ],
    "L": [(8,), (60,), (105,), (150,), (195,), (245,)],
    # As Pillow has them, a and b with 128 for grey.
    "LAB": [
        (120, 173, 158),
        (140, 88, 150),
        (90, 140, 80),
        (200, 138, 180),
        (80, 165, 100),
        (230, 128, 128),
    ],
}
SRGB = color_profiles.rgb("Some name", color_profiles.SRGB, color_profiles.srgb_curve)
DISPLAY_P3 = color_profiles.rgb("A phone", color_profiles.DISPLAY_P3, color_profiles.srgb_curve)
ADOBE_RGB = color_profiles.rgb(
    "A camera", color_profiles.ADOBE_RGB, color_profiles.gamma(563 / 256)
)
LINEAR = color_profiles.rgb("sRGB-elle-V2-g10.icc", color_profiles.SRGB, color_profiles.gamma(1.0))
GRAY_22 = color_profiles.gray("Gray gamma 2.2", color_profiles.gamma(2.2))
GRAY_10 = color_profiles.gray("Linear gray", color_profiles.gamma(1.0))
CMYK = color_profiles.cmyk()


def chart(mode: str) -> Image.Image:
    """Six patches, three across and two down."""
    base = Image.new(mode, (3 * PATCH, 2 * PATCH))
    for number, color in enumerate(COLORS[mode]):
        x, y = number % 3 * PATCH, number // 3 * PATCH
        base.paste(color if len(color) > 1 else color[0], (x, y, x + PATCH, y + PATCH))
    return base


def saved(mode: str, format: str, profile: bytes | None = None, **options) -> bytes:
    file = io.BytesIO()
    picture = chart(mode)
    if options.pop("with_alpha", False):
        picture.putalpha(half_clear(picture.size))
    if profile:
        options["icc_profile"] = profile
    picture.save(file, format, **options)
    return file.getvalue()


def half_clear(size: tuple[int, int]) -> Image.Image:
    """Opaque, but for the patch in the middle above, which is clear, and the one below, a half."""
    alpha = Image.new("L", size, 255)
    alpha.paste(0, (PATCH, 0, 2 * PATCH, PATCH))
    alpha.paste(128, (PATCH, PATCH, 2 * PATCH, 2 * PATCH))
    return alpha


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored = chart("RGB").transpose(photographs._STORED[orientation])
    stored.save(file, "JPEG", quality=95, icc_profile=DISPLAY_P3, exif=exif)
    return file.getvalue()


def samples(mode: str, bits: int = 16) -> np.ndarray:
    """The chart in numbers of 16 bits."""
    values = np.asarray(chart(mode))
    return values.astype(np.uint16) * 257 if bits == 16 else values


def tiff(mode: str, profile: bytes | None = None, planes: bool = False, **options) -> bytes:
    values = samples(mode)
    if planes:
        values = values.transpose(2, 0, 1)
        options["planarconfig"] = "separate"
    photometric = {"RGB": "rgb", "CMYK": "separated", "L": "minisblack"}[mode]
    file = io.BytesIO()
    options = {"photometric": photometric, "iccprofile": profile, **options}
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def png(mode: str, bits: int, clear: tuple[int, ...] = (), profile: bytes | None = None) -> bytes:
    """By hand, as Pillow writes neither colors of 16 bits nor a transparent value of them."""
    values = np.asarray(chart(mode)).astype(np.uint32)
    values = scaled(values, bits)
    height, width = values.shape[:2]
    rows = values.reshape(height, -1)
    if bits == 16:
        packed = [row.astype(">u2").tobytes() for row in rows]
    else:
        packed = [np.packbits(bits_of(row, bits)).tobytes() for row in rows]
    color_type = {"L": 0, "RGB": 2}[mode]
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    pieces = [odd_images.chunk(b"IHDR", header)]
    if profile:
        pieces.append(odd_images.chunk(b"iCCP", b"name\0\0" + zlib.compress(profile)))
    if clear:
        numbers = scaled(np.array(clear), bits)
        pieces.append(odd_images.chunk(b"tRNS", struct.pack(f">{len(clear)}H", *numbers)))
    pieces.append(odd_images.chunk(b"IDAT", zlib.compress(b"".join(b"\0" + p for p in packed))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces) + odd_images.chunk(b"IEND", b"")


def scaled(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of 8 bits in so many; of 16, the lower ones are others than the upper ones."""
    return values * 256 + 10 if bits == 16 else values * ((1 << bits) - 1) // 255


def bits_of(values: np.ndarray, bits: int) -> np.ndarray:
    places = np.arange(bits - 1, -1, -1)
    return (values[:, None] >> places & 1).astype(np.uint8).reshape(-1)


def palette_file(format: str) -> bytes:
    """A palette in which one color is clear."""
    picture = chart("RGB").quantize(8)
    file = io.BytesIO()
    picture.save(file, format, transparency=picture.getpixel((PATCH + 1, 1)))
    return file.getvalue()


def small_frame() -> bytes:
    """A GIF whose frame, in which one color is clear, covers two of three columns."""
    frame = chart("RGB").crop((0, 0, 2 * PATCH, 2 * PATCH)).quantize(8)
    file = io.BytesIO()
    frame.save(file, "GIF", transparency=frame.getpixel((1, 1)))
    return odd_images.small_frame(file.getvalue(), (3 * PATCH, 2 * PATCH), PATCH, 0)


ROWS: dict[str, Callable[[], bytes]] = {
    "JPEG, no profile": lambda: saved("RGB", "JPEG", quality=95),
    "JPEG, sRGB": lambda: saved("RGB", "JPEG", SRGB, quality=95),
    "JPEG, Display P3": lambda: saved("RGB", "JPEG", DISPLAY_P3, quality=95),
    "JPEG, Display P3, turned by 90": lambda: turned(6),
    "JPEG, Display P3, transposed": lambda: turned(5),
    "JPEG, Display P3, turned by 180": lambda: turned(3),
    "JPEG, Adobe RGB": lambda: saved("RGB", "JPEG", ADOBE_RGB, quality=95),
    "JPEG, linear, named like sRGB": lambda: saved("RGB", "JPEG", LINEAR, quality=95),
    "JPEG, gray of gamma 2.2": lambda: saved("L", "JPEG", GRAY_22, quality=95),
    "JPEG, CMYK": lambda: saved("CMYK", "JPEG", CMYK, quality=95),
    "PNG, Display P3": lambda: saved("RGB", "PNG", DISPLAY_P3),
    "PNG, alpha, Adobe RGB": lambda: saved("RGB", "PNG", ADOBE_RGB, with_alpha=True),
    "PNG, palette, a color clear": lambda: palette_file("PNG"),
    "PNG, 16 bits, Display P3": lambda: png("RGB", 16, profile=DISPLAY_P3),
    "PNG, 16 bits, a color clear": lambda: png("RGB", 16, COLORS["RGB"][1]),
    "PNG, gray of 4 bits, a shade clear": lambda: png("L", 4, COLORS["L"][1]),
    "PNG, gray of 16 bits": lambda: png("L", 16),
    "PNG, gray of 16 bits, a shade clear": lambda: png("L", 16, COLORS["L"][1]),
    "PNG, gray of 16 bits, linear": lambda: png("L", 16, profile=GRAY_10),
    "TIFF, LAB": lambda: saved("LAB", "TIFF"),
    "TIFF, CMYK": lambda: saved("CMYK", "TIFF", CMYK),
    "TIFF, linear, compressed": lambda: saved("RGB", "TIFF", LINEAR, compression="tiff_lzw"),
    "TIFF, gray of 16 bits": lambda: tiff("L"),
    "TIFF, gray of 16 bits, white is 0": lambda: tiff("L", photometric="miniswhite"),
    "TIFF, gray of 16 bits, white is 0, big-endian": lambda: tiff(
        "L", photometric="miniswhite", byteorder=">"
    ),
    "TIFF, 16 bits, Display P3": lambda: tiff("RGB", DISPLAY_P3),
    "TIFF, 16 bits in planes": lambda: tiff("RGB", planes=True),
    "TIFF, 16 bits in planes, big-endian": lambda: tiff("RGB", planes=True, byteorder=">"),
    "TIFF, 16 bits in planes, compressed": lambda: tiff("RGB", planes=True, compression="zlib"),
    "TIFF, CMYK of 16 bits in planes": lambda: tiff("CMYK", CMYK, planes=True),
    "WebP, Display P3": lambda: saved("RGB", "WEBP", DISPLAY_P3, quality=95),
    "WebP, alpha, Display P3": lambda: saved(
        "RGB", "WEBP", DISPLAY_P3, with_alpha=True, lossless=True
    ),
    "GIF, a color clear": lambda: palette_file("GIF"),
    "AVIF, Display P3": lambda: saved("RGB", "AVIF", DISPLAY_P3, quality=95, subsampling="4:4:4"),
    "GIF, a frame smaller than its canvas": small_frame,
    "AVIF, clean aperture": lambda: odd_images.clean_aperture(
        *(
            saved("RGB", "AVIF", quality=95, subsampling="4:4:4"),
            3 * PATCH,
            1,
            PATCH,
            1,
            0,
            1,
            PATCH // 2,
            1,
        )
    ),
    "HEIC, Display P3": lambda: odd_images.with_profile(odd_images.HEIC, DISPLAY_P3),
    "AVIF, alpha": lambda: saved("RGB", "AVIF", with_alpha=True, quality=95),
}


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # put back afterwards
    with warnings.catch_warnings():
        pillow_setup.prepare(50_000_000)
        yield


class Figures(NamedTuple):
    """How far the worst patch is from that of libvips, by CIEDE2000."""

    thumbnail: float
    palette: float
    placeholder: float


def seen_by_libvips(content: bytes) -> np.ndarray:
    """The thumbnail that libvips makes, in sRGB, red to alpha from 0 to 255."""
    most = 3 * PATCH // 2
    options = {"height": most, "size": "down", "export_profile": "srgb"}
    pyvips.operation_block_set("VipsForeign", False)  # which is blocked in the service
    try:
        return in_bytes(pyvips.Image.thumbnail_buffer(content, most, **options).colourspace("srgb"))
    finally:
        libvips.confine(pyvips)


def lab_by_libvips(_content: bytes) -> np.ndarray:
    """The chart in LAB by its numbers: libvips 8.18 reads no such TIFF, not even its own."""
    stored = np.asarray(chart("LAB"))  # as in the file: a and b are signed
    signed = stored.view(np.int8).astype(np.float32)
    lab = np.dstack([stored[..., 0] * np.float32(100 / 255), signed[..., 1:]])
    image = pyvips.Image.new_from_array(lab, interpretation="lab")
    return in_bytes(image.icc_export(output_profile="srgb", depth=8).resize(0.5))


def heic_by_libvips(_content: bytes) -> np.ndarray:
    """The one color of that picture, by its profile: there is no libvips with a reader of HEIC."""
    teal = Image.new("RGB", (48, 32), "teal")
    return seen_by_libvips(photographs.encode(teal, "png", icc_profile=DISPLAY_P3))


def in_bytes(image: pyvips.Image) -> np.ndarray:
    return (image if image.hasalpha() else image.bandjoin(255)).cast("uchar").numpy().astype(float)


REFERENCES: dict[str, Callable[[bytes], np.ndarray]] = {
    "TIFF, LAB": lab_by_libvips,
    "HEIC, Display P3": heic_by_libvips,
}


def on(background: int, rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + background * (1 - alpha)


def patches(rgba: np.ndarray) -> np.ndarray:
    """The mean color of each patch on black, and on white."""
    return np.concatenate([means(on(background, rgba)) for background in (0, 255)])


def means(picture: np.ndarray) -> np.ndarray:
    """The mean of each patch, without its edges."""
    side = min(PATCH // 2, *picture.shape[:2])
    inner = slice(side // 5, -(side // 5))
    return np.array(
        [
            picture[y : y + side, x : x + side][inner, inner].mean(axis=(0, 1))
            for y in range(0, picture.shape[0] - side + 1, side)
            for x in range(0, picture.shape[1] - side + 1, side)
        ]
    )


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """CIEDE2000 between colors of sRGB from 0 to 255, which have to be of the same shape."""
    one, other = (rgb2lab(np.clip(each, 0, 255) / 255) for each in (some, others))
    return deltaE_ciede2000(one, other)


def figures(content: bytes, expected: np.ndarray, path: Path) -> Figures:
    image = looked_at(path, content)
    with path.open("rb") as file:
        [(_, content)] = make_thumbnails(file, lambda: [(3 * PATCH // 2, "webp")])
    made = Image.open(io.BytesIO(content))
    thumbnail = np.asarray(made.convert("RGBA")).astype(float)
    assert thumbnail.shape == expected.shape
    result = palette.Palette().analyze(image, None)
    found = [
        tuple(bytes.fromhex(color["hex"][1:]))
        for color in result["colors"]
        if color["weight"] > EDGE_WEIGHT
    ]
    colors = means(expected)[:, :3]
    near = [distances(np.tile(color, (len(colors), 1)), colors).min() for color in found]
    small = to_rgba(Image.fromarray(expected.round().astype(np.uint8)), palette.PLACEHOLDER_SIDE)
    wanted = base64.b64encode(palette.thumbhash(small)).decode()
    return Figures(
        distances(patches(thumbnail), patches(expected)).max(),
        max(near),
        distances(drawn(result["thumbhash"]), drawn(wanted)).max(),
    )


def drawn(text: str) -> np.ndarray:
    """The mean color that a placeholder has in the middle of the patches, on white."""
    places = [((x + 0.5) / 3, (y + 0.5) / 2) for y in range(2) for x in range(3)]
    colors = np.array([Placeholder(text).color(*place) for place in places]).clip(0, 1)
    return on(255, colors * 255).mean(axis=0)


@pytest.mark.parametrize("name", ROWS)
def test_colors_are_those_of_libvips(tmp_path, name):
    content = ROWS[name]()
    found = figures(content, REFERENCES.get(name, seen_by_libvips)(content), tmp_path / "file")
    print(f"| {name} | {found.thumbnail:.1f} | {found.palette:.1f} | {found.placeholder:.1f} |")
    assert found.thumbnail < 1.5
    assert found.palette < 1.5
    assert found.placeholder < 4
