"""The collection of one owner: nothing that is called there reads or writes uploads of others."""

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.collection import Collection

from clustr.database import Database
from clustr.database.filters import filter_from_query
from clustr.database.own_uploads import STAGES_BEYOND, OwnUploads

BOTH = [
    {"_id": 1, "owner": "alice", "n": 1},
    {"_id": 2, "owner": "bob", "n": 1},
    {"_id": 3, "n": 1},
]


@pytest.fixture
def collection(mongo_database: Any) -> Iterator[Collection[dict[str, Any]]]:
    collection = mongo_database["owned"]
    collection.insert_many(BOTH)
    yield collection
    collection.drop()


@pytest.fixture
def own(collection: Collection[dict[str, Any]]) -> OwnUploads:
    return OwnUploads(collection, "alice")


def test_every_query_finds_the_documents_of_the_owner_alone(own: OwnUploads) -> None:
    [mine] = own.find({"n": 1})
    assert mine["_id"] == 1
    assert [d["_id"] for d in own.find({"n": 1}).clone()] == [1]
    assert own.find_one({"_id": 2}) is None
    assert own.count_documents({}) == 1
    assert [d["_id"] for d in own.aggregate([{"$match": {"n": 1}}])] == [1]
    assert own.database[own.name].find_one({"_id": 3}) is None
    assert own.with_options().find_one({"_id": 2}) is None


def test_every_change_is_of_the_documents_of_the_owner_alone(
    own: OwnUploads, collection: Collection[dict[str, Any]]
) -> None:
    changed = {"$set": {"n": 2}}
    assert own.update_one({"_id": 2}, changed).matched_count == 0
    assert own.update_many({}, changed).matched_count == 1
    assert own.find_one_and_update({"_id": 3}, changed) is None
    assert own.delete_one({"_id": 2}).deleted_count == 0
    for document in ({"_id": 4}, {"_id": 4, "owner": "bob"}):
        with pytest.raises(ValueError, match="another owner"):
            own.insert_many([document])
        with pytest.raises(ValueError, match="another owner"):
            own.replace_one({"_id": 2}, document, upsert=True)
    assert {d["_id"]: d["n"] for d in collection.find()} == {1: 2, 2: 1, 3: 1}


@pytest.mark.parametrize("stage", STAGES_BEYOND)
def test_stages_that_read_other_documents_are_refused(own: OwnUploads, stage: str) -> None:
    with pytest.raises(ValueError, match="other owners"):
        own.aggregate([{"$limit": 1}, {stage: {}}])
    with pytest.raises(ValueError, match="a part of the uploads"):
        own.database.command("dbStats")


def test_a_union_is_one_of_documents_of_the_owner_alone(own: OwnUploads) -> None:
    def joined(coll: str, pipeline: list[dict[str, Any]]) -> list[int]:
        union = {"$unionWith": {"coll": coll, "pipeline": pipeline}}
        return [d["_id"] for d in own.aggregate([{"$match": {"n": 1}}, union])]

    assert joined(own.name, []) == [1, 1]
    assert joined(own.name, [{"$match": {"_id": {"$in": [2, 3]}}}]) == [1]
    for coll, pipeline in (("other", []), (own.name, [{"$facet": {}}])):
        with pytest.raises(ValueError, match="other owners"):
            joined(coll, pipeline)


def test_what_is_not_known_to_be_safe_is_not_there(own: OwnUploads) -> None:
    for name in ("distinct", "bulk_write", "watch", "estimated_document_count", "drop"):
        assert hasattr(Collection, name)
        assert not hasattr(own, name)


def test_searches_of_an_owner_read_the_owners_index(database: Database) -> None:
    uploads = database.uploads._collection
    uploads.database.command("profile", 2)
    try:
        for search in ("beach", "beach sea", 'beach "at sea"', "bea"):
            found = filter_from_query({"q": search, "prefix": "on"}, database.search_terms.stemming)
            database.view_of("alice").search.page(found, 10)
            database.view_of("alice").search.page(found, 10, sort=None)
    finally:
        uploads.database.command("profile", 0)
    asked = {"ns": uploads.full_name, "op": {"$in": ["query", "command"]}}
    plans = [*uploads.database["system.profile"].find(asked)]
    assert len(plans) > 8
    assert {plan["planSummary"] for plan in plans} <= {
        "IXSCAN { owner: 1, search.terms: 1, upload_time: -1, _id: -1 }",
        "COUNT_SCAN { owner: 1, search.terms: 1, upload_time: -1, _id: -1 }",
        "IXSCAN { owner: 1, upload_time: -1, _id: -1 }",
        "IXSCAN { _id: 1 }",
        "EOF",
    }
