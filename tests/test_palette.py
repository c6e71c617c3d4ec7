"""The plugin `palette`: colours, luminance and placeholder of pictures of every kind."""

import base64
import math
from pathlib import Path
from typing import Any

import known_results
import photographs
import PIL.Image
import pytest
from clustr_plugins import palette as plugin
from PIL import ImageChops, ImageStat

from clustr.plugins import Image
from clustr.plugins.pixel_formats import to_rgb


def looked_at(path: Path, content: bytes) -> Image:
    """An image as the analyzer is given it."""
    path.write_bytes(content)
    return Image("0" * 24, "0" * 64, "image/png", len(content), 1, 1, path)


@pytest.fixture
def analyze(tmp_path):
    def analyze(content: bytes) -> dict[str, Any]:
        result = plugin.Palette().analyze(looked_at(tmp_path / "image", content), None)
        assert plugin.PaletteResult().validate(result) == {}
        assert sum(color["weight"] for color in result["colors"]) <= 1.001
        return result

    return analyze


def flat(*halves: str, mode: str = "RGB") -> bytes:
    """A picture of stripes in these colours, all of the same width."""
    picture = PIL.Image.new(mode, (len(halves) * 64, 64))
    for number, color in enumerate(halves):
        picture.paste(color, (number * 64, 0, (number + 1) * 64, 64))
    return photographs.encode(picture, "png")


@pytest.mark.parametrize(("name", "content"), [*known_results.pictures()])
def test_the_same_picture_has_the_same_result(analyze, name, content):
    result = analyze(content)
    colors = " ".join(f"{color['hex'][1:]} {color['weight']}" for color in result["colors"])
    _, *expected = known_results.RESULTS[name]
    assert [result["thumbhash"], result["luminance"], colors] == expected


class Placeholder:
    """What a client draws: the decoder of the format's own description, in plain words."""

    def __init__(self, text: str):
        data = base64.b64decode(text)
        head = int.from_bytes(data[:5], "little")
        self.luminance = (head & 63) / 63
        self.yellow = (head >> 6 & 63) / 31.5 - 1
        self.red = (head >> 12 & 63) / 31.5 - 1
        self.has_alpha = bool(head >> 23 & 1)
        self.is_landscape = bool(head >> 39)
        shorter = head >> 24 & 7
        longer = 5 if self.has_alpha else 7
        self.across, self.down = (longer, shorter) if self.is_landscape else (shorter, longer)
        start = 6 if self.has_alpha else 5
        self._values = [
            nibble / 7.5 - 1 for byte in data[start:] for nibble in (byte & 15, byte >> 4)
        ]
        across, down = max(3, self.across), max(3, self.down)
        self._planes = [
            self._read(self.luminance, (head >> 18 & 31) / 31, across, down),
            self._read(self.yellow, (head >> 27 & 63) / 63 * 1.25, 3, 3),
            self._read(self.red, (head >> 33 & 63) / 63 * 1.25, 3, 3),
        ]
        if self.has_alpha:
            self._planes.append(self._read((data[5] & 15) / 15, (data[5] >> 4) / 15, 5, 5))
        assert len(self._values) in (0, 1), "the hash has another length than it says"

    def _read(self, mean: float, scale: float, across: int, down: int) -> dict[tuple, float]:
        found = {(0, 0): mean}
        for j in range(down):
            for i in range(across):
                if i * down < across * (down - j) and (i or j):
                    found[i, j] = self._values.pop(0) * scale
        return found

    def color(self, x: float = 0.5, y: float = 0.5) -> tuple[float, ...]:
        """Red, green, blue and opacity from 0 to 1, at a place from 0 to 1."""
        luminance, yellow, red_green, *alpha = (
            sum(
                value * math.cos(math.pi * i * x) * math.cos(math.pi * j * y) * (2 if i or j else 1)
                for (i, j), value in plane.items()
            )
            for plane in self._planes
        )
        return (*rgb(luminance, yellow, red_green), alpha[0] if alpha else 1.0)

    def mean(self) -> tuple[float, float, float]:
        return rgb(self.luminance, self.yellow, self.red)


def rgb(luminance: float, yellow: float, red_green: float) -> tuple[float, float, float]:
    blue = luminance - 2 / 3 * yellow
    red = (3 * luminance - blue + red_green) / 2
    return red, red - red_green, blue


@pytest.mark.parametrize(
    ("color", "name"),
    [
        ("#000000", "black"),
        ("#ffffff", "white"),
        ("#1c1c1c", "dark grey"),
        ("#656565", "grey"),
        ("#ff0000", "red"),
        ("#000080", "navy"),
        ("#0000ff", "blue"),
        ("#87ceeb", "sky blue"),
        ("#ffa500", "orange"),
        ("#ffc0cb", "pink"),
        ("#228b22", "green"),
        ("#800080", "purple"),
        ("#808000", "olive"),
        ("#293755", "navy"),
    ],
)
def test_a_colour_has_the_name_that_people_give_it(analyze, color, name):
    assert analyze(flat(color))["colors"] == [{"hex": color, "name": name, "weight": 1}]


def test_every_name_is_that_of_its_own_colour():
    assert 25 <= len(plugin.COLORS) <= 35
    for name, color in plugin.COLORS.items():
        assert plugin.name_of(bytes.fromhex(color)) == name


def test_weights_are_shares_and_the_heaviest_comes_first(analyze):
    colors = analyze(flat("#1f4fd8", "#1f4fd8", "#f7e02a", "#1f4fd8"))["colors"]
    assert [color["name"] for color in colors] == ["blue", "yellow"]
    assert colors[0]["weight"] == pytest.approx(0.75, abs=0.02)
    assert colors[1]["weight"] == pytest.approx(0.25, abs=0.02)


def test_what_looks_the_same_is_one_colour(analyze):
    colors = analyze(flat("#1f4fd8", "#2154d6", "#1b4bdd"))["colors"]
    assert len(colors) == 1


@pytest.mark.parametrize(("color", "luminance"), [("#000000", 0), ("#ffffff", 1), ("#808080", 0.5)])
def test_luminance(analyze, color, luminance):
    assert analyze(flat(color))["luminance"] == pytest.approx(luminance, abs=0.005)


def test_what_is_clear_counts_as_white_and_has_no_colour(analyze):
    half = PIL.Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    half.paste((0, 0, 0, 255), (0, 0, 50, 100))
    result = analyze(photographs.encode(half, "png"))
    assert [color["name"] for color in result["colors"]] == ["black"]
    assert result["luminance"] == pytest.approx(0.5, abs=0.02)
    placeholder = Placeholder(result["thumbhash"])
    assert placeholder.color(0.1)[3] > 0.8
    assert placeholder.color(0.9)[3] < 0.2
    nothing = analyze(photographs.encode(PIL.Image.new("RGBA", (9, 9)), "png"))
    assert nothing["colors"] == []
    assert nothing["luminance"] == 1
    assert Placeholder(nothing["thumbhash"]).color()[3] == 0


@pytest.mark.parametrize(
    "content",
    [
        photographs.photograph("jpg"),
        photographs.oriented(6),
        photographs.cmyk("jpg"),
        photographs.cmyk("tif"),
        photographs.grey_16_bit("png"),
        photographs.grey_16_bit_big_endian(),
        photographs.colour_16_bit(),
        photographs.floating_point(),
        photographs.bilevel(),
        photographs.palette("png"),
        photographs.transparent("png"),
        photographs.transparent("webp"),
        photographs.animated("webp"),
        photographs.mpo(),
        photographs.one_pixel("png"),
        photographs.unique("png", width=3000, height=2),
        photographs.unique("png", width=1, height=900),
    ],
)
def test_pictures_of_every_kind(analyze, tmp_path, content):
    result = analyze(content)
    assert result["colors"]
    placeholder = Placeholder(result["thumbhash"])
    picture = looked_at(tmp_path / "again", content).open()
    assert placeholder.is_landscape == (picture.width > picture.height)
    mean = ImageStat.Stat(to_rgb(picture)).mean
    if not placeholder.has_alpha:
        for seen, drawn in zip(mean, placeholder.mean(), strict=True):
            assert seen / 255 == pytest.approx(drawn, abs=0.05)


def test_16_bits_are_scaled_and_not_clipped(analyze):
    dark = PIL.Image.new("I;16", (50, 50), 6000)
    assert analyze(photographs.encode(dark, "png"))["luminance"] == pytest.approx(0.09, abs=0.01)


@pytest.mark.parametrize("name", ["cat", "rocket", "astronaut", "coffee"])
def test_the_placeholder_looks_like_the_picture(analyze, name):
    """Far more than a flat area in the mean colour would."""
    picture = photographs.picture(name, 160)
    placeholder = Placeholder(analyze(photographs.encode(picture, "png"))["thumbhash"])
    small = picture.convert("RGB").resize((16, 16), PIL.Image.Resampling.BOX)
    drawn = small.copy()
    for y in range(16):
        for x in range(16):
            color = placeholder.color((x + 0.5) / 16, (y + 0.5) / 16)[:3]
            drawn.putpixel((x, y), tuple(round(255 * min(1, max(0, c))) for c in color))
    flat = PIL.Image.new("RGB", (16, 16), tuple(round(255 * c) for c in placeholder.mean()))
    assert difference(drawn, small) < 0.85 * difference(flat, small)


def difference(one: PIL.Image.Image, other: PIL.Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).rms)


def test_the_placeholder_is_small(analyze):
    for name in photographs.FILES:
        text = analyze(photographs.path(name).read_bytes())["thumbhash"]
        assert len(base64.b64decode(text)) <= 25
