"""GIF 89a: comments, texts and foreign extensions are cut, and what follows the trailer."""

import os

from clustr.domain.models import FilesMetadata
from clustr.imaging.header_checks import color_table_bytes
from clustr.imaging.stripping.pieces import Piece, Span

HEADER_BYTES = 13
IMAGE, EXTENSION, TRAILER = b",", b"!", b";"
GRAPHIC_CONTROL, APPLICATION = 0xF9, 0xFF
# Applications whose extensions say how often an animation is repeated, or what the colors are.
KEPT_APPLICATIONS = (b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012")


def strip_gif(file: int, size: int, kind: FilesMetadata) -> list[Piece]:
    """The pieces of a GIF without metadata; the format has none that says how it is turned."""
    position = HEADER_BYTES + color_table_bytes(os.pread(file, 1, 10))
    kept: list[Piece] = [Span(0, min(position, size))]
    while (head := os.pread(file, 14, position)) and not head.startswith(TRAILER):
        if head.startswith(IMAGE):
            blocks = position + 11 + color_table_bytes(head[9:10])
        elif head.startswith(EXTENSION):
            blocks = position + 2
        else:  # Decoders skip what is no block.
            position += 1
            continue
        end = min(_end_of_blocks(file, blocks), size)
        if head.startswith(IMAGE) or _is_kept(head):
            kept.append(Span(position, end))
        position = end
    return [*kept, TRAILER] if head else kept


def _is_kept(extension: bytes) -> bool:
    label = extension[1:2]
    if label == bytes([APPLICATION]):
        return extension[3:] in KEPT_APPLICATIONS
    return label == bytes([GRAPHIC_CONTROL])


def _end_of_blocks(file: int, position: int) -> int:
    """Where a row of blocks ends, each of which begins with its length."""
    while length := os.pread(file, 1, position):
        position += 1 + length[0]
        if not length[0]:
            break
    return position
