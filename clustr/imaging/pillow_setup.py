"""Pillow's settings for this process: its formats, its limits, and how strict it is."""

import ctypes
import io
import struct
import warnings
from importlib import import_module
from pathlib import Path

from PIL import Image, PngImagePlugin, WebPImagePlugin

from clustr.imaging import corrections, header_checks
from clustr.imaging.formats import can_read

# Memory for the texts of a PNG; further texts are left out.
PNG_TEXTS_BYTES = 4 * 1024 * 1024
# The modules of Pillow for the formats of `clustr.imaging.formats`, and MPO.
PILLOW_MODULES = ("Avif", "Bmp", "Gif", "Jpeg", "Mpo", "Png", "Tiff", "WebP")
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of <malloc.h>


def prepare(max_pixels: int) -> None:
    """Load Clustr's formats, and refuse images of more than `max_pixels` pixels, in this process.

    None of Pillow's other formats is loaded.

    Pillow warns above its limit and raises above twice its limit. The warning is made an error, so
    that the limit holds wherever an image is opened. Pillow's other warnings, such as those about
    broken EXIF data, are ignored: they are no reason to refuse a picture that can be displayed.
    """
    for name in PILLOW_MODULES:
        import_module(f"PIL.{name}ImagePlugin")
    if can_read("heic"):
        import_module("pi_heif").register_heif_opener()
    # Pillow has no other way to be given one.
    PngImagePlugin.PngStream = TolerantPngStream  # type: ignore[misc]
    PngImagePlugin.MAX_TEXT_MEMORY = PNG_TEXTS_BYTES
    Image.register_open("WEBP", TolerantWebPImageFile, Image.OPEN["WEBP"][1])
    corrections.prepare()
    _silence_libtiff()
    _give_memory_back()
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _silence_libtiff() -> None:
    """Keep libtiff from writing to the standard error, between the lines of the log.

    Pillow turns off the warnings of libtiff, but not its errors, which Pillow also raises. The
    library is the one that Pillow has loaded; where it is built into Pillow, it still writes.
    """
    mapped = Path("/proc/self/maps").read_text().splitlines()
    for library in {line.split(maxsplit=5)[5] for line in mapped if "/libtiff" in line}:
        ctypes.CDLL(library).TIFFSetErrorHandler(None)


def _give_memory_back() -> None:
    """Return memory of a MiB or more to the system as soon as it is freed (mallopt(3)).

    glibc keeps such pieces once some were freed: 100 MB after a picture of 40 megapixels, measured.
    It also keeps smaller pieces in an arena for each of up to 16 threads: two arenas are enough
    where threads take turns. Other C libraries keep nothing, and have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1024 * 1024)
        mallopt(M_ARENA_MAX, 2)


class TolerantPngStream(PngImagePlugin.PngStream):
    """Ignores errors in chunks of a PNG that its picture does not need.

    Those are chunks of an animation, of which the default image is shown, hints for the display,
    texts, of which too large ones are left out, and the checksums of ancillary chunks. Browsers
    ignore them, too: an error in such a chunk is no error of the image (PNG specification, 13.1).
    """

    IGNORED = (b"acTL", b"fcTL", b"pHYs", b"gAMA", b"cHRM", b"sRGB")
    TEXTS = (b"tEXt", b"zTXt", b"iTXt")

    def call(self, cid: bytes, pos: int, length: int) -> bytes:
        """Read the content of a chunk."""
        if cid not in self.TEXTS or self.text_memory <= PngImagePlugin.MAX_TEXT_MEMORY:
            try:
                return super().call(cid, pos, length)
            except (SyntaxError, ValueError, IndexError, struct.error):
                if (
                    cid in self.TEXTS
                ):  # It was inflated up to this limit, which is done a few times only.
                    self.text_memory += PngImagePlugin.MAX_TEXT_CHUNK
                elif cid in self.IGNORED:
                    self.im_n_frames = None
                else:
                    raise
        assert self.fp is not None  # It is being read.
        self.fp.seek(pos)
        return self.fp.read(length)

    def crc(self, cid: bytes, data: bytes) -> None:
        """Read the checksum of a chunk, and verify it if the chunk begins with a capital."""
        if cid[:1].islower():
            self.crc_skip(cid, data)
        else:
            super().crc(cid, data)


class TolerantWebPImageFile(WebPImagePlugin.WebPImageFile):
    """Reads a WebP up to its last whole chunk, where its header states a wrong size.

    Browsers do so, too: they decode what they have received.
    """

    def _open(self) -> None:
        file = self.fp
        assert file is not None  # It is being read.
        try:
            super()._open()
        except OSError:
            file.seek(0)
            self.fp = io.BytesIO(header_checks.with_true_size(file.read()))
            super()._open()
        finally:
            self.fp = file
