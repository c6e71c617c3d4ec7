"""A perceptual hash, and a route that finds pictures that look alike.

The hash says of the 64 lowest frequencies of a picture which are above their median; pictures that
were scaled, compressed again or made a little brighter have hashes that differ in few bits. It is
made in the way of ImageHash's `phash`, from a smaller copy: those of the two differ in few bits.

Of 64 bits in four chunks, hashes that differ in at most 7 have a chunk that differs in at most one,
for otherwise there would be 4 times 2. So whoever looks for the 17 values that each chunk can have
then finds them all, in an index and at a cost that hardly grows with the number of uploads.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from math import cos, pi
from statistics import median
from typing import TYPE_CHECKING, Any

import PIL.Image
from marshmallow import Schema, fields, validate

from clustr.plugins import (
    Analyzer,
    Context,
    Filter,
    Image,
    Library,
    NoResult,
    Upload,
    hookimpl,
    to_rgb,
)

if TYPE_CHECKING:
    import numpy as np
    from flask_smorest import Blueprint
    from numpy.typing import NDArray

SIDE = 32
FREQUENCIES = 8
CHUNKS = 4
CHUNK_BITS = 16
FARTHEST = 7
# More than this many with a chunk in common are not looked at: pictures that are alike everywhere.
MOST_CANDIDATES = 2000

ID = validate.Regexp(r"[0-9a-f]{24}\Z", error="An id is 24 hexadecimal digits, in lower case.")


class PhashResult(Schema):
    """The hash of a picture."""

    hash = fields.String(
        required=True,
        validate=validate.Regexp(r"[0-9a-f]{16}\Z"),
        metadata={"description": "64 bits in hexadecimal digits"},
    )
    chunks = fields.List(
        fields.Integer(),
        required=True,
        validate=validate.Length(equal=CHUNKS),
        metadata={"description": "Its quarters of 16 bits, each with its place above: for finding"},
    )


class Phash(Analyzer):
    """Looks at a copy of 32 pixels a side."""

    name = "phash"
    version = 2
    result_schema = PhashResult
    summary = "A perceptual hash of 64 bits"

    def analyze(self, image: Image, context: Context) -> dict[str, Any]:
        # A reduced copy that is still this much larger gives the same hash.
        bits = perceptual_hash(to_rgb(image.open(at_least=8 * SIDE), 8 * SIDE))
        return {"hash": f"{bits:016x}", "chunks": chunks_of(bits)}


def perceptual_hash(picture: PIL.Image.Image) -> int:
    """64 bits: of each of the lowest frequencies whether it is above their median."""
    import numpy as np  # noqa: PLC0415  Web processes load this file and do without NumPy.

    small = picture.convert("L").resize((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
    values = np.asarray(small).astype(float)
    # The sums of `cumsum` are added one after the other, and so rounded in the same way everywhere.
    of_rows = (values * waves()[:, None]).cumsum(axis=-1)[..., -1]
    of_columns = (of_rows * waves()[:, None]).cumsum(axis=-1)[..., -1]
    # Rounded, for those that are 0 must not differ by what the sums of floats leave over.
    found = [round(value, 3) for value in of_columns.ravel().tolist()]
    middle = median(found)
    return int("".join("1" if value > middle else "0" for value in found), 2)


@cache
def waves() -> "NDArray[np.float64]":
    """The cosine waves of the lowest frequencies, each at the middle of the pixels."""
    import numpy as np  # noqa: PLC0415  See above.

    places = [[pi / SIDE * i * (x + 0.5) for x in range(SIDE)] for i in range(FREQUENCIES)]
    return np.array([[cos(place) for place in row] for row in places])


def chunks_of(bits: int) -> list[int]:
    """The hash in quarters, each with its place in the bits above, so that no two can be taken."""
    size = 1 << CHUNK_BITS
    return [place * size + (bits >> place * CHUNK_BITS) % size for place in range(CHUNKS)]


def nearly(chunk: int) -> Iterator[int]:
    """The chunk, and those that differ from it in one bit."""
    yield chunk
    for bit in range(CHUNK_BITS):
        yield chunk ^ 1 << bit


def similar(library: Library, upload_id: str, farthest: int, limit: int) -> dict[str, Any]:
    """What the route answers.

    Raises:
        NotFound: the upload is not there.
        NoResult: it has no hash, or not yet.
    """
    upload = library.get(upload_id)
    bits = hash_of(upload)
    if bits is None:
        raise NoResult(f"The upload {upload_id} has no perceptual hash{why_none(upload)}.")
    values = [value for chunk in chunks_of(bits) for value in nearly(chunk)]
    candidates = library.find("phash", "chunks", values, limit=MOST_CANDIDATES)
    distances = [
        ((other ^ bits).bit_count(), upload.id, upload)
        for upload in candidates
        if upload.id != upload_id and (other := hash_of(upload)) is not None
    ]
    near = sorted(one for one in distances if one[0] <= farthest)
    return {
        "data": [
            {"id": upload.id, "distance": distance, "url": library.url_of(upload)}
            for distance, _, upload in near[:limit]
        ],
        "complete": len(candidates) < MOST_CANDIDATES,
    }


def hash_of(upload: Upload) -> int | None:
    """The hash of an upload, whatever has become of the analysis since."""
    results = [a.result for a in upload.analyses if a.name == "phash" and a.result]
    return int(results[0]["hash"], 16) if results else None


def why_none(upload: Upload) -> str:
    """Why an upload has no hash: whether it is worth to ask again."""
    states = [(a.state, a.error) for a in upload.analyses if a.name == "phash"]
    if not states:
        return "; its analysis phash was never ordered"
    state, error = states[0]
    if state in ("waiting", "queued", "running", "deferred"):
        return f" yet; its analysis phash is {state}"
    return f"; its analysis phash {state}" + (f": {error}" if error else "")


class SimilarQuery(Schema):
    """What is looked for."""

    upload_id = fields.String(
        required=True, validate=ID, metadata={"description": "What the others shall look like."}
    )
    distance = fields.Integer(
        load_default=FARTHEST,
        validate=validate.Range(0, FARTHEST),
        metadata={"description": "In how many of 64 bits the hashes may differ."},
    )
    limit = fields.Integer(
        load_default=20,
        validate=validate.Range(1, 100),
        metadata={"description": "How many at most, the nearest first."},
    )


class SimilarUpload(Schema):
    """One that looks alike."""

    id = fields.String(required=True, metadata={"description": "The id of the upload."})
    distance = fields.Integer(
        required=True, metadata={"description": "In how many bits the hashes differ."}
    )
    url = fields.String(required=True, metadata={"description": "Where its bytes are."})


class Similar(Schema):
    """The uploads that look alike, the nearest first."""

    data = fields.List(
        fields.Nested(SimilarUpload), required=True, metadata={"description": "The nearest first."}
    )
    complete = fields.Boolean(
        required=True,
        metadata={"description": "Whether all that may be near were looked at, or too many are."},
    )


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Phash()]


@hookimpl
def clustr_register_filters(config: Mapping[str, Any]) -> Iterable[Filter]:
    return [
        Filter(
            analyzer="phash",
            field="chunks",
            type=fields.Integer(),
            summary="A quarter of the hash",
            indexed=True,
            internal=True,
        )
    ]


@hookimpl
def clustr_register_blueprints(
    config: Mapping[str, Any], library: Library
) -> "Iterable[Blueprint]":
    from flask_smorest import Blueprint  # noqa: PLC0415  Workers, which come not here, do without.

    blueprint = Blueprint("phash", __name__, description="Pictures that look alike")

    @blueprint.route("/similar")
    @blueprint.arguments(SimilarQuery, location="query")
    @blueprint.response(200, Similar)
    @blueprint.alt_response(404, "NOT_FOUND")
    @blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
    def find_similar(query: dict[str, Any]) -> dict[str, Any]:
        """Find uploads that look like one

        The nearest come first, each with its distance: how many of the 64 bits of the perceptual
        hashes differ. Up to 10 is nearly always the same picture in another size or quality.
        """
        return similar(library, query["upload_id"], query["distance"], query["limit"])

    return [blueprint]
