"""What a gallery needs while it loads: the colors of a picture, its luminance, and a placeholder.

Everything is taken from a copy of at most 64 pixels a side, which takes some milliseconds. Colors
are compared in OKLab (https://bottosson.github.io/posts/oklab/), where equal distances look equal.
The placeholder is a ThumbHash (https://evanw.github.io/thumbhash/): about 25 bytes from which a
client draws a blurred picture with its proportions and its transparency.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import cos, hypot, pi
from typing import TYPE_CHECKING, Any, cast

import PIL.Image
from marshmallow import Schema, fields, validate
from PIL import ImageStat

from clustr.plugins import Analyzer, Context, Filter, Image, hookimpl, to_rgb, to_rgba

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SIDE = 64
PLACEHOLDER_SIDE = 32
MOST_COLORS = 6
LEAST_WEIGHT = 0.02
# Colors nearer than this in OKLab are one; just noticeable is about 0.02.
SAME_COLOR = 0.09
VISIBLE_ALPHA = 128
# A name says first which hue it is, and whether it is one; then how light.
HUE_COUNTS = 2.5

COLORS = {
    "black": "000000",
    "dark grey": "404040",
    "grey": "808080",
    "light grey": "c0c0c0",
    "white": "ffffff",
    "cream": "f5eed5",
    "beige": "d8c3a0",
    "brown": "7b4a21",
    "maroon": "6b0f1a",
    "red": "dd1c1a",
    "coral": "f26d55",
    "pink": "f7a8c4",
    "magenta": "d6249f",
    "purple": "6a1b9a",
    "violet": "9b6bdf",
    "lavender": "cfc4ee",
    "navy": "16235e",
    "blue": "1f4fd8",
    "steel blue": "5b84b1",
    "sky blue": "8ecdf5",
    "cyan": "1fd6e0",
    "teal": "0f7c80",
    "mint": "a8e6c5",
    "green": "2e9e3e",
    "dark green": "12502b",
    "lime": "a4e02e",
    "olive": "7a7a2a",
    "yellow": "f7e02a",
    "gold": "d1a520",
    "orange": "f58a1f",
    "peach": "fbc9a0",
}


class ColorResult(Schema):
    """One of the colors that make the picture."""

    hex = fields.String(required=True, validate=validate.Regexp(r"#[0-9a-f]{6}\Z"))
    name = fields.String(required=True, validate=validate.OneOf(list(COLORS)))
    weight = fields.Float(required=True, validate=validate.Range(0, 1))


class PaletteResult(Schema):
    """How a picture looks from afar."""

    colors = fields.List(
        fields.Nested(ColorResult),
        required=True,
        validate=validate.Length(max=MOST_COLORS),
        metadata={
            "description": "The colors that there is most of, each with the nearest name and its "
            "share of the pixels that can be seen; none where nothing can be seen"
        },
    )
    luminance = fields.Float(
        required=True,
        validate=validate.Range(0, 1),
        metadata={"description": "The mean, from 0 for black to 1 for white; on white where clear"},
    )
    thumbhash = fields.String(
        required=True,
        metadata={"description": "A placeholder to be drawn while the picture loads, in base64"},
    )


class Palette(Analyzer):
    """Looks at a small copy of the picture."""

    name = "palette"
    version = 2
    result_schema = PaletteResult
    summary = "Dominant colors with their names, mean luminance, and a placeholder"

    def analyze(self, image: Image, context: Context) -> dict[str, Any]:
        picture = to_rgba(image.open(at_least=SIDE), SIDE)
        luminance = ImageStat.Stat(to_rgb(picture).convert("L")).mean[0] / 255
        small = to_rgba(picture, PLACEHOLDER_SIDE)
        return {
            "colors": dominant(picture),
            "luminance": round(luminance, 4),
            "thumbhash": base64.b64encode(thumbhash(small)).decode(),
        }


def dominant(picture: PIL.Image.Image) -> list[dict[str, Any]]:
    """The colors of an RGBA picture of which there is most, those that look alike as one."""
    import numpy as np  # noqa: PLC0415  Web processes load this file and do without NumPy.

    pixels = np.asarray(picture)
    visible = pixels[pixels[..., 3] >= VISIBLE_ALPHA][:, :3]
    if not len(visible):
        return []
    strip = PIL.Image.frombytes("RGB", (len(visible), 1), visible.tobytes())
    reduced = strip.quantize(16, PIL.Image.Quantize.MEDIANCUT, kmeans=2)
    # They are 16 at most, and of three bands.
    colors = cast("list[tuple[int, tuple[int, ...]]]", reduced.convert("RGB").getcolors())
    groups: list[list[Any]] = []
    for count, color in sorted(colors, reverse=True):
        place = oklab(color)
        near = min(groups, key=lambda group: distance(group[2], place), default=None)
        if near and distance(near[2], place) < SAME_COLOR:
            near[0] += count
        else:
            groups.append([count, color, place])
    groups.sort(reverse=True)
    return [
        {"hex": f"#{bytes(color).hex()}", "name": name_of(color), "weight": round(share, 4)}
        for count, color, _ in groups[:MOST_COLORS]
        if (share := count / len(visible)) >= LEAST_WEIGHT
    ]


def name_of(color: Sequence[int]) -> str:
    """The name of the nearest color that has one."""
    place = oklab(color)
    return min(COLORS, key=lambda name: distance(PLACES[name], place, HUE_COUNTS))


def distance(one: Sequence[float], other: Sequence[float], hue_counts: float = 1) -> float:
    """How different two colors of OKLab look; `hue_counts` is how much more hue does than
    lightness.
    """
    return hypot(
        one[0] - other[0], hue_counts * (one[1] - other[1]), hue_counts * (one[2] - other[2])
    )


def oklab(color: Sequence[int]) -> tuple[float, float, float]:
    """A color of sRGB, from 0 to 255 each, in OKLab."""
    red, green, blue = (
        c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color
    )
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


PLACES = {name: oklab(bytes.fromhex(digits)) for name, digits in COLORS.items()}


def thumbhash(picture: PIL.Image.Image) -> bytes:
    """The ThumbHash of an RGBA picture, which must be small."""
    import numpy as np  # noqa: PLC0415  See above.

    width, height = picture.size
    pixels = np.asarray(picture).astype(float) / 255
    colors, alpha = pixels[..., :3], pixels[..., 3]
    opacity = total(alpha.ravel())
    mean = total((colors * alpha[..., None]).reshape(-1, 3).T) / (opacity or 1)
    has_alpha = bool((alpha < 1).any())
    # Lightness, yellow to blue, red to green, each over the mean color where it is clear; opacity.
    shown = mean * (1 - alpha[..., None]) + colors * alpha[..., None]
    red, green, blue = (shown[..., band] for band in range(3))
    planes = ((red + green + blue) / 3, (red + green) / 2 - blue, red - green, alpha)
    most = 5 if has_alpha else 7
    across = max(1, half_up(most * width / max(width, height)))
    down = max(1, half_up(most * height / max(width, height)))
    light = frequencies(planes[0], max(3, across), max(3, down))
    yellow = frequencies(planes[1], 3, 3)
    red_green = frequencies(planes[2], 3, 3)
    head = (
        half_up(63 * light[0])
        | half_up(31.5 + 31.5 * yellow[0]) << 6
        | half_up(31.5 + 31.5 * red_green[0]) << 12
        | half_up(31 * light[1]) << 18
        | has_alpha << 23
        | (down if width > height else across) << 24
        | half_up(63 * yellow[1]) << 27
        | half_up(63 * red_green[1]) << 33
        | (width > height) << 39
    )
    written = bytearray(head.to_bytes(5, "little"))
    varying = [*light[2], *yellow[2], *red_green[2]]
    if has_alpha:
        clear = frequencies(planes[3], 5, 5)
        written.append(half_up(15 * clear[0]) | half_up(15 * clear[1]) << 4)
        varying += clear[2]
    nibbles = [half_up(15 * value) for value in varying] + [0]
    return bytes(written) + bytes(
        low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=False)
    )


def frequencies(plane: "Floats", across: int, down: int) -> tuple[float, float, list[float]]:
    """The mean of a plane, the largest of its low frequencies, and all of these from 0 to 1."""
    height, width = plane.shape
    of_rows = total(plane * waves(across, width)[:, None])
    of_columns = total(of_rows * waves(down, height)[:, None]) / plane.size
    mean, *varying = (
        of_columns[j, i].item()
        for j in range(down)
        for i in range(across)
        if i * down < across * (down - j)
    )
    scale = max(map(abs, varying))
    return mean, scale, [0.5 + 0.5 / scale * value if scale else 0.0 for value in varying]


@lru_cache(200)
def waves(count: int, length: int) -> "Floats":
    """The cosine waves of the lowest frequencies, each at the middle of so many pixels."""
    import numpy as np  # noqa: PLC0415  See above.

    places = [[pi / length * i * (x + 0.5) for x in range(length)] for i in range(count)]
    return np.array([[cos(place) for place in row] for row in places])


def total(values: "Floats") -> "Floats":
    """The sums along the last axis, added one after the other.

    NumPy's own sums add in another order, which rounds otherwise: what is left over of a picture
    of one color would then become another placeholder.
    """
    sums: Floats = values.cumsum(axis=-1)[..., -1]
    return sums


def half_up(value: float) -> int:
    """The nearest whole number, as the format's own description rounds."""
    return int(value + 0.5)


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Palette()]


@hookimpl
def clustr_register_filters(config: Mapping[str, Any]) -> Iterable[Filter]:
    return [
        Filter(
            analyzer="palette",
            field="colors.name",
            type=fields.String(validate=validate.OneOf(list(COLORS))),
            title="Color",
            summary="A color of the picture",
            indexed=True,
        ),
    ]
