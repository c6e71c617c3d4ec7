"""A gallery whose uploads have vectors that a test makes up, and what NumPy finds among them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import photographs
from bson import ObjectId
from numpy.typing import NDArray
from workshop import Workshop, another

from clustr.components import VECTORS_FOLDER
from clustr.database import NewVector
from clustr.domain.errors import BeingRead
from clustr.plugins import Vector
from clustr.services.nearest import Nearest

DIMENSIONS = 16
COSINE = Vector(field="cosine", dimensions=DIMENSIONS)
EUCLIDEAN = replace(COSINE, field="euclidean", metric="euclidean")
BITS = Vector(field="bits", dimensions=100, kind="bits")
VECTORS = (COSINE, EUCLIDEAN, BITS)
PLUGIN = """
import numpy as np
from marshmallow import Schema, fields
from clustr.plugins import *

class Result(Schema):
    n = fields.Integer()

class It(Analyzer):
    name = "it"
    result_schema = Result
    vectors = {vectors}

    def analyze(self, image, context):
        if image.width == 13:
            return {{"n": 13, "cosine": None, "euclidean": None, "bits": None}}
        numbers = np.arange(16) + image.width
        return {{"n": 1, "cosine": numbers, "euclidean": numbers, "bits": [image.width % 2] * 100}}

@hookimpl
def clustr_register_analyzers(config):
    return [It()]

@hookimpl
def clustr_register_filters(config):
    return [Filter(analyzer="it", field="n", type=fields.Integer(), operators=("eq", "gte"))]
"""


class Gallery:
    """Uploads with vectors that are made up, written as the engine writes them."""

    def __init__(self, workshop: Workshop):
        self.workshop = workshop
        self.collection = workshop.collection
        self.values: dict[str, dict[str, Any]] = {}

    @property
    def database(self) -> Any:
        return self.workshop.web.database

    @property
    def folder(self) -> Path:
        """Where the files are of this installation."""
        folder = self.workshop.settings.data_folder / VECTORS_FOLDER
        return folder / self.database.installation()

    def fresh(self) -> Nearest:
        """What another process of this host searches with."""
        folder = self.workshop.settings.data_folder / VECTORS_FOLDER
        return Nearest(self.database, folder, self.workshop.web.plugin_manager)

    def add(self, values: Sequence[dict[str, Any]], **more: Any) -> list[str]:
        """Add uploads with these vectors, by their fields."""
        pattern = self.collection.find_one({"request_id": "pattern"})
        if pattern is None:
            [first] = self.workshop.upload(photographs.unique("png", 7, 13), request_id="pattern")
            pattern = self.collection.find_one({"_id": ObjectId(first)})
        [analysis] = pattern["analyses"]
        documents = [another(pattern, request_id="made", **more) for _ in values]
        fields = {vector.field: vector for vector in VECTORS}
        new = [
            NewVector(str(document["_id"]), "it", 1, fields[name], fields[name].encode(value))
            for document, given in zip(documents, values, strict=True)
            for name, value in given.items()
        ]
        ids = iter(self.database.vectors.add(new))
        for n, (document, given) in enumerate(zip(documents, values, strict=True)):
            named = {name: ObjectId(next(ids)) for name in given}
            done = {"state": "succeeded", "result": {"n": n}, "vectors": named}
            document["analyses"] = [{**analysis, **done}]
        self.collection.insert_many(documents)
        added = [str(document["_id"]) for document in documents]
        self.values |= dict(zip(added, values, strict=True))
        return added

    def add_random(self, count: int, seed: int = 1, **more: Any) -> list[str]:
        numbers = np.random.default_rng(seed).standard_normal((count, DIMENSIONS))
        return self.add([{"cosine": each} for each in numbers], **more)

    def similar(self, upload_id: str, **query: Any) -> Any:
        """The answer of the route."""
        query = {"by": "it.cosine", **query}
        client = self.workshop.app.test_client()
        return client.get(f"/api/uploads/{upload_id}/similar", query_string=query)

    def found(self, upload_id: str, **query: Any) -> list[tuple[str, float]]:
        answer = self.similar(upload_id, **query)
        assert answer.status_code == 200, answer.text
        return [(one["id"], one["distance"]) for one in answer.get_json()["data"]]

    def nearest(self, nearest: Nearest, limit: int = 10) -> list[str]:
        """The nearest to a vector of ones, by that object."""
        field = nearest.field("it.cosine")
        while True:
            try:
                found = nearest.find(field, field.vector.encode([1] * DIMENSIONS), limit)
                return [each.upload_id for each in found]
            except BeingRead:
                continue

    def expected(self, limit: int = 10, among: Sequence[str] | None = None) -> list[str]:
        """The nearest to a vector of ones, by NumPy."""
        given = {i: v["cosine"] for i, v in self.values.items() if "cosine" in v}
        if among is not None:
            given = {i: given[i] for i in among}
        return by_numpy(COSINE, [1] * DIMENSIONS, given)[:limit]


def stored(vector: Vector, values: Sequence[Any]) -> NDArray[Any]:
    """Vectors with the precision in which they are stored."""
    if vector.kind == "bits":
        return np.array([np.unpackbits(np.frombuffer(vector.encode(v), np.uint8)) for v in values])
    return np.array([np.frombuffer(vector.encode(v), np.float16) for v in values]).astype(float)


def distances(vector: Vector, query: Any, values: Sequence[Any]) -> NDArray[Any]:
    others, [one] = stored(vector, values), stored(vector, [query])
    if vector.metric == "cosine":
        return np.maximum(0, 1 - others @ one)
    if vector.metric == "euclidean":
        return np.linalg.norm(others - one, axis=1)
    return (others != one).sum(axis=1).astype(float)


def by_numpy(vector: Vector, query: Any, values: dict[str, Any]) -> list[str]:
    """The ids in the order of the distance, then of the ids."""
    found = distances(vector, query, [*values.values()]).astype(np.float32)
    return [i for _, i in sorted(zip(found.tolist(), values, strict=True))]
