"""Searching by terms: what is found, in which order, and how much is read for it."""

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.collection import Collection
from test_search_terms import STEMMING

from clustr.database import INDEXES
from clustr.database.documents import NEWEST_FIRST
from clustr.database.indexes import make_indexes
from clustr.database.listing import Listing
from clustr.database.local_dates import LocalDates
from clustr.database.search import Search, SearchPage
from clustr.database.tag_keys import TagKeys
from clustr.database.term_search import MAX_COMPARED, MAX_RANKED
from clustr.database.upload_counts import UploadCounts
from clustr.database.upload_filter import Sort, UploadFilter
from clustr.database.vocabulary import Vocabulary
from clustr.search.query import parse

COMMON = MAX_RANKED + 500
BOTH = 25  # uploads have both common words
WORDS = ("zebra", "zebras", "zebra crossing", "a zebra", "many zebras", "zebrafish", "nothing")


@pytest.fixture(scope="module")
def uploads(mongo_database: Any) -> Collection[dict[str, Any]]:
    """Of uploads with two common words, some with both, and of some with the words of a zebra."""
    collection = mongo_database["term_search"]
    make_indexes(collection, INDEXES)
    captions = ["a bird"] * (COMMON - BOTH) + ["the sea"] * (COMMON - BOTH)
    captions += ["the sea, a bird"] * (BOTH - 5) + ["a bird at the sea"] * 5
    random.Random(1).shuffle(captions)
    vocabulary = Vocabulary(mongo_database["term_search_vocabulary"], collection)
    documents = [upload(n, caption) for n, caption in enumerate(captions)]
    documents += [upload(n, "", word) for n, word in enumerate(WORDS)]
    documents += [upload(n, word) for n, word in enumerate(WORDS)]
    for document in documents:
        vocabulary.add(document["search"]["terms"])
    collection.insert_many(documents)
    return collection


def upload(number: int, caption: str, *tags: str) -> dict[str, Any]:
    stored = STEMMING.terms_of_upload(f"20{number % 900:03}.jpg", caption, tags)
    return {
        "_id": ObjectId(),
        "upload_time": datetime(2026, 1, 1) + timedelta(minutes=number),
        "caption": caption,
        "tags": [*tags],
        "size": number,
        "sha256": f"{number:064x}",
        "status": "pending" if number % 2 else "processed",
        "facets": ["any", "pending" if number % 2 else "processed"],
        "search": {"terms": [*stored.terms], "text": stored.text},
    }


@pytest.fixture
def search(uploads: Collection[dict[str, Any]], mongo_database: Any) -> Search:
    vocabulary = Vocabulary(mongo_database["term_search_vocabulary"], uploads)
    counts = UploadCounts(uploads, mongo_database["term_search_counts"])
    tag_keys = TagKeys(uploads)
    listing = Listing(uploads, counts, tag_keys, LocalDates(uploads))
    return Search(uploads, vocabulary, listing, tag_keys)


def query(q: str, prefix: bool = False, **more: Any) -> UploadFilter:
    return UploadFilter(search=parse(q, STEMMING, prefix), **more)


def keys(found: SearchPage) -> list[ObjectId]:
    return [document["_id"] for document in found.page.uploads]


def texts(found: SearchPage) -> list[str]:
    return ["".join(each["tags"]) or f"({each['caption']})" for each in found.page.uploads]


def test_what_matches_best_comes_first(search):
    found = search.page(query("zebra"), 20)
    assert found.order == "score"
    assert found.page.total == 10
    assert found.page.next_cursor is None
    assert texts(found) == [
        *("zebra", "a zebra", "zebra crossing"),
        *("(a zebra)", "(zebra crossing)", "(zebra)"),
        *("(many zebras)", "many zebras", "(zebras)", "zebras"),
    ]


def test_a_foreign_record_with_the_word_has_no_place(search, uploads):
    uploads.insert_one({"_id": "foreign", "search": {"terms": ["c=zebra"]}})
    try:
        for upload_filter in (query("zebra"), query("zebra -sea")):
            found = search.page(upload_filter, 20)
            assert "foreign" not in keys(found)
            assert found.page.total == 10
    finally:
        uploads.delete_one({"_id": "foreign"})


def test_words_that_only_begin_so_come_last(search, uploads):
    found = search.page(query("zebra", prefix=True), 20)
    assert texts(found)[10:] == ["(zebrafish)", "zebrafish"]
    assert search.page(query("zeb", prefix=True), 20).page.total == 12
    pending = {*uploads.distinct("_id", {"status": "pending"})}
    found = search.page(query("zebra", status="pending"), 20)
    every = keys(search.page(query("zebra"), 20))
    assert keys(found) == [key for key in every if key in pending]


@pytest.mark.parametrize(
    ("q", "number"),
    [
        ("zebra", 10),
        ("bird", COMMON),
        ("bird sea", BOTH),
        ('"bird at the sea"', 5),
        ('sea bird -"bird at the sea"', BOTH - 5),
        ('"sea bird at"', 0),
        ("bird zebra", 0),
        ("bird -sea", COMMON - BOTH),
    ],
)
@pytest.mark.parametrize("status", [None, "pending"])
def test_a_walk_is_whole_and_in_order(search, uploads, q, number, status):
    upload_filter = query(q, status=status)
    page = search.page(upload_filter, 300)
    total, walked = page.page.total, keys(page)
    while page.page.next_cursor:
        page = search.page(upload_filter, 300, cursor=page.page.next_cursor)
        walked += keys(page)
    assert len({*walked}) == len(walked)
    assert keys(search.page(upload_filter, 3, page=2)) == walked[3:6]
    assert total == (len(walked) if len(walked) <= 1000 else None)
    if status is None:
        assert len(walked) == number
    statuses = uploads.distinct("status", {"_id": {"$in": walked}})
    assert {*statuses} <= ({status} if status else {"pending", "processed"})
    if page.order == "newest":
        newest = uploads.find({"_id": {"$in": walked}}).sort(NEWEST_FIRST)
        assert walked == [document["_id"] for document in newest]
    for sort in (Sort("size"), Sort("upload_time", descending=False)):
        found = search.page(upload_filter, 20, sort=sort)
        expected = uploads.find({"_id": {"$in": walked}}).sort(sort.keys).limit(20)
        assert keys(found) == [document["_id"] for document in expected]
        assert found.page.total == total


@pytest.mark.parametrize(
    ("q", "most"), [("bird", 21), ("zebra", 10), ("sea bird", 2 * BOTH), ("bird -zebra", 1024)]
)
def test_of_common_words_no_more_is_read_than_is_found(search, uploads, q, most):
    found, read = profiled(search, uploads, q)
    assert len(keys(found)) == (10 if q == "zebra" else 20)
    assert read
    assert sum(each["docsExamined"] for each in read) <= most


def test_of_few_uploads_those_with_a_common_word_are_found_without_its_index(search, uploads):
    birds = [*uploads.find({"search.terms": "c=bird"}).limit(BOTH)]
    ids = tuple(str(bird["_id"]) for bird in birds)
    found, read = profiled(search, uploads, "bird", ids=ids)
    assert found.page.total == len(ids)
    assert [each["keysExamined"] <= 3 * len(ids) for each in read] == [True]
    counts = {"command.aggregate": uploads.name, "keysExamined": {"$lt": 3 * len(ids)}}
    assert uploads.database["system.profile"].count_documents(counts) == 1
    found, read = profiled(search, uploads, "bird", sha256=birds[0]["sha256"])
    assert birds[0]["_id"] in keys(found)
    assert [each["keysExamined"] <= 10 for each in read] == [True]


def profiled(
    search: Search, uploads: Collection[dict[str, Any]], q: str, **more: Any
) -> tuple[SearchPage, list[dict[str, Any]]]:
    """The first page of a search, and the queries of uploads that it took."""
    database = uploads.database
    database["system.profile"].drop()
    database.command("profile", 2)
    try:
        found = search.page(query(q, **more), 20)
    finally:
        database.command("profile", 0)
    return found, [*database["system.profile"].find({"ns": uploads.full_name, "op": "query"})]


@pytest.mark.parametrize("q", ["bird", "sea"])
def test_a_common_word_is_not_counted_twice(search, uploads, q):
    found, _ = profiled(search, uploads, q)
    assert found.page.total is None
    counts = {"ns": uploads.full_name, "command.aggregate": uploads.name}
    assert uploads.database["system.profile"].count_documents(counts) == 1


def test_ids_of_any_bytes_are_compared(search, uploads):
    like_bson = ObjectId(b"\x030\0\x16\0\0\0\x07_id\0")
    uploads.insert_one(upload(COMMON * 2, "a bird at the sea") | {"_id": like_bson})
    try:
        found = search.page(query("bird sea"), 20)
        assert keys(found)[0] == like_bson
        assert found.page.total == BOTH + 1
    finally:
        uploads.delete_one({"_id": like_bson})


def test_what_far_too_many_uploads_have_is_not_compared(search, uploads, monkeypatch):
    monkeypatch.setattr("clustr.database.listing.COUNT_SECONDS", 30)  # A busy machine is slow.
    compared, read = profiled(search, uploads, "bird sea")
    assert [each for each in read if each["command"].get("limit") == MAX_COMPARED + 1]
    vocabulary = uploads.database["term_search_vocabulary"]
    vocabulary.update_one({"_id": "c=sea"}, {"$set": {"count": MAX_COMPARED + 1}})
    try:
        found, read = profiled(search, uploads, "bird sea")
    finally:
        vocabulary.update_one({"_id": "c=sea"}, {"$set": {"count": 1}})
    assert not [each for each in read if each["command"].get("limit") == MAX_COMPARED + 1]
    assert (keys(found), found.page.total) == (keys(compared), compared.page.total)


def test_numbers_are_found_by_their_beginnings(search, uploads):
    found = search.page(query("2001", prefix=True), 20)
    assert found.order == "score"
    begin_so = {"search.text": {"$regex": "^n 2001", "$options": "m"}}
    assert found.page.total == uploads.count_documents(begin_so)
    found = search.page(query("20", prefix=True), 20)
    newest = uploads.find({"upload_time": {"$exists": True}}).sort(NEWEST_FIRST).limit(20)
    assert keys(found) == [upload["_id"] for upload in newest]
    assert (found.page.total, found.order) == (None, "newest")
    assert found.page.next_cursor
