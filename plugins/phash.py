"""A perceptual hash, and a route that finds pictures that look alike.

The hash says of the 64 lowest frequencies of a picture which are above their median; pictures that
were scaled, compressed again or made a little brighter have hashes that differ in few bits. It is
made in the way of ImageHash's `phash`, from a smaller copy: those of the two differ in few bits.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from math import cos, pi
from statistics import median
from typing import TYPE_CHECKING, Any

import PIL.Image
from marshmallow import Schema, fields, validate

from clustr.plugins import (
    Analyzer,
    Context,
    Image,
    Library,
    Vector,
    hookimpl,
    to_rgb,
)

if TYPE_CHECKING:
    import numpy as np
    from flask_smorest import Blueprint
    from numpy.typing import NDArray

SIDE = 32
FREQUENCIES = 8
BITS = FREQUENCIES**2
FARTHEST = 7

ID = validate.Regexp(r"[0-9a-f]{24}\Z", error="An id is 24 hexadecimal digits, in lower case.")


class PhashResult(Schema):
    """The hash of a picture."""

    hash = fields.String(
        required=True,
        validate=validate.Regexp(r"[0-9a-f]{16}\Z"),
        metadata={"description": "64 bits in hexadecimal digits"},
    )


class Phash(Analyzer):
    """Looks at a copy of 32 pixels a side."""

    name = "phash"
    version = 2
    result_schema = PhashResult
    summary = "A perceptual hash of 64 bits"
    vectors = (Vector(field="bits", dimensions=BITS, kind="bits"),)

    def analyze(self, image: Image, context: Context) -> dict[str, Any]:
        # A reduced copy that is still this much larger gives the same hash.
        bits = perceptual_hash(to_rgb(image.open(at_least=8 * SIDE), 8 * SIDE))
        return {"hash": f"{bits:016x}", "bits": bits.to_bytes(BITS // 8, "big")}

    def vectors_of(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """The hash says all: what was analyzed before there were vectors is found, too."""
        return {"bits": bytes.fromhex(result["hash"])}


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


class SimilarQuery(Schema):
    """What is looked for."""

    upload_id = fields.String(
        required=True, validate=ID, metadata={"description": "What the others shall look like."}
    )
    distance = fields.Integer(
        load_default=FARTHEST,
        validate=validate.Range(0, BITS),
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


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Phash()]


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
        upload = library.get(query["upload_id"])
        near = library.nearest(upload, "phash.bits", query["limit"], max_distance=query["distance"])
        return {
            "data": [
                {"id": n.upload.id, "distance": n.distance, "url": library.url_of(n.upload)}
                for n in near
            ]
        }

    return [blueprint]
