"""A copy of an image file without metadata, whatever its format is."""

import os
from collections.abc import Callable, Iterator
from typing import IO

from clustr.domain.errors import MetadataNotRemovable
from clustr.domain.models import FilesMetadata
from clustr.imaging.stripping.bmp import strip_bmp
from clustr.imaging.stripping.gif import strip_gif
from clustr.imaging.stripping.isobmff import strip_isobmff
from clustr.imaging.stripping.jpeg import strip_jpeg
from clustr.imaging.stripping.pieces import Piece, read_pieces
from clustr.imaging.stripping.png import strip_png
from clustr.imaging.stripping.tiff import strip_tiff
from clustr.imaging.stripping.webp import strip_webp

STRIPPERS: dict[str, Callable[[int, int, FilesMetadata], list[Piece]]] = {
    "jpg": strip_jpeg,
    "png": strip_png,
    "webp": strip_webp,
    "bmp": strip_bmp,
    "tif": strip_tiff,
    "gif": strip_gif,
    "avif": strip_isobmff,
    "heic": strip_isobmff,
}


def strip(file: IO[bytes], extension: str, kind: FilesMetadata) -> Iterator[bytes]:
    """A copy of an image without metadata, which looks the same.

    Args:
        file: open for reading; it stays open.
        extension: that of its format, one of `clustr.imaging.formats.FORMATS`.
        kind: `STRIP`, or `STRIP_LOCATION` to keep what EXIF data say of camera, exposure and time.

    Returns:
        its content, in chunks.

    Raises:
        MetadataNotRemovable: it is not sure what of the file is the picture.
    """
    descriptor = file.fileno()
    try:
        pieces = STRIPPERS[extension](descriptor, os.fstat(descriptor).st_size, kind)
    except ValueError as error:
        raise MetadataNotRemovable from error
    return read_pieces(descriptor, pieces)
