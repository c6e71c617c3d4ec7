"""Vectors of results: what an analyzer declares of them, and their form in bytes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # NumPy is imported by what has vectors only: it takes 10 MB of a process.
    import numpy as np
    from numpy.typing import NDArray

KINDS = ("float16", "bits")
METRICS = {"float16": ("cosine", "euclidean"), "bits": ("hamming",)}
MAX_DIMENSIONS = 8192
WORD_BITS = 64
WITHOUT_VECTOR = "return None where an image has no vector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """One key of a result that is a vector: it is kept apart, and uploads near to it are found.

    `Vector(field="embedding", dimensions=256)` takes the key `embedding` out of every result, and
    makes `GET /api/uploads/{upload_id}/similar?by=<analyzer>.embedding` possible. The key must be
    there; None says that this image has no vector. It is not in the result that is stored, so
    `result_schema` does not have it.

    Attributes:
        field: the key in the result.
        dimensions: how many numbers or bits it has, from 1 to 8192.
        kind: `float16`: numbers, in a list or an array of NumPy, of which 3 digits are kept. Or
            `bits`: `bytes`, of which the first bit is the highest, or a list or an array of 0 and
            1 (or booleans).
        metric: what the distance of two vectors is. Of `float16` it is `cosine` (1 minus the
            cosine, from 0 to 2; the length of a vector is not kept) or `euclidean`; of `bits` it is
            `hamming`, how many differ. By default the first one of the kind.
    """

    field: str
    dimensions: int
    kind: str = "float16"
    metric: str = ""

    def __post_init__(self) -> None:
        if not self.metric and self.kind in METRICS:
            object.__setattr__(self, "metric", METRICS[self.kind][0])

    @property
    def size(self) -> int:
        """How many bytes it takes: bits fill whole words of 64."""
        if self.kind == "bits":
            return -(-self.dimensions // WORD_BITS) * WORD_BITS // 8
        return 2 * self.dimensions

    def encode(self, value: Any) -> bytes:
        """The bytes of a vector: float16 in little endian, or bits in words of 64.

        One whose metric is `cosine` is scaled to length 1.

        Raises:
            ValueError: it does not fit the declaration; the message begins with the key.
        """
        return _bits(self, value) if self.kind == "bits" else _float16(self, value)


def _float16(vector: Vector, value: Any) -> bytes:
    import numpy as np  # noqa: PLC0415  See above.

    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{vector.field} is no list of numbers") from error
    _require_shape(vector, numbers)
    if (wrong := np.flatnonzero(~np.isfinite(numbers))).size:
        found = f"{wrong.size} of {vector.dimensions} numbers that are NaN or infinite"
        raise ValueError(f"{vector.field} has {found}, the first at {wrong[0]}; {WITHOUT_VECTOR}")
    if vector.metric == "cosine":
        largest = np.abs(numbers).max()
        if largest == 0:
            reason = f"{vector.field} has only zeros, which have no cosine"
            raise ValueError(f"{reason}; {WITHOUT_VECTOR}")
        numbers = numbers / largest  # Otherwise the squares of very large numbers overflow.
        numbers = numbers / np.linalg.norm(numbers)
    elif np.abs(numbers).max() > np.finfo(np.float16).max:
        raise ValueError(f"{vector.field} has a number above 65504, which float16 cannot hold")
    return numbers.astype("<f2").tobytes()


def _bits(vector: Vector, value: Any) -> bytes:
    import numpy as np  # noqa: PLC0415  See above.

    if isinstance(value, bytes | bytearray):
        needed = -(-vector.dimensions // 8)
        if len(value) != needed:
            raise ValueError(
                f"{vector.field} has {len(value)} bytes; {vector.dimensions} bits take {needed}"
            )
        bits = np.unpackbits(np.frombuffer(value, np.uint8))
        if bits[vector.dimensions :].any():
            raise ValueError(f"{vector.field} has a 1 behind its {vector.dimensions} bits")
        bits = bits[: vector.dimensions]
    else:
        try:
            given = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{vector.field} is neither bytes nor a list of bits") from error
        _require_shape(vector, given)
        bits = given.astype(np.uint8)
        if not ((given == 0) | (given == 1)).all():
            raise ValueError(f"{vector.field} has a bit that is neither 0 nor 1")
    return np.packbits(bits).tobytes().ljust(vector.size, b"\0")


def _require_shape(vector: Vector, numbers: "NDArray[np.float64]") -> None:
    if numbers.shape != (vector.dimensions,):
        shape = " by ".join(map(str, numbers.shape)) or "one number and no list"
        raise ValueError(f"{vector.field} has dimensions {shape}; declared are {vector.dimensions}")


def vector_space(analyzer: str, version: int, vector: Vector) -> str:
    """The name of all vectors that can be compared with one of this analyzer in this version."""
    kind = f"{vector.metric}-{vector.kind}-{vector.dimensions}"
    return f"{analyzer}.{vector.field}-v{version}-{kind}"
