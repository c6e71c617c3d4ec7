"""Colors as every screen shows them: 8 bits a channel, sRGB."""

import io
import math
import struct
from functools import lru_cache
from itertools import product

from PIL import Image, ImageCms, ImageMath

SRGB = ImageCms.createProfile("sRGB")
LAB = ImageCms.createProfile("LAB")

# The mode of the colors that a profile converts, by the color space that it states.
MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB"}

# To build a transform takes as long as to decode a photograph. A collection has few profiles, those
# of its cameras; a profile for print has half a megabyte.
MAX_TRANSFORMS = 16

# A profile that changes none of these values by more than rounding does is sRGB, whatever its name.
SAMPLE_VALUES = (0, 15, 40, 80, 128, 190, 255)
ROUNDING = 1

# The bits of an infinite 32-bit fraction, read as a whole number (IEEE 754).
INFINITY = 0x7F800000
ROWS_AT_ONCE = 256


def plain(image: Image.Image) -> Image.Image:
    """The picture in a mode that can be scaled: L, LA, RGB, RGBA, CMYK or LAB.

    A palette is resolved, and transparency becomes alpha. Gray of more than 8 bits loses the lower
    ones; where its format defines no white, as with 32 bits and fractions, its brightest value is
    taken for white.
    """
    if is_deep(image):
        return _of_8_bits(image)
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def is_deep(image: Image.Image) -> bool:
    """Whether a picture is gray of more than 8 bits or of fractions."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _of_8_bits(image: Image.Image) -> Image.Image:
    white = 65535.0
    if image.mode in ("I", "F"):
        brightest = _brightest(image)
        if image.mode == "F" or not 255 < brightest <= white:  # Then it is 16 bits in 32.
            white = max(1.0, brightest)
    fractions = image.convert("F")
    gray = fractions.point(lambda value: value * (255 / white) + 0).convert("L")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and image.mode == "I;16":  # tRNS of a PNG
        opaque = [255 * (value != transparent) for value in range(65536)]
        gray.putalpha(image.convert("I").point(opaque, "L"))
    return gray


def _brightest(image: Image.Image) -> float:
    """The largest finite value: a TIFF can have infinities and NaN."""
    # Pillow skips NaN, unless it comes first.
    _, largest = image.getextrema()
    assert not isinstance(largest, tuple)  # There is one band.
    brightest = float(largest)
    if math.isfinite(brightest):
        return brightest
    tops = range(0, image.height, ROWS_AT_ONCE)
    strips = ((0, top, image.width, min(image.height, top + ROWS_AT_ONCE)) for top in tops)
    return max(_brightest_finite(image.crop(strip)) for strip in strips)


def _brightest_finite(image: Image.Image) -> float:
    """The same of 32-bit fractions, or 0: their bits, read as integers, have the same order."""
    bits = Image.frombytes("I", image.size, image.tobytes())
    finite = ImageMath.lambda_eval(lambda args: args["bits"] * (args["bits"] < INFINITY), bits=bits)
    largest: float
    [largest] = struct.unpack("=f", struct.pack("=i", max(0, finite.getextrema()[1])))
    return largest


def displayed(image: Image.Image) -> Image.Image:
    """The picture in sRGB, in its own mode where that mode can be sRGB.

    Gray of more than 8 bits is not changed, for callers that need all bits; `plain` and `to_srgb`
    convert it to 8 bits.
    """
    profile = image.info.get("icc_profile")
    if is_deep(image) or not (profile or image.mode in ("CMYK", "LAB")):
        return image
    converted = to_srgb(plain(image))
    converted.info.pop("icc_profile", None)
    return converted


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert the result of `plain` to sRGB by its embedded profile, as L, RGB or RGBA.

    A profile that is broken or for other colors is ignored, as browsers do.
    """
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        colors = to_srgb(image.convert(image.mode.removesuffix("A"))).convert("RGB")
        colors.putalpha(alpha)
        return colors
    transform = _transform(image.info.get("icc_profile", b""), image.mode)
    if transform is not None:
        return transform.apply(image)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def is_srgb(profile: bytes, mode: str) -> bool:
    """Whether `to_srgb` leaves the colors of a picture in L or RGB with this profile as they are.

    Args:
        profile: the embedded profile; empty if there is none.
    """
    return _transform(profile, mode) is None


@lru_cache(MAX_TRANSFORMS)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from the colors of a profile to sRGB; None when they are sRGB already."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else None
        if source is None or MODES.get(source.profile.xcolor_space.strip()) != mode:
            if mode != "LAB":  # Pillow converts LAB by a transform only.
                return None
            source = ImageCms.ImageCmsProfile(LAB)
        transform = ImageCms.ImageCmsTransform(source, ImageCms.ImageCmsProfile(SRGB), mode, "RGB")
        return None if _changes_nothing(transform, mode) else transform
    except Exception:  # littleCMS and Pillow raise many things on broken profiles.
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform leaves colors as they are; the name of a profile may be wrong."""
    if mode not in ("L", "RGB"):
        return False
    colors = list(product(SAMPLE_VALUES, repeat=len(mode)))
    before = Image.frombytes(
        mode, (len(colors), 1), bytes(value for color in colors for value in color)
    )
    after = transform.apply(before).tobytes()
    expected = before.convert("RGB").tobytes()
    return all(abs(one - other) <= ROUNDING for one, other in zip(after, expected, strict=True))
