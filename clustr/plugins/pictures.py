"""Pictures of any kind in the one form that most analyzers want: 8 bits, three colours or four."""

import PIL.Image


def to_rgba(picture: PIL.Image.Image, longest_side: int | None = None) -> PIL.Image.Image:
    """Any picture as RGBA: of 16 bits or fractions, in CMYK, with a palette, grey.

    Pillow's own `convert` would make everything of a 16-bit picture that is above 255 white.

    Args:
        longest_side: in pixels; a picture that is larger is made smaller.
    """
    if picture.mode[0] in "IF":
        picture = to_8_bits(picture)
    if picture.mode in ("1", "P", "PA"):
        picture = picture.convert("RGBA")  # these cannot be made smaller smoothly
    if longest_side and max(picture.size) > longest_side:
        scale = longest_side / max(picture.size)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize(size, PIL.Image.Resampling.BICUBIC, reducing_gap=2.0)
    return picture.convert("RGBA")


def to_rgb(picture: PIL.Image.Image, longest_side: int | None = None) -> PIL.Image.Image:
    """Any picture as RGB, on white where it is clear; otherwise as `to_rgba`."""
    clear = to_rgba(picture, longest_side)
    flat = PIL.Image.new("RGB", clear.size, "white")
    flat.paste(clear, mask=clear)
    return flat


def to_8_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Scale 16 bits per pixel down, or whole numbers and fractions, whose limits are their own."""
    low, high = (0, 65535) if picture.mode.startswith("I;16") else picture.getextrema()
    scale = 255 / ((high - low) or 1)
    return picture.convert("F").point(lambda value: value * scale - low * scale).convert("L")
