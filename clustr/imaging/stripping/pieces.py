"""What a copy consists of: parts of the file that it is made of, and bytes of its own."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

CHUNK_BYTES = 256 * 1024


class Span(NamedTuple):
    """The bytes of a file from one offset up to another."""

    begin: int
    end: int


class Zeros(NamedTuple):
    """Zero bytes, where what was there must not be sent and what follows has to stay in place."""

    length: int


Piece = bytes | Span | Zeros


def bytes_of(pieces: Iterable[Piece]) -> int:
    """How many bytes pieces have together."""
    return sum(map(_length, pieces))


def _length(piece: Piece) -> int:
    if isinstance(piece, Span):
        return piece.end - piece.begin
    return piece.length if isinstance(piece, Zeros) else len(piece)


def read_pieces(file: int, pieces: Iterable[Piece]) -> Iterator[bytes]:
    """The content of pieces, in chunks.

    Args:
        file: the descriptor of the file that the spans are of; its position does not change.
    """
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        for done in range(0, _length(piece), CHUNK_BYTES):
            count = min(CHUNK_BYTES, _length(piece) - done)
            if isinstance(piece, Span):
                yield os.pread(file, count, piece.begin + done)
            else:
                yield bytes(count)


def in_place(size: int, spans: Iterable[Span], patches: Mapping[int, bytes]) -> list[Piece]:
    """A copy in which all that is kept stays where it is, for formats that point to offsets.

    Args:
        size: of the copy in bytes.
        spans: what is kept of the file; they may overlap.
        patches: what is put over that, by offset.

    Returns:
        the pieces; between what is kept there are zeros.

    Raises:
        ValueError: patches overlap.
    """
    kept, pieces, position = deque(sorted(spans)), list[Piece](), 0
    for at, patch in [*sorted(patches.items()), (size, b"")]:
        if at < position:
            raise ValueError("patches overlap")
        while position < at:
            while kept and kept[0].end <= position:
                kept.popleft()
            begin = min(max(kept[0].begin, position), at) if kept else at
            end = min(kept[0].end, at) if begin == position else begin
            pieces.append(Span(begin, end) if begin == position else Zeros(begin - position))
            position = end
        pieces.append(patch)
        position = at + len(patch)
    return joined(pieces)


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same with as few pieces as there can be."""
    fewer: list[Piece] = []
    for piece in pieces:
        last = fewer[-1] if fewer else None
        if isinstance(last, Span) and isinstance(piece, Span) and last.end == piece.begin:
            fewer[-1] = Span(last.begin, piece.end)
        elif _length(piece):
            fewer.append(piece)
    return fewer
