"""ICC profiles for tests, made here from primaries and curves (ICC.1:2001-04, the version 2)."""

import functools
import itertools
import struct
from collections.abc import Callable

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
D65 = (0.3127, 0.3290)
# The chromaticities of red, green and blue.
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
# What full cyan, magenta, yellow and black leave of linear red, green and blue.
INKS = np.array([(0.02, 0.30, 0.62), (0.55, 0.01, 0.20), (0.90, 0.75, 0.02), (0.03, 0.03, 0.03)])
GRID = 9
ENCODED_LAB = np.array([65280 / 100, 256, 256])

Curve = Callable[[float], float]


def srgb_curve(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def gamma(exponent: float) -> Curve:
    return lambda value: value**exponent


@functools.cache
def rgb(name: str, primaries: tuple[tuple[float, float], ...], curve: Curve) -> bytes:
    """The profile of a display.

    Args:
        name: what it says of itself.
        primaries: chromaticities x and y of red, green and blue; white is D65.
        curve: from what is stored to light, both from 0 to 1.
    """
    columns = to_xyz_d50(primaries).T
    tags = {b"wtpt": xyz(D50)}
    tags |= {b"%cXYZ" % letter: xyz(column) for letter, column in zip(b"rgb", columns, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), sampled(curve))
    return profile(name, b"mntr", b"RGB ", b"XYZ ", tags)


@functools.cache
def gray(name: str, curve: Curve) -> bytes:
    tags = {b"wtpt": xyz(D50), b"kTRC": sampled(curve)}
    return profile(name, b"mntr", b"GRAY", b"XYZ ", tags)


@functools.cache
def cmyk(name: str = "Ink on paper") -> bytes:
    """The profile of a press whose inks lie over each other like filters."""
    amounts = np.array(list(itertools.product(np.linspace(0, 1, GRID), repeat=4)))
    light = np.prod(1 - amounts[:, :, None] * (1 - INKS), axis=1)
    lab = lab_of(light @ to_xyz_d50(SRGB).T)
    encoded = (lab + np.array([0, 128, 128])) * ENCODED_LAB
    ends = struct.pack(">2H", 0, 65535)
    table = (
        b"mft2"
        + struct.pack(">IBBBB", 0, 4, 3, GRID, 0)
        + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
        + struct.pack(">HH", 2, 2)
        + ends * 4
        + encoded.clip(0, 65535).round().astype(">u2").tobytes()
        + ends * 3
    )
    tags = {b"wtpt": xyz(D50), b"A2B0": table, b"A2B1": table}
    return profile(name, b"prtr", b"CMYK", b"Lab ", tags)


def to_xyz_d50(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """The matrix from linear RGB to XYZ of D50, adapted by Bradford (ICC.1:2001-04, annex E)."""
    unscaled = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    white = np.array((D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]))
    matrix = unscaled * np.linalg.solve(unscaled, white)
    cones = np.array(
        [(0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)]
    )
    adapted = np.diag(cones @ D50 / (cones @ white))
    return np.linalg.inv(cones) @ adapted @ cones @ matrix


def lab_of(colors: np.ndarray) -> np.ndarray:
    """XYZ of D50 as CIE Lab."""
    relative = colors / D50
    linear = relative * (841 / 108) + 4 / 29
    f = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), linear)
    lightness, a, b = 116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])
    return np.stack([lightness, a, b], axis=1)


def profile(name: str, device: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    described = name.encode() + b"\0"
    text = b"desc" + struct.pack(">II", 0, len(described)) + described + bytes(78)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", **tags}
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for kind, content in tags.items():
        table += struct.pack(">4sII", kind, start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sIIIQI",
        *(start + len(data), b"none", 0x02400000, device, space, pcs),
        *(struct.pack(">6H", 2020, 1, 1, 0, 0, 0), b"acsp", b"\0\0\0\0", 0, 0, 0, 0, 0),
    )
    header += struct.pack(">3i", *(round(value * 65536) for value in D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def xyz(color: np.ndarray | tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in color))


def sampled(curve: Curve, count: int = 1024) -> bytes:
    values = (round(65535 * curve(i / (count - 1))) for i in range(count))
    return b"curv\0\0\0\0" + struct.pack(f">I{count}H", count, *values)
