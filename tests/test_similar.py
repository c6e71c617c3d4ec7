"""Similar uploads: found exactly, with the filters, the fields and the errors of the list."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import photographs
import pytest
from bson import ObjectId
from made_vectors import BITS, COSINE, DIMENSIONS, VECTORS, Gallery, by_numpy, distances
from sent_commands import sent

from clustr.database import NewVector, UploadFilter
from clustr.plugins import Vector

UNKNOWN_ID = "0" * 24


def test_similar_uploads_are_found_from_the_bytes_on(vector_gallery: Gallery) -> None:
    workshop = vector_gallery.workshop
    ids = workshop.upload(*(photographs.unique("png", n, 30 + n, 9) for n in (0, 1, 5)))
    assert vector_gallery.similar(ids[0]).get_json()["type"].endswith("no_result")
    assert workshop.horse("it", "run").process.wait(60) == 0
    answer = vector_gallery.similar(ids[0]).get_json()
    assert [one["id"] for one in answer["data"]] == ids[1:]
    assert (answer["by"], answer["metric"]) == ("it.cosine", "cosine")
    listed = workshop.app.test_client().get("/api/uploads").get_json()["data"]
    by_id = {one["id"]: one for one in listed}
    for one in answer["data"]:
        assert 0 < one.pop("distance") < 1
        assert one == by_id[one["id"]]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.field)
def test_the_nearest_are_those_of_numpy(vector_gallery: Gallery, vector: Vector) -> None:
    random = np.random.default_rng(5)
    shape = (3000, vector.dimensions)
    values = random.integers(0, 2, shape) if vector is BITS else random.standard_normal(shape)
    values[1000:1050] = values[0]  # Some are the same, and so are their distances.
    ids = vector_gallery.add([{vector.field: value} for value in values])
    given = dict(zip(ids, values, strict=True))
    for n in (0, 1, 2999):
        others = {i: value for i, value in given.items() if i != ids[n]}
        found = vector_gallery.found(ids[n], by=f"it.{vector.field}", limit=100)
        assert [i for i, _ in found] == by_numpy(vector, values[n], others)[:100]
        expected = distances(vector, values[n], [given[i] for i, _ in found])
        assert np.allclose([distance for _, distance in found], expected, atol=1e-5)


def test_fields_filters_and_the_farthest_are_as_in_the_list(vector_gallery: Gallery) -> None:
    tagged = vector_gallery.add_random(40, 1, tags=["Cat"], tag_keys=["cat"])
    others = vector_gallery.add_random(40, 2)
    found = vector_gallery.found(others[0], limit=100, tag="cat")
    assert {i for i, _ in found} == {*tagged}
    found = vector_gallery.found(others[0], limit=100, **{"analyses.it.n__gte": 35})
    assert {i for i, _ in found} == {*tagged[35:], *others[35:]}
    near = [pair for pair in vector_gallery.found(others[0], limit=100) if pair[1] <= 0.5]
    assert 0 < len(near) < 79
    assert vector_gallery.found(others[0], limit=100, max_distance=0.5) == near
    [one] = vector_gallery.similar(others[0], limit=1, fields="tags").get_json()["data"]
    assert set(one) == {"id", "tags", "distance"}
    assert vector_gallery.found(others[0], status="error") == []


@pytest.fixture
def checked(vector_gallery: Gallery) -> Iterator[Callable[[], list[int]]]:
    """Called, how many uploads MongoDB looked at in each check of what may be an answer."""
    database = vector_gallery.collection.database
    database.command("profile", 2)

    def stop_and_look() -> list[int]:
        database.command("profile", 0)
        checks = {"ns": vector_gallery.collection.full_name, "command.hint": "_id_"}
        found = database["system.profile"].find(checks).sort("ts", 1)
        return [check["docsExamined"] for check in found]

    yield stop_and_look
    database.command("profile", 0)
    database["system.profile"].drop()


def test_few_that_meet_a_filter_are_found_among_many(
    vector_gallery: Gallery, checked: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clustr.services.nearest.MOST_CHECKED", 50)
    vector_gallery.add_random(1000)
    far = vector_gallery.add(
        [{"cosine": [-1] * 15 + [n / 100]} for n in range(300)], tags=["Cat"], tag_keys=["cat"]
    )
    [one] = vector_gallery.add([{"cosine": [1] * DIMENSIONS}])
    given = {i: vector_gallery.values[i]["cosine"] for i in far}
    found = [i for i, _ in vector_gallery.found(one, limit=20, tag="cat")]
    assert found == by_numpy(COSINE, [1] * DIMENSIONS, given)[:20]
    # MongoDB said which they are, and then those alone were looked at.
    assert checked() == [20 * 15 + 16, 20 + 16]


def test_what_takes_too_long_with_a_filter_is_refused_with_what_helps(
    vector_gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clustr.services.nearest.MOST_CHECKED", 50)
    monkeypatch.setattr("clustr.database.vectors.SEARCH_SECONDS", 1e-6)
    vector_gallery.add_random(1000)
    vector_gallery.add([{"cosine": [-1] * DIMENSIONS}] * 30, tags=["Cat"], tag_keys=["cat"])
    [one] = vector_gallery.add([{"cosine": [1] * DIMENSIONS}])
    refused = vector_gallery.similar(one, tag="cat")
    assert (refused.status_code, list(refused.get_json()["errors"])) == (422, ["max_distance"])
    assert vector_gallery.found(one, tag="cat", max_distance=0.4) == []


def test_of_many_at_the_same_distance_few_are_looked_at(
    vector_gallery: Gallery, checked: Callable[[], list[int]]
) -> None:
    ids = vector_gallery.add([{"bits": [1] * 100}] * 1200)
    tagged = vector_gallery.add([{"bits": [1] * 100}] * 30, tags=["Cat"], tag_keys=["cat"])
    found = [i for i, _ in vector_gallery.found(ids[0], by="it.bits", limit=20)]
    assert found == sorted(ids)[1:21]
    found = [i for i, _ in vector_gallery.found(ids[0], by="it.bits", limit=20, tag="cat")]
    assert found == sorted(tagged)[:20]
    assert checked() == [20 + 16, 20 * 15 + 16, 1230 - 20 * 15 - 16]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"by": ""}, "by"),
        ({"by": "it"}, "by"),  # It has three.
        ({"by": "it.cosin"}, "by"),
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"page": 1}, "page"),
        ({"sort": "name"}, "sort"),
        ({"max_distance": -1}, "max_distance"),
        ({"max_distance": "nan"}, "max_distance"),
        ({"analyses.it.m": 1}, "analyses.it.m"),
        ({"limit": [1, 2]}, "limit"),
    ],
)
def test_what_cannot_be_asked_is_said(vector_gallery: Gallery, query: Any, error: str) -> None:
    [upload_id] = vector_gallery.add_random(1)
    answer = vector_gallery.similar(upload_id, **query)
    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == [error]


def test_an_unknown_vector_is_named_with_those_that_there_are(vector_gallery: Gallery) -> None:
    [upload_id] = vector_gallery.add_random(1)
    [message] = vector_gallery.similar(upload_id, by="it.cosin").get_json()["errors"]["by"]
    assert "it.cosin" in message
    assert message.endswith("; did you mean it.cosine?")


def test_no_vector_yet_is_another_problem_than_no_such_upload(vector_gallery: Gallery) -> None:
    workshop = vector_gallery.workshop
    answer = vector_gallery.similar(UNKNOWN_ID)
    assert answer.status_code == 404
    assert answer.get_json()["type"].endswith("not_found")
    queued, none = workshop.upload(
        photographs.unique("png", 1), photographs.unique("png", 2, 13, 13)
    )
    answer = vector_gallery.similar(queued)
    assert answer.status_code == 404
    assert answer.get_json()["type"].endswith("no_result")
    detail = f"The upload {queued} has no vector it.cosine yet; its analysis it is queued."
    assert answer.get_json()["detail"] == detail
    assert workshop.horse("it", "run").process.wait(60) == 0
    detail = f"The upload {none} has no vector it.cosine; its result of it has none."
    assert vector_gallery.similar(none).get_json()["detail"] == detail
    workshop.web.removal.remove(queued)
    assert vector_gallery.similar(queued).get_json()["type"].endswith("in_trash")


def test_a_vector_of_an_earlier_version_is_no_answer(vector_gallery: Gallery) -> None:
    old, new, other = vector_gallery.add_random(3)
    stale = {"$set": {"analyses.0.version": 0, "analyses.0.vectors": {}}}
    vector_gallery.collection.update_one({"_id": ObjectId(old)}, stale)
    assert [i for i, _ in vector_gallery.found(new)] == [other]
    detail = vector_gallery.similar(old).get_json()["detail"]
    assert detail.endswith("its result is of version 0 of it, which is at version 1.")


def test_what_goes_is_found_no_more_and_comes_back_with_the_upload(vector_gallery: Gallery) -> None:
    ids = vector_gallery.add_random(5)
    removal = vector_gallery.workshop.web.removal
    before = vector_gallery.found(ids[0])
    removal.remove(ids[1])
    assert {i for i, _ in vector_gallery.found(ids[0])} == {*ids[2:]}
    removal.restore(ids[1])
    assert vector_gallery.found(ids[0]) == before
    removal.remove(ids[1], permanently=True)
    assert {i for i, _ in vector_gallery.found(ids[0])} == {*ids[2:]}


def test_a_vector_without_a_result_is_no_answer(vector_gallery: Gallery) -> None:
    ids = vector_gallery.add_random(3)
    vector = NewVector(ids[0], "it", 1, COSINE, COSINE.encode([1] * DIMENSIONS))
    vector_gallery.database.vectors.add([vector])
    stray = NewVector(UNKNOWN_ID, "it", 1, COSINE, COSINE.encode([1] * DIMENSIONS))
    vector_gallery.database.vectors.add([stray])
    assert vector_gallery.nearest(vector_gallery.fresh()) == vector_gallery.expected()


@pytest.mark.parametrize("wanted", [None, UploadFilter(tag_keys=("cat",))], ids=["all", "tag"])
def test_an_owner_is_answered_from_own_vectors_alone(
    vector_gallery: Gallery, wanted: UploadFilter | None
) -> None:
    """Whatever others have, the same is found, and the same is asked of MongoDB for it."""
    tags = {"tags": ["Cat"], "tag_keys": ["cat"]}
    mine = vector_gallery.add_random(60, 1, owner="alice", **tags)
    nearest = vector_gallery.fresh()
    field = nearest.field("it.cosine")

    def search() -> tuple[list[str], list[Any]]:
        vector_gallery.nearest(nearest)  # The files have all vectors after it.
        with sent() as commands:
            vector = field.vector.encode([1] * DIMENSIONS)
            found = nearest.seen_by("alice").find(field, vector, 10, wanted)
        return [each.upload_id for each in found], commands

    search()  # What is asked once in a while is known after it.
    before = search()
    assert before[0] == vector_gallery.expected(10, mine)
    for owner in ("bob", None):
        more = {"owner": owner} if owner else {}
        vector_gallery.add([{"cosine": [1] * DIMENSIONS}] * 300, **more, **tags)  # Nearer than all.
    assert search() == before


def test_an_upload_in_the_trash_is_still_of_its_owner(vector_gallery: Gallery) -> None:
    first, *others = vector_gallery.add_random(3, owner="alice")
    nearest = vector_gallery.fresh()
    removal = vector_gallery.workshop.web.removal
    removal.remove(first)
    assert vector_gallery.nearest(nearest.seen_by("alice")) == vector_gallery.expected(10, others)
    removal.restore(first)
    assert vector_gallery.nearest(nearest.seen_by("alice")) == vector_gallery.expected()
    assert vector_gallery.nearest(nearest.seen_by("bob")) == []


def test_the_route_is_described_with_the_filters_of_plugins(vector_gallery: Gallery) -> None:
    document = vector_gallery.workshop.app.test_client().get("/openapi.json").get_json()
    operation = document["paths"]["/api/uploads/{upload_id}/similar"]["get"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert {"by", "max_distance", "limit", "tag", "q", "fields", "analyses.it.n__gte"} <= names
    assert not names & {"page", "cursor", "sort"}
    [by] = [each for each in operation["parameters"] if each["name"] == "by"]
    [reference] = by["schema"]["allOf"]
    values = document["components"]["schemas"][reference["$ref"].rpartition("/")[2]]["enum"]
    assert values == ["it.bits", "it.cosine", "it.euclidean"]  # `it` alone would not say which.
