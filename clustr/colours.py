"""Colours as every screen shows them: 8 bits a channel, sRGB."""

import io
from functools import lru_cache

from PIL import Image, ImageCms

SRGB = ImageCms.createProfile("sRGB")
LAB = ImageCms.createProfile("LAB")

# By what a profile says of itself, which modes its colours can be in.
MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB"}

# Making a transform takes as long as decoding a photograph. A library knows few profiles, those of
# its cameras; one for print has half a megabyte.
TRANSFORMS = 16


def plain(image: Image.Image) -> Image.Image:
    """The picture in a mode that can be scaled: L, LA, RGB, RGBA, CMYK or LAB.

    A palette is resolved, and what is clear becomes alpha. Grey of more than 8 bits loses the lower
    ones; where it has no natural white, beyond 1 and 16 bits, its brightest is taken for it.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _of_8_bits(image)
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _of_8_bits(image: Image.Image) -> Image.Image:
    white = 65535.0
    if image.mode in ("I", "F"):
        brightest = float(image.getextrema()[1])
        if image.mode == "F" or not 255 < brightest <= white:  # which 16 bits in 32 are
            white = max(1.0, brightest)
    fractions = image.convert("F")
    return fractions.point(lambda value: value * (255 / white) + 0).convert("L")


def to_srgb(image: Image.Image) -> Image.Image:
    """The colours of a `plain` picture by its embedded profile, as L, RGB or RGBA.

    A profile that is broken or for other colours is left out of account, as browsers do.
    """
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        colours = to_srgb(image.convert(image.mode.removesuffix("A"))).convert("RGB")
        colours.putalpha(alpha)
        return colours
    transform = _transform(image.info.get("icc_profile", b""), image.mode)
    if transform is not None:
        return transform.apply(image)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


@lru_cache(TRANSFORMS)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What turns the colours of a profile into sRGB; None when they are that already."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else None
        if source is None or MODES.get(source.profile.xcolor_space.strip()) != mode:
            if mode != "LAB":  # which only a transform can turn into anything else
                return None
            source = ImageCms.ImageCmsProfile(LAB)
        elif (source.profile.profile_description or "").startswith("sRGB"):
            return None
        return ImageCms.ImageCmsTransform(source, ImageCms.ImageCmsProfile(SRGB), mode, "RGB")
    except Exception:  # littleCMS and Pillow raise many things on broken profiles.
        return None
