"""Vectors of results: what an analyzer declares, what is stored, and what goes with what."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import photographs
import pytest
from bson import ObjectId
from marshmallow import INCLUDE, Schema, fields
from workshop import Workshop

from clustr.database import now
from clustr.plugin_manager.declarations import problem_with_analyzer
from clustr.plugins import Analyzer, Vector
from clustr.services.vector_upkeep import VectorUpkeep
from clustr.testing import run_analyzer, sample_image

NUMBERS = Vector(field="embedding", dimensions=4)
BITS = Vector(field="look", dimensions=64, kind="bits")
ANALYZE = """
import numpy as np
return {"seen": image.width, "embedding": np.array([image.width, 1, 2, 3]), "look": b"\\1" * 8}
"""


class Anything(Schema):
    """A result of any keys."""

    class Meta:
        unknown = INCLUDE


class Says(Analyzer):
    """Returns what it was made with."""

    name = "says"
    result_schema = Anything

    def __init__(self, result: dict[str, Any], *vectors: Vector):
        self.vectors = vectors
        self._result = result

    def analyze(self, image: Any, context: Any) -> dict[str, Any]:
        return self._result


def vectors_in(workshop: Workshop) -> list[dict[str, Any]]:
    return list(workshop.collection.database["vectors"].find())


def upkeep(workshop: Workshop) -> VectorUpkeep:
    return VectorUpkeep(workshop.web.database, workshop.web.plugin_manager)


@pytest.fixture
def analyzed(workshop: Workshop) -> Callable[..., list[str]]:
    """Analyzes pictures of these widths by `it`, which has two vectors; their ids."""

    def analyzed(*widths: int, **attributes: Any) -> list[str]:
        workshop.analyzer("it", ANALYZE, **{"vectors": (NUMBERS, BITS), **attributes})
        ids = workshop.upload(*(photographs.unique("png", width, width, 9) for width in widths))
        assert workshop.horse("it", "run").process.wait(60) == 0
        return ids

    return analyzed


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        ([NUMBERS], "vectors must be a tuple of Vector"),
        (("embedding",), "vectors has a str, which is no Vector"),
        ((NUMBERS, NUMBERS), "the vector embedding is there twice"),
        ((Vector(field="a.b", dimensions=4),), "the field of a vector must match"),
        ((Vector(field="a", dimensions=0),), "dimensions must be a whole number from 1 to 8192"),
        ((Vector(field="a", dimensions=4, kind="float64"),), "kind must be one of float16, bits"),
        (
            (Vector(field="a", dimensions=4, metric="hamming"),),
            "the metric of float16 is cosine or euclidean, not 'hamming'",
        ),
    ],
)
def test_a_declaration_that_cannot_be_used_is_refused(vectors: Any, problem: str) -> None:
    analyzer = Says({})
    analyzer.vectors = vectors
    assert problem in (problem_with_analyzer(analyzer) or "")


def test_a_field_of_the_upload_cannot_be_a_vector() -> None:
    analyzer = Says({}, replace(NUMBERS, field="caption"))
    analyzer.fields = {"caption": "caption"}
    assert "not kept in the result" in (problem_with_analyzer(analyzer) or "")


def test_a_key_of_the_result_cannot_be_a_vector() -> None:
    analyzer = Says({}, NUMBERS)
    analyzer.result_schema = Schema.from_dict({"embedding": fields.Raw()}, name="EmbedResult")
    assert problem_with_analyzer(analyzer) == (
        "says: the vector embedding: take it out of EmbedResult, for it is not kept in the result"
    )


@pytest.mark.parametrize(
    ("vector", "value", "error"),
    [
        (NUMBERS, [1, 2, 3], "embedding has dimensions 3; declared are 4"),
        (NUMBERS, [[1, 2], [3, 4]], "embedding has dimensions 2 by 2; declared are 4"),
        (NUMBERS, 7, "embedding has dimensions one number and no list; declared are 4"),
        (
            NUMBERS,
            [1, float("nan"), 3, float("-inf")],
            "embedding has 2 of 4 numbers that are NaN or infinite, the first at 1; "
            "return None where an image has no vector",
        ),
        (
            NUMBERS,
            [1, 2, 3, float("inf")],
            "1 of 4 numbers that are NaN or infinite, the first at 3",
        ),
        (
            NUMBERS,
            [0, 0, 0, 0],
            "has only zeros, which have no cosine; return None where an image has no vector",
        ),
        (NUMBERS, ["a", "b", "c", "d"], "embedding is no list of numbers"),
        (NUMBERS, [[1], [1, 2]], "embedding is no list of numbers"),
        (replace(NUMBERS, metric="euclidean"), [1, 2, 3, 1e5], "which float16 cannot hold"),
        (BITS, b"1234567", "look has 7 bytes; 64 bits take 8"),
        (BITS, [1, 0], "look has dimensions 2; declared are 64"),
        (BITS, [2] * 64, "look has a bit that is neither 0 nor 1"),
        (BITS, "text", "look is neither bytes nor a list of bits"),
        (replace(BITS, dimensions=60), b"\xff" * 8, "look has a 1 behind its 60 bits"),
    ],
)
def test_what_is_no_such_vector_fails_the_analysis(vector: Vector, value: Any, error: str) -> None:
    end = run_analyzer(Says({vector.field: value}, vector), sample_image("png"))
    assert end.state == "failed"
    assert error in (end.error or "")


def test_a_vector_may_be_none_but_not_left_out() -> None:
    end = run_analyzer(Says({"embedding": None, "n": 1}, NUMBERS), sample_image("png"))
    assert (end.state, end.result, end.vectors) == ("succeeded", {"n": 1}, {})
    end = run_analyzer(Says({"n": 1}, NUMBERS), sample_image("png"))
    assert end.error == (
        "the result has no embedding, which is declared as a vector; None says that there is none"
    )


def test_numbers_are_float16_and_for_the_cosine_of_length_1() -> None:
    encoded = np.frombuffer(NUMBERS.encode([3e300, 0, 4e300, 0]), np.float16)
    assert encoded.tolist() == [np.float16(0.6), 0, np.float16(0.8), 0]
    euclidean = replace(NUMBERS, metric="euclidean")
    assert np.frombuffer(euclidean.encode([3, 0, 4, 0]), np.float16).tolist() == [3, 0, 4, 0]


def test_bits_are_given_as_bytes_or_one_by_one() -> None:
    bits = [n % 3 == 0 for n in range(70)]
    vector = replace(BITS, dimensions=70)
    given = np.packbits(bits).tobytes()
    for value in (given, bytearray(given), bits, np.array(bits), [int(bit) for bit in bits]):
        assert vector.encode(value) == given.ljust(16, b"\0")


def test_vectors_are_stored_apart_from_the_upload(workshop, analyzed) -> None:
    [upload_id] = analyzed(30)
    assert workshop.stored(upload_id, "it")["result"] == {"seen": 30}
    stored = {each["_id"]: each for each in vectors_in(workshop)}
    named = workshop.stored(upload_id, "it")["vectors"]
    assert stored[named["embedding"]]["data"] == NUMBERS.encode([30, 1, 2, 3])
    assert stored[named["look"]]["data"] == b"\1" * 8
    assert {each["upload"] for each in stored.values()} == {ObjectId(upload_id)}
    answer = workshop.app.test_client().get(f"/api/uploads/{upload_id}")
    analysis = answer.get_json()["analyses"]["it"]
    assert analysis["result"] == {"seen": 30}
    assert "embedding" not in json.dumps(analysis)


def test_another_result_replaces_the_vectors_of_the_one_before(workshop, analyzed) -> None:
    [upload_id] = analyzed(30)
    before = workshop.stored(upload_id, "it")["vectors"]
    workshop.web.analysis_jobs.run_again(upload_id, "it")
    assert workshop.horse("it", "again").process.wait(60) == 0
    after = workshop.stored(upload_id, "it")["vectors"]
    assert after != before
    assert {each["_id"] for each in vectors_in(workshop)} == set(after.values())


def test_a_failed_analysis_keeps_the_last_good_result_with_its_vectors(workshop, analyzed) -> None:
    [upload_id] = analyzed(30)
    before = workshop.stored(upload_id, "it")["vectors"]
    workshop.analyzer("it", 'return {"embedding": [0] * 4}', vectors=(NUMBERS, BITS))
    workshop.renew()
    workshop.web.analysis_jobs.run_again(upload_id, "it")
    assert workshop.horse("it", "again").process.wait(60) == 0
    assert workshop.state_of(upload_id, "it") == "failed"
    assert workshop.stored(upload_id, "it")["vectors"] == before
    assert len(vectors_in(workshop)) == 2


def test_vectors_go_with_the_upload_and_come_back_from_the_trash(workshop, analyzed) -> None:
    ids = analyzed(30, 31)
    removal = workshop.web.removal
    removal.remove(ids[0])
    removal.restore(ids[0])
    assert {each["upload"] for each in vectors_in(workshop)} == {*map(ObjectId, ids)}
    removal.remove(ids[0], permanently=True)
    assert {each["upload"] for each in vectors_in(workshop)} == {ObjectId(ids[1])}


def test_a_vector_without_its_result_is_removed_once_it_is_old(workshop, analyzed) -> None:
    ids = analyzed(30, 31)
    workshop.web.removal.remove(ids[1])
    vectors = workshop.collection.database["vectors"]
    [one, *_] = vectors_in(workshop)
    old = ObjectId.from_datetime(now() - timedelta(hours=1))
    for key in (old, ObjectId()):  # Of the new one the result may be about to be written.
        vectors.insert_one({**one, "_id": key})
    for each in vectors_in(workshop):  # Those of results are as old, one of them in the trash.
        aged = ObjectId(old.binary[:4] + each["_id"].binary[4:])
        if each["upload"] == ObjectId(ids[1]):
            vectors.delete_one({"_id": each["_id"]})
            vectors.insert_one({**each, "_id": aged})
            field = each["space"].split("-")[0].split(".")[1]
            workshop.collection.database[f"{workshop.collection.name}_trash"].update_one(
                {"_id": each["upload"]}, {"$set": {f"analyses.0.vectors.{field}": aged}}
            )
    count = len(vectors_in(workshop))
    upkeep(workshop).clean()
    left = {each["_id"] for each in vectors_in(workshop)}
    assert old not in left
    assert len(left) == count - 1


def test_vectors_of_an_earlier_version_are_removed(workshop, analyzed) -> None:
    ids = analyzed(30, 31)
    workshop.analyzer("it", ANALYZE, vectors=(NUMBERS, BITS), version=2)
    workshop.renew()
    workshop.web.analysis_jobs.run_again(ids[0], "it")
    assert workshop.horse("it", "again").process.wait(60) == 0
    upkeep(workshop).clean()
    assert {each["upload"] for each in vectors_in(workshop)} == {ObjectId(ids[0])}
    assert {each["space"].split("-")[1] for each in vectors_in(workshop)} == {"v2"}
    spaces = workshop.collection.database["vector_spaces"].distinct("version")
    assert spaces == [2]


def test_vectors_of_a_later_version_stay(workshop, analyzed) -> None:
    """Another host may have the new version already."""
    analyzed(30, version=2)
    workshop.analyzer("it", ANALYZE, vectors=(NUMBERS, BITS), version=1)
    workshop.renew()
    upkeep(workshop).clean()
    assert len(vectors_in(workshop)) == 2


def test_results_from_before_get_the_vectors_that_follow_from_them(workshop, analyzed) -> None:
    workshop.analyzer("it", 'return {"seen": image.width}')
    ids = workshop.upload(*(photographs.unique("png", width, width, 9) for width in (30, 31)))
    assert workshop.horse("it", "run").process.wait(60) == 0
    vectors_of = """
def vectors_of(self, result):
    if result["seen"] == 31:
        raise KeyError("no")
    return {"embedding": [result["seen"], 0, 0, 0]}
"""
    source = (workshop.plugins / "it.py").read_text()
    members = f"    version = 2\n    vectors = ({NUMBERS!r},)\n" + "".join(
        f"    {line}\n" for line in vectors_of.splitlines()
    )
    workshop.write("it", source.replace("    result_schema", f"{members}    result_schema"))
    workshop.renew()
    assert list(upkeep(workshop).fill()) == [1]
    assert list(upkeep(workshop).fill()) == []
    [vector] = vectors_in(workshop)
    assert vector["data"] == NUMBERS.encode([1, 0, 0, 0])
    assert workshop.stored(ids[0], "it")["vectors"] == {"embedding": vector["_id"]}
    assert workshop.stored(ids[1], "it").get("vectors") is None
    assert "-v2-" in vector["space"]
