"""Images of any mode in the form that most analyzers need: 8 bits, RGB or RGBA."""

import PIL.Image

from clustr.imaging import color_management


def to_rgba(picture: PIL.Image.Image, longest_side: int | None = None) -> PIL.Image.Image:
    """Any picture as RGBA in sRGB: of 16 bits or fractions, in CMYK, with a palette, grey.

    Pillow's own `convert` would make everything of a 16-bit picture that is above 255 white.

    Args:
        longest_side: in pixels; a picture that is larger is made smaller.
    """
    return _in_srgb(picture, longest_side).convert("RGBA")


def to_rgb(picture: PIL.Image.Image, longest_side: int | None = None) -> PIL.Image.Image:
    """Any picture as RGB, on white where it is clear; otherwise as `to_rgba`."""
    converted = _in_srgb(picture, longest_side)
    if not converted.has_transparency_data:
        return converted.convert("RGB")
    clear = converted.convert("RGBA")
    flat = PIL.Image.new("RGB", clear.size, "white")
    flat.paste(clear, mask=clear)
    return flat


def _in_srgb(picture: PIL.Image.Image, longest_side: int | None) -> PIL.Image.Image:
    """The picture in sRGB, as L, RGB or with alpha, made smaller if it is larger."""
    picture = color_management.plain(picture)
    if longest_side and max(picture.size) > longest_side:
        scale = longest_side / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), PIL.Image.Resampling.BICUBIC, reducing_gap=2.0)
    return color_management.to_srgb(picture)
