"""Images that nobody's camera makes: bombs, liars, and files that are two things at once.

All are made here, most from the photographs of `photographs`. `ACCEPTED` are sound images in spite
of all; `REFUSED` cost much more to open than they are worth, or are no images; in `EITHER` is what
may be the one or the other, as long as somebody says which.
"""

import base64
import functools
import io
import itertools
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import photographs
from PIL import Image

HTML = b"<html><body><script>document.title='ran'</script></body></html>"
SCRIPT = b"*/=1;document.title='ran';/*"
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
    b"<script>document.title='ran'</script></svg>"
)

# pi-heif reads HEIC but does not write it; this was written by its sister pillow-heif: 48x32, teal.
HEIC = zlib.decompress(
    base64.b64decode(
        "eNpjYGCQSSupLMhIzUxmAILczDRDEDs3MzGNgYGxNje1JJEBAhQzUnKKoGyGgszkEgY0oJSZkw82xMWBgREIgY"
        "BxIYQGAgkgVs7MzEsD80CiokBOKhOUl1GWbAhi8hVkluTClfzNLCgqANJ3MwuS84F0GVCZMyMzSGgCWJHcB4Y/"
        "f3/8YGDgZ04A6pBwYORh/P8fpIAZpIIZhOR2MTkkAiW1nBgZ0WQWKDSyTnv1ZNnOHRwZBgpAIWYQwaCYBFTO5s"
        "J4sPhAJ9AS4eT8nKK85JwKoCgvA1sDUEgks7ggFeozByjWSM5JBLnMAOp4BRD9////D0CaCUg/ANFALFCQWZEJ"
        "0sjMwcEBCpnMglxYIAPDjbWRiZm1BaQ/NyURFMgiGozrWSR+nCq8/v+Dkn/55G/LhQSfAwAA8FaD"
    )
)

# The same way, with EXIF data: taken on 2024-07-01 at 10:00:00.250, two hours ahead of UTC.
HEIC_WITH_EXIF = zlib.decompress(
    base64.b64decode(
        "eNpdUc9LG0EUfpNJ4lLq7wihFFk9ib3MLkolp9Tao7R/gutkl32wm0yToPGmIBRv0ULPnuxR8GR7KO21/0BPhVIK"
        "BU85SSiV9b3JWoqPefu++eZ7896+AYDHUXfPxCFqIEsx8hinGEQA4lMadgMY2ULcSNo5BoO6C/dsBZOWvWSjDgUQ"
        "jMTPUSSrEsfMn3/MCfkaYjOyOz6do004kgHEO9qD/0jBkhc9tPIJg90UciXcoGkbit/R6BbFHcp9LiRTfSuaH8Df"
        "m+EQYFJuUUa1Lh6KLGOBZIXkNf+xUA/ocHldiHsnp+5B6d3Vr7MPl06sXKIkf2Bhm+TlDfGl8/mIiszqVtJu6qRH"
        "7DiU94mqYMeE+e/Wc1/SScCdqbx5l2OWZQMeAsUf+TCmDPaQE6XjODxANOndWwgQpYOCLB0SfoTtMMr5Cd3oaDt8"
        "vvkibQT8SpUlcV6sDr++/pYNFl/uvr1+PzP9m/jyaJqbm7BMOwekmLSVy+S+mLL4AT/SG4Ri3u06l3lmTBICvopb"
        "zdD1VqnFvrTqCnnSn7Z4jHz/5Njior+qbIO+8ldq6mlNea6naooXPFE+B7gFbOZx+w=="
    )
)


WEBP = photographs.photograph("webp")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: bytes) -> bytes:
    """A photograph as PNG with more chunks before its pixels."""
    content = photographs.photograph("png")
    return content[:33] + b"".join(chunks) + content[33:]


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(*segments: bytes) -> bytes:
    """A photograph as JPEG with more segments before its pixels."""
    content = photographs.photograph("jpg")
    return content[:2] + b"".join(segments) + content[2:]


def exif(tags: int) -> bytes:
    """EXIF data with this many tags that mean nothing."""
    entries = b"".join(struct.pack("<HHII", 0x9000 + n, 3, 1, n) for n in range(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + bytes(4)


def tiff(*tags: tuple[int, int, int, int], next_directory: int = 0, more: bytes = b"") -> bytes:
    """A grey TIFF of 8x8 pixels, with more tags, each (tag, type, count, value); then `more`."""
    usual = [
        (256, 3, 1, 8),
        (257, 3, 1, 8),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 3, 1, 8),
        (279, 4, 1, 64),
    ]
    given = {tag for tag, *_ in tags}
    entries = sorted([each for each in usual if each[0] not in given] + list(tags))
    packed = b"".join(struct.pack("<HHII", *each) for each in entries)
    start = struct.pack("<2sHI", b"II", 42, 72) + bytes(range(64))
    return (
        start + struct.pack("<H", len(entries)) + packed + struct.pack("<I", next_directory) + more
    )


def gif(*blocks: bytes, size: tuple[int, int] = (1, 1)) -> bytes:
    """A GIF of two colours made of these blocks."""
    head = b"GIF89a" + struct.pack("<HH", *size) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return head + b"".join(blocks) + b";"


GIF_FRAME = b",\0\0\0\0\1\0\1\0\0" + b"\2\2\x44\1\0"


def gif_comment(text: bytes) -> bytes:
    pieces = [text[i : i + 255] for i in range(0, len(text), 255)]
    return b"!\xfe" + b"".join(bytes([len(each)]) + each for each in pieces) + b"\0"


def gif_and_script() -> bytes:
    """A GIF that is also JavaScript: its width is the beginning of a comment."""
    width, height = int.from_bytes(b"/*", "little"), 8
    content = bytearray(gif(gif_comment(SCRIPT), GIF_FRAME, size=(width, height)))
    return bytes(content) + b"*/"


def with_archive() -> bytes:
    """A JPEG that is also a ZIP archive."""
    file = io.BytesIO()
    file.write(photographs.photograph("jpg"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("page.html", HTML)
    return file.getvalue()


def from_a_phone() -> bytes:
    """A JPEG as phones write it: a second picture, a depth map of MiB, and a large profile."""
    note = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32
    depth = random.Random(7).randbytes(6 * 1024 * 1024)
    pieces = [depth[i : i + 65_000] for i in range(0, len(depth), 65_000)]
    profile = [segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 8]) + bytes(65_000)) for n in range(1, 9)]
    content = photographs.mpo()
    more = [*(segment(0xE1, note + each) for each in pieces), *profile]
    return content[:2] + b"".join(more) + content[2:]


def many_scans(scans: int) -> bytes:
    """A progressive JPEG of 8 megapixels whose last scan comes again and again, empty."""
    content = photographs.encode(Image.new("RGB", (4000, 2000), "teal"), "jpg", progressive=True)
    last = content[content.rindex(b"\xff\xda") :][:10]
    return content[:-2] + last * scans + b"\xff\xd9"


def animated_webp(frames: int) -> bytes:
    one = photographs.encode(Image.new("RGB", (1, 1)), "webp", lossless=True)[12:]
    head = struct.pack("<I", 2)[:1] + bytes(3) + bytes(3) + bytes(3)
    frame = bytes(15) + b"\0" + one
    pieces = b"VP8X" + struct.pack("<I", 10) + head + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    pieces += (b"ANMF" + struct.pack("<I", len(frame)) + frame) * frames
    return b"RIFF" + struct.pack("<I", 4 + len(pieces)) + b"WEBP" + pieces


def large_webp() -> bytes:
    """30 bytes that say that they are a picture of 16383x16383 pixels."""
    picture = b"\x30\x01\0\x9d\x01\x2a\xff\x3f\xff\x3f"
    return b"RIFF\x16\0\0\0WEBPVP8 " + struct.pack("<I", len(picture)) + picture


def run_length_bitmap(runs: int) -> bytes:
    """A bitmap whose pixels are nothing but ends of lines."""
    head = struct.pack("<IiiHHIIiiII", 40, 100, 100, 1, 8, 1, 2 * runs, 0, 0, 2, 2)
    content = head + bytes(8) + bytes(2 * runs)
    return b"BM" + struct.pack("<IHHI", 14 + len(content), 0, 0, 14 + 48) + content


def sized(content: bytes, width: int, height: int) -> bytes:
    """A JPEG that says it is of this size, whatever it is."""
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def text_bomb(kind: bytes, count: int, inflated: int) -> bytes:
    """A PNG whose compressed texts are so many bytes each."""
    between = {b"zTXt": b"\0\0", b"iTXt": b"\0\1\0\0\0", b"iCCP": b"\0\0"}[kind]
    data = zlib.compress(bytes(inflated), 9)
    return png_with(*(chunk(kind, b"note%d" % n + between + data) for n in range(count)))


def control(frames: int) -> bytes:
    """What makes a PNG an animation, by its words."""
    return chunk(b"acTL", struct.pack(">II", frames, 0))


def frame_control(number: int, width: int, height: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 1, 0, 0))


def many_pages(pages: int) -> bytes:
    """A TIFF with this many directories of one tag, in a chain."""
    first = len(tiff())
    chain = b"".join(
        struct.pack("<HHHIII", 1, 256, 4, 1, 8, first + 18 * (n + 1)) for n in range(pages)
    )
    return tiff(next_directory=first, more=chain)


def flat_webp(width: int, height: int) -> bytes:
    """A WebP in one color, which says as many bytes of any number of pixels (RFC 9649, 3.4)."""
    one = photographs.encode(Image.new("RGB", (1, 1)), "webp", lossless=True, method=0)
    size = (width - 1) | (height - 1) << 14
    return one[:21] + size.to_bytes(4, "little") + one[25:]


def webp_of_length(stated: int) -> bytes:
    """A photograph as WebP, whose header states this size (RFC 9649, 2.4)."""
    return WEBP[:4] + struct.pack("<I", stated) + WEBP[8:]


def repeated_scans(scans: int) -> bytes:
    """A progressive JPEG of 48 megapixels whose last scan comes again and again, whole."""
    content = photographs.encode(Image.new("RGB", (8000, 6000)), "jpg", progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * scans + content[-2:]


def column() -> bytes:
    """A grey PNG of 1 x 50 million pixels, each behind the number of its row's filter."""
    header = struct.pack(">IIBBBBB", 1, 50_000_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(2 * 50_000_000))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def small_frame(content: bytes, size: tuple[int, int], left: int, top: int) -> bytes:
    """A GIF whose first frame does not cover its canvas, which becomes of this size."""
    frame = content.index(b"," + bytes(4) + content[6:10])
    placed = struct.pack("<HH", left, top)
    changed = content[:6] + struct.pack("<HH", *size) + content[10 : frame + 1] + placed
    return changed + content[frame + 5 :]


def clean_aperture(avif: bytes, *numbers: int) -> bytes:
    """An AVIF of which a part is shown: its width, height and place of the middle, as fractions."""
    return with_property(avif, struct.pack(">I4s4IiIiI", 40, b"clap", *numbers), is_essential=True)


def with_profile(picture: bytes, profile: bytes) -> bytes:
    """An AVIF or HEIC with a color profile."""
    return with_property(picture, struct.pack(">I8s", 12 + len(profile), b"colrprof") + profile)


def with_property(picture: bytes, box: bytes, is_essential: bool = False) -> bytes:
    """An AVIF or HEIC with one more property of its first item, which is the picture.

    What comes behind moves by its length (ISO/IEC 14496-12 and 23008-12).
    """
    content = bytearray(picture)
    moved = len(box) + 1
    ipco, ipma, iloc = (content.index(kind) - 4 for kind in (b"ipco", b"ipma", b"iloc"))
    number = len(list(boxes(content, ipco))) + 1
    behind = ipma + 19 + content[ipma + 18]
    content[ipma + 18] += 1
    content[behind:behind] = bytes([is_essential << 7 | number])
    end = ipco + length_at(content, ipco)
    content[end:end] = box
    for kind, grown in ((b"ipco", len(box)), (b"ipma", 1), (b"iprp", moved), (b"meta", moved)):
        place = content.index(kind) - 4
        struct.pack_into(">I", content, place, length_at(content, place) + grown)
    has_base = content[iloc + 13] >> 4 == 4
    [items] = struct.unpack_from(">H", content, iloc + 14)
    for item in range(items):
        offset = iloc + 20 + (18 if has_base else 14) * item + (0 if has_base else 2)
        struct.pack_into(">I", content, offset, length_at(content, offset) + moved)
    return bytes(content)


def boxes(content: bytes, place: int) -> Iterator[int]:
    """Where the boxes inside the one at a place begin."""
    position, end = place + 8, place + length_at(content, place)
    while position < end:
        yield position
        position += length_at(content, position)


def length_at(content: bytes, place: int) -> int:
    return int.from_bytes(content[place : place + 4], "big")


# Sound images that take long to decode, for the few bytes that they have.
TOO_DEAR: dict[str, Callable[[], bytes]] = {
    "a WebP of 50 megapixels in 34 bytes": lambda: flat_webp(8000, 6250),
    "a WebP of 36 megapixels in 34 bytes": lambda: flat_webp(6000, 6000),
    "a JPEG of 48 megapixels with 90 more scans": lambda: repeated_scans(90),
    "a PNG of one column": column,
}
ACCEPTED: dict[str, Callable[[], bytes]] = {
    "a PNG and a page": lambda: png_with(chunk(b"tEXt", b"Title\0" + HTML)) + HTML,
    "a JPEG and a script": lambda: jpeg_with(segment(0xFE, SCRIPT)) + SCRIPT,
    "a JPEG and an archive": with_archive,
    "a WebP and a page": lambda: photographs.photograph("webp") + HTML,
    "a GIF and a script": gif_and_script,
    "from a phone": from_a_phone,
    "a TIFF whose directory refers to itself": lambda: tiff(next_directory=72),
    "a PNG with 1,000 texts": lambda: png_with(*[chunk(b"tEXt", b"k\0text")] * 1000),
    "a PNG with 200 MB of compressed texts": lambda: text_bomb(b"zTXt", 200, 1_000_000),
    "a PNG with a large compressed text": lambda: text_bomb(b"iTXt", 1, 100_000_000),
    "a PNG with many large compressed texts": lambda: text_bomb(b"iTXt", 900, 5_000_000),
    "a PNG with a large text": lambda: png_with(chunk(b"tEXt", b"Title\0" + b"x" * 6_000_000)),
    "a WebP that says it is 8 bytes long": lambda: webp_of_length(0),
    "a WebP that says it is half as long": lambda: webp_of_length(len(WEBP) // 4 * 2),
    "a WebP that says it is longer": lambda: webp_of_length(len(WEBP) + 1000),
    "a WebP that says it is 4 GB long": lambda: webp_of_length(2**32 - 2),
    "a WebP that says it is longer, and a page": lambda: webp_of_length(2**32 - 2) + HTML,
    "a PNG that says it has 2 billion frames": lambda: png_with(control(2**31 - 1)),
    "an animated GIF": lambda: gif(*[GIF_FRAME] * 300),
    "an animated WebP": lambda: animated_webp(300),
    "a HEIC": lambda: HEIC,
    "an AVIF": lambda: photographs.encode_as("AVIF"),
    "a padded JPEG": lambda: jpeg_with(segment(0xFE, b"note"), bytes(4000)),
}
REFUSED: dict[str, Callable[[], bytes]] = {
    "a page": lambda: HTML,
    "an SVG": lambda: SVG,
    "an SVG with a declaration": lambda: b"<?xml version='1.0'?>" + SVG,
    "a JPEG with 20 MB of EXIF": lambda: jpeg_with(
        *[segment(0xE1, b"Exif\0\0" + bytes(65_000))] * 300
    ),
    "a JPEG with 20 MB of notes": lambda: jpeg_with(*[segment(0xFE, bytes(65_000))] * 300),
    "a JPEG with 100,000 segments": lambda: jpeg_with(*[segment(0xFE, b"")] * 100_000),
    "a JPEG with 20 MB of nothing": lambda: jpeg_with(segment(0xFE, b""), bytes(20_000_000)),
    "a JPEG with 20 MB of filling": lambda: jpeg_with(b"\xff" * 20_000_000),
    "a JPEG with 10,000 scans": lambda: many_scans(10_000),
    "a JPEG of 4,000 megapixels": lambda: sized(photographs.photograph("jpg"), 65_000, 65_000),
    "a PNG with 50,000 texts": lambda: png_with(*[chunk(b"tEXt", b"k\0text")] * 50_000),
    "a PNG with 200,000 pieces": lambda: png_with(*[chunk(b"IDAT", b"")] * 200_000),
    "a PNG with 20 MB of metadata": lambda: png_with(chunk(b"prVt", bytes(20_000_000))),
    "a PNG with a large profile": lambda: text_bomb(b"iCCP", 1, 100_000_000),
    "a PNG with 24,000 tags": lambda: png_with(chunk(b"eXIf", exif(24_000))),
    "a PNG with large frames": lambda: png_with(
        control(200), *(frame_control(n, 7000, 7000) for n in range(200))
    ),
    "a PNG of 3,600 megapixels": photographs.png_bomb,
    "a GIF of 10,000 frames": lambda: gif(*[GIF_FRAME] * 10_000),
    "a GIF with 20 MB of comments": lambda: gif(gif_comment(bytes(20_000_000)), GIF_FRAME),
    "a GIF with 20 MB of nothing": lambda: gif(bytes(20_000_000), GIF_FRAME),
    "a GIF of 4,000 megapixels": lambda: gif(GIF_FRAME, size=(65_000, 65_000)),
    "a WebP of 10,000 frames": lambda: animated_webp(10_000),
    "a WebP of 268 megapixels": large_webp,
    "a bitmap of 10 million ends of lines": lambda: run_length_bitmap(10_000_000),
    "a TIFF with 24,000 tags": lambda: tiff(*((1000 + n, 3, 1, 0) for n in range(24_000))),
    "a TIFF with the same values 1,000 times": lambda: tiff(
        *((1000 + n, 7, 1_000_000, 8) for n in range(1000)), more=bytes(1_000_000)
    ),
    "a TIFF of a million strips": lambda: tiff((273, 4, 1_000_000, 300), more=bytes(4_000_000)),
    "a TIFF with a tile of 1,600 megapixels": lambda: tiff(
        (322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 8), (325, 4, 1, 64)
    ),
    "a TIFF of 10,000 pages": lambda: many_pages(10_000),
}
EITHER: dict[str, Callable[[], bytes]] = {
    "a JPEG that says it is higher": lambda: sized(photographs.photograph("jpg"), 160, 3000),
    "a JPEG that says it is wider": lambda: sized(photographs.photograph("jpg"), 3000, 106),
    "a JPEG with 99 scans": lambda: many_scans(89),
    "a PNG with two headers": lambda: png_with(photographs.photograph("png")[8:33]),
    "a PNG without a palette": lambda: photographs.palette("png").replace(b"PLTE", b"prVt"),
    "a TIFF with endless tags": lambda: tiff()[:72] + b"\xff\xff" + tiff()[74:],
    "a TIFF that ends in its tags": lambda: tiff()[:90],
    "a big TIFF without end": lambda: b"II+\0\x08\0\0\0" + b"\xff" * 16,
    "a GIF without a frame": lambda: gif(),
    "an AVIF in half": lambda: photographs.truncated(photographs.encode_as("AVIF"), 0.5),
    "a HEIC in half": lambda: photographs.truncated(HEIC, 0.5),
    "a HEIC that says it is larger": lambda: HEIC.replace(b"\0\0\0\x40" * 2, b"\0\0\xff\xff" * 2),
    "a bitmap of negative size": lambda: (
        photographs.photograph("bmp")[:18]
        + struct.pack("<ii", -160, -(2**31))
        + photographs.photograph("bmp")[26:]
    ),
}
EVERYTHING = ACCEPTED | REFUSED | EITHER | TOO_DEAR


@functools.cache
def odd(name: str) -> bytes:
    """One of the images above, by its name."""
    return EVERYTHING[name]()


def cuts(content: bytes) -> list[bytes]:
    """The first sixteenth of a file, the first two, and so on, but for the whole."""
    return [content[: len(content) * part // 16] for part in range(1, 16)]


def mutated(seed: int) -> Iterator[bytes]:
    """Endless odd images with some bytes changed, most of them near the start."""
    chance = random.Random(seed)
    small = [name for name in EVERYTHING if len(odd(name)) < 100_000]
    ordinary = [photographs.photograph(each, width=48) for each in photographs.EXTENSIONS]
    for number in itertools.count():
        content = bytearray(ordinary[number % 5] if number % 2 else odd(chance.choice(small)))
        for _ in range(chance.randint(1, 8)):
            limit = min(chance.choice([64, 512, len(content)]), len(content))
            content[chance.randrange(limit)] = chance.choice([0, 1, 127, 128, 255, number & 255])
        yield bytes(content[: chance.randrange(1, len(content))] if number % 7 == 0 else content)
