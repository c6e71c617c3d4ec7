"""Distances of a vector to all others, and the nearest of them: exact, by looking at each.

simsimd computes with float16 as it is stored and lets other threads go on; NumPy would have to turn
all of it into float32 first. Why these, is in `docs/decisions/vectors.md`.
"""

from typing import Literal

import numpy as np
import simsimd
from numpy.typing import NDArray

# So many vectors at a time: the result of a block, in float64, stays small.
BLOCK = 65_536
SAMPLE_STEP = 64


def distances(
    query: bytes,
    data: NDArray[np.uint8],
    kind: str,
    metric: str,
    wanted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """The distance of a vector to each of others; infinite for those that are not wanted.

    Args:
        query: the vector, in the form of `clustr.plugins.Vector.encode`.
        data: the bytes of the others, one in each row.
        kind, metric: as of `clustr.plugins.Vector`.
        wanted: of each whether it is compared; None: all are.
    """
    found = np.full(len(data), np.inf, np.float32)
    measure = _hamming if kind == "bits" else _SIMSIMD[metric]
    for first in range(0, len(data), BLOCK):
        block = data[first : first + BLOCK]
        if wanted is None:
            found[first : first + BLOCK] = measure(query, block)
        elif len(rows := np.flatnonzero(wanted[first : first + BLOCK])):
            found[first + rows] = measure(query, block[rows])
    return found


def _hamming(query: bytes, block: NDArray[np.uint8]) -> NDArray[np.uint8 | np.int64]:
    words, others = np.frombuffer(query, np.uint64), block.view(np.uint64)
    if len(words) == 1:
        of_words: NDArray[np.uint8] = np.bitwise_count(others[:, 0] ^ words[0])
        return of_words
    summed: NDArray[np.int64] = np.bitwise_count(others ^ words).sum(axis=1, dtype=np.int64)
    return summed


def _one_minus_cosine(query: bytes, block: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Of vectors of length 1; rounded to float16 their product can be a little above 1."""
    return np.maximum(0, 1 - _compared(query, block, "dot"))


def _euclidean(query: bytes, block: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.sqrt(_compared(query, block, "sqeuclidean"))


def _compared(
    query: bytes, block: NDArray[np.uint8], metric: Literal["dot", "sqeuclidean"]
) -> NDArray[np.float64]:
    given = np.frombuffer(query, np.float16).reshape(1, -1)
    others = block.view(np.float16)
    row: NDArray[np.float64] = np.asarray(simsimd.cdist(given, others, metric=metric, threads=1))[0]
    return row


_SIMSIMD = {"cosine": _one_minus_cosine, "euclidean": _euclidean}


def nearest_rows(found: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The rows of the nearest, in any order: those at the same distance as the last one, too.

    Args:
        found: the distances; infinite for rows that do not count.
        count: how many rows; there may be fewer.
    """
    # Of a sample it is known about how far the nearest reach; that saves to order all distances.
    sample = found[::SAMPLE_STEP]
    guess = 2 * count // SAMPLE_STEP + 8
    limit = np.partition(sample, guess)[guess] if len(sample) > guess else np.inf
    rows = np.flatnonzero((found <= limit) & np.isfinite(found))
    if len(rows) < count and np.isfinite(limit):
        rows = np.flatnonzero(np.isfinite(found))
    if len(rows) > count:
        farthest = np.partition(found[rows], count - 1)[count - 1]
        rows = rows[found[rows] <= farthest]
    return rows


def rows_of_uploads(ids: NDArray[np.uint8], upload_ids: bytes) -> NDArray[np.bool_]:
    """Which rows may be of these uploads: all that are, and perhaps very few others.

    Args:
        ids: of each row the id of the vector, and that of the upload behind it.
        upload_ids: 12 bytes each, one after the other.
    """
    wanted = np.frombuffer(upload_ids, np.uint8).reshape(-1, 12)
    return np.isin(_keys(ids[:, 12:]), _keys(wanted))


def _keys(ids: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A number for each id of 12 bytes; those of different ids hardly ever are the same."""
    whole = np.ascontiguousarray(ids)
    tail = np.ascontiguousarray(whole[:, 4:]).view(np.uint64)[:, 0]
    head = np.ascontiguousarray(whole[:, :4]).view(np.uint32)[:, 0].astype(np.uint64)
    return tail ^ (head * np.uint64(0x9E3779B97F4A7C15))
