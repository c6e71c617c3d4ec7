"""Colors as every screen shows them: 8 bits a channel, sRGB."""

import io
import math
import struct
from functools import lru_cache
from itertools import product

from PIL import Image, ImageCms, ImageMath

SRGB = ImageCms.createProfile("sRGB")
LAB = ImageCms.createProfile("LAB")

# By what a profile says of itself, which modes its colors can be in.
MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB"}

# Making a transform takes as long as decoding a photograph. A library knows few profiles, those of
# its cameras; one for print has half a megabyte.
TRANSFORMS = 16

# A profile that changes none of these by more than rounding does is sRGB, whatever its name.
SHADES = (0, 15, 40, 80, 128, 190, 255)
ROUNDING = 1

# The bits of an infinite 32-bit fraction, read as a whole number (IEEE 754).
INFINITY = 0x7F800000
ROWS_AT_ONCE = 256


def plain(image: Image.Image) -> Image.Image:
    """The picture in a mode that can be scaled: L, LA, RGB, RGBA, CMYK or LAB.

    A palette is resolved, and what is clear becomes alpha. Grey of more than 8 bits loses the lower
    ones; where it has no natural white, beyond 1 and 16 bits, its brightest is taken for it.
    """
    if is_deep(image):
        return _of_8_bits(image)
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def is_deep(image: Image.Image) -> bool:
    """Whether it is grey of more than 8 bits, or of fractions."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _of_8_bits(image: Image.Image) -> Image.Image:
    white = 65535.0
    if image.mode in ("I", "F"):
        brightest = _brightest(image)
        if image.mode == "F" or not 255 < brightest <= white:  # which 16 bits in 32 are
            white = max(1.0, brightest)
    fractions = image.convert("F")
    grey = fractions.point(lambda value: value * (255 / white) + 0).convert("L")
    clear = image.info.get("transparency")
    if isinstance(clear, int) and image.mode == "I;16":  # which a PNG can say (tRNS)
        opaque = [255 * (value != clear) for value in range(65536)]
        grey.putalpha(image.convert("I").point(opaque, "L"))
    return grey


def _brightest(image: Image.Image) -> float:
    """The largest value but infinity and what is no number, either of which can be in a TIFF."""
    # Pillow passes over what is no number, unless it comes first.
    _, largest = image.getextrema()
    assert not isinstance(largest, tuple)  # There is one band.
    brightest = float(largest)
    if math.isfinite(brightest):
        return brightest
    tops = range(0, image.height, ROWS_AT_ONCE)
    strips = ((0, top, image.width, min(image.height, top + ROWS_AT_ONCE)) for top in tops)
    return max(_brightest_finite(image.crop(strip)) for strip in strips)


def _brightest_finite(image: Image.Image) -> float:
    """The same of fractions, or 0: as whole numbers, those above 0 are in the same order."""
    bits = Image.frombytes("I", image.size, image.tobytes())
    finite = ImageMath.lambda_eval(lambda args: args["bits"] * (args["bits"] < INFINITY), bits=bits)
    largest: float
    [largest] = struct.unpack("=f", struct.pack("=i", max(0, finite.getextrema()[1])))
    return largest


def displayed(image: Image.Image) -> Image.Image:
    """The picture in sRGB, in the mode it has where that can be in sRGB.

    Grey of more than 8 bits stays as it is, for those who want all bits; `plain` and `to_srgb` make
    8 bits of it.
    """
    profile = image.info.get("icc_profile")
    if is_deep(image) or not (profile or image.mode in ("CMYK", "LAB")):
        return image
    converted = to_srgb(plain(image))
    converted.info.pop("icc_profile", None)
    return converted


def to_srgb(image: Image.Image) -> Image.Image:
    """The colors of a `plain` picture by its embedded profile, as L, RGB or RGBA.

    A profile that is broken or for other colors is left out of account, as browsers do.
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


@lru_cache(TRANSFORMS)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What turns the colors of a profile into sRGB; None when they are that already."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else None
        if source is None or MODES.get(source.profile.xcolor_space.strip()) != mode:
            if mode != "LAB":  # which only a transform can turn into anything else
                return None
            source = ImageCms.ImageCmsProfile(LAB)
        transform = ImageCms.ImageCmsTransform(source, ImageCms.ImageCmsProfile(SRGB), mode, "RGB")
        return None if _changes_nothing(transform, mode) else transform
    except Exception:  # littleCMS and Pillow raise many things on broken profiles.
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether colors are sRGB already: by what becomes of them, as names of profiles mislead."""
    if mode not in ("L", "RGB"):
        return False
    colors = list(product(SHADES, repeat=len(mode)))
    before = Image.frombytes(
        mode, (len(colors), 1), bytes(value for color in colors for value in color)
    )
    after = transform.apply(before).tobytes()
    expected = before.convert("RGB").tobytes()
    return all(abs(one - other) <= ROUNDING for one, other in zip(after, expected, strict=True))
