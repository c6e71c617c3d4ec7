"""Pictures for tests: real photographs, and whatever can be wrong or unusual about an image file.

The photographs come with scikit-image, in its package's folder. Everything else is made from them,
small, and kept for the rest of the process.
"""

import functools
import importlib.util
import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

# Which photographs there are: the short name, and the file.
FILES = {
    "astronaut": "astronaut.png",  # 512x512
    "cat": "chelsea.png",  # 451x300
    "coffee": "coffee.png",  # 600x400
    "rocket": "rocket.jpg",  # 640x427
    "galaxies": "hubble_deep_field.jpg",  # 1000x872
    "retina": "retina.jpg",  # 1411x1411
    "motorcycle": "motorcycle_left.png",  # 741x500
    "camera": "camera.png",  # 512x512, grey
    "logo": "logo.png",  # 500x500, with an alpha channel
}
EXTENSIONS = ("png", "jpg", "webp", "bmp", "tif")
PILLOW = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF"}
CONTENT_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tif": "image/tiff",
}

# What has to be done to the displayed picture so that the orientation turns it back: the inverse
# of what the EXIF standard (CIPA DC-008, tag 0x0112) says a viewer does.
_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def folder() -> Path:
    """scikit-image's folder of pictures, found without importing it."""
    spec = importlib.util.find_spec("skimage")
    assert spec and spec.submodule_search_locations, "scikit-image is not installed"
    return Path(spec.submodule_search_locations[0]) / "data"


def path(name: str) -> Path:
    """The file of a photograph as it came, such as `path("rocket")`."""
    return folder() / FILES[name]


@functools.cache
def _picture(name: str, width: int | None) -> Image.Image:
    with Image.open(path(name)) as file:
        whole = file.convert("RGBA" if name == "logo" else "L" if name == "camera" else "RGB")
    return ImageOps.contain(whole, (width, width)) if width else whole


def picture(name: str = "cat", width: int | None = 160) -> Image.Image:
    """A photograph as a Pillow image of one's own, `width` pixels on its longer side."""
    return _picture(name, width).copy()


def encode(image: Image.Image, extension: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, PILLOW[extension], **options)
    return file.getvalue()


@functools.cache
def encode_as(pillow: str) -> bytes:
    """A photograph in a format that is none of `EXTENSIONS`, by Pillow's name for it."""
    file = io.BytesIO()
    _picture("cat", 64).save(file, pillow)
    return file.getvalue()


@functools.cache
def photograph(extension: str = "jpg", name: str = "cat", width: int | None = 160) -> bytes:
    """A photograph in one of the formats `EXTENSIONS`."""
    return encode(_picture(name, width), extension)


@functools.cache
def oriented(orientation: int, extension: str = "jpg", name: str = "cat") -> bytes:
    """A photograph stored turned or mirrored, which its EXIF orientation (1 to 8) puts right.

    All are displayed as the same picture. BMP has no EXIF data.
    """
    method = _STORED[orientation]
    shown = _picture(name, 160)
    stored = shown.transpose(method) if method is not None else shown
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(stored, extension, exif=exif)


@functools.cache
def oriented_behind_pixels(orientation: int = 6) -> bytes:
    """A PNG whose EXIF data comes after its pixels, as the standard allows."""
    return _moved_to_end(oriented(orientation, "png"), b"eXIf")


@functools.cache
def cmyk(extension: str = "jpg") -> bytes:
    """A JPEG or TIFF in the four colours of print."""
    return encode(_picture("coffee", 160).convert("CMYK"), extension)


@functools.cache
def grey_16_bit(extension: str = "png", name: str = "camera") -> bytes:
    """Grey of 16 bits a pixel, from 0 to 65535, as PNG or TIFF."""
    return encode(_16_bit(name), extension)


@functools.cache
def grey_16_bit_big_endian() -> bytes:
    """The same as a TIFF in the other order of bytes, by hand, as Pillow does not write it."""
    image = _16_bit("camera")
    pixels = b"".join(struct.pack(">H", value) for value in image.get_flattened_data())
    tags = [
        (256, 4, image.width),
        (257, 4, image.height),
        (258, 3, 16 << 16),
        (259, 3, 1 << 16),
        (262, 3, 1 << 16),
        (273, 4, 8),
        (277, 3, 1 << 16),
        (278, 4, image.height),
        (279, 4, len(pixels)),
    ]
    entries = b"".join(struct.pack(">HHII", tag, kind, 1, value) for tag, kind, value in tags)
    start = struct.pack(">2sHI", b"MM", 42, 8 + len(pixels))
    return start + pixels + struct.pack(">H", len(tags)) + entries + bytes(4)


def _16_bit(name: str) -> Image.Image:
    return (
        _picture(name, 120)
        .convert("L")
        .convert("I")
        .point(lambda value: value * 257)
        .convert("I;16")
    )


@functools.cache
def colour_16_bit() -> bytes:
    """A PNG of 16 bits per channel in colour, which Pillow can read but not write."""
    image = _picture("coffee", 96)
    rows = image.tobytes()
    stride = image.width * 3
    lines = (rows[i : i + stride] for i in range(0, len(rows), stride))
    raw = b"".join(b"\0" + bytes(b for value in line for b in (value, value)) for line in lines)
    return png(image.width, image.height, zlib.compress(raw), bit_depth=16)


@functools.cache
def floating_point() -> bytes:
    """A TIFF whose pixels are fractions from 0 to 1."""
    grey = _picture("camera", 96).convert("F").point(lambda value: value * (1 / 255) + 0)
    return encode(grey, "tif")


@functools.cache
def transparent(extension: str = "png") -> bytes:
    """A picture that is opaque on its left half and clear on its right, as PNG, WebP or TIFF."""
    image = _picture("cat", 160).convert("RGBA")
    clear = Image.new("L", (image.width - image.width // 2, image.height), 0)
    alpha = Image.new("L", image.size, 255)
    alpha.paste(clear, (image.width // 2, 0))
    image.putalpha(alpha)
    return encode(image, extension, **({"lossless": True} if extension == "webp" else {}))


@functools.cache
def one_pixel(extension: str = "png") -> bytes:
    return encode(Image.new("RGB", (1, 1), "brown"), extension)


@functools.cache
def palette(extension: str = "png") -> bytes:
    return encode(_picture("coffee", 160).quantize(32), extension)


@functools.cache
def bilevel(extension: str = "tif") -> bytes:
    """One bit a pixel, as faxes and scans are."""
    options = {"compression": "group4"} if extension == "tif" else {}
    return encode(_picture("camera", 160).convert("1"), extension, **options)


@functools.cache
def compressed_tiff(compression: str = "tiff_lzw") -> bytes:
    """A TIFF by libtiff: `tiff_lzw`, `tiff_adobe_deflate`, `packbits` or `jpeg`."""
    return encode(_picture("cat", 160), "tif", compression=compression)


@functools.cache
def animated(extension: str = "webp", frames: int = 3) -> bytes:
    """An animation as WebP, PNG or several pages of TIFF."""
    images = [_picture("cat", 80).rotate(10 * i) for i in range(frames)]
    return encode(images[0], extension, save_all=True, append_images=images[1:])


@functools.cache
def progressive_jpeg(name: str = "cat", width: int | None = 160) -> bytes:
    return encode(_picture(name, width), "jpg", progressive=True)


@functools.cache
def mpo() -> bytes:
    """A JPEG with a second picture inside, as cameras and phones write it."""
    file = io.BytesIO()
    first = _picture("cat", 160)
    first.save(file, "MPO", save_all=True, append_images=[first.resize((80, 53))])
    return file.getvalue()


@functools.cache
def huge_exif() -> bytes:
    """A JPEG with as much EXIF data as there can be, 64 kB less a little."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "long " * 13_000
    return encode(_picture("cat", 160), "jpg", exif=exif)


@functools.cache
def broken_exif() -> bytes:
    """A JPEG whose EXIF data is nonsense."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(256))
    return encode(_picture("cat", 160), "jpg", exif=exif)


def truncated(content: bytes, fraction: float) -> bytes:
    """The first part of a file, such as 0.5 for half of it."""
    return content[: int(len(content) * fraction)]


def empty() -> bytes:
    return b""


def text() -> bytes:
    """What is not an image, whatever it is called."""
    return b"This is a text, though somebody called it photograph.png.\n" * 20


@functools.cache
def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few dozen bytes that says it is this large."""
    return png(width, height, zlib.compress(bytes(100)))


def png(width: int, height: int, compressed: bytes, bit_depth: int = 8) -> bytes:
    """A PNG in colour around compressed rows of pixels."""
    header = struct.pack(">IIBBBBB", width, height, bit_depth, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", compressed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def unique(extension: str = "jpg", number: int = 0, width: int = 64, height: int = 48) -> bytes:
    """One of any number of small different pictures."""
    colour = random.Random(number).randbytes(3)
    image = Image.new("RGB", (width, height), tuple(colour))
    image.putpixel((number % width, number // width % height), (255, 255, 255))
    return encode(image, extension)


def piece(number: int, width: int = 240, height: int = 180) -> bytes:
    """One of any number of real pictures: a piece of a photograph, turned or mirrored, as JPEG."""
    chosen = random.Random(number)
    whole = _picture(chosen.choice(("cat", "coffee", "rocket", "galaxies", "retina")), None)
    left = chosen.randrange(whole.width - width)
    top = chosen.randrange(whole.height - height)
    cut = whole.crop((left, top, left + width, top + height))
    cut = cut.transpose(chosen.choice([*Image.Transpose]))
    # Of several thousand some would be the same.
    return encode(cut, "jpg", comment=str(number).encode())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _moved_to_end(content: bytes, kind: bytes) -> bytes:
    """A PNG with its chunk of this kind just before the last one."""
    position, kept, moved = 8, content[:8], b""
    while position < len(content):
        (length,) = struct.unpack_from(">I", content, position)
        chunk = content[position : position + 12 + length]
        if chunk[4:8] == kind:
            moved = chunk
        else:
            kept += (moved if chunk[4:8] == b"IEND" else b"") + chunk
        position += len(chunk)
    return kept
