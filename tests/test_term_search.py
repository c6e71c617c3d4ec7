"""Searching by terms: what is found, in which order, and how much is read for it."""

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.collection import Collection
from test_search_terms import STEMMING

from clustr.database.listing import UploadFilter
from clustr.database.search_terms import INDEXES
from clustr.database.term_search import MAX_RANKED, Hit, TermSearch
from clustr.database.uploads import NEWEST_FIRST
from clustr.database.vocabulary import Vocabulary
from clustr.search.query import SearchQuery, parse

COMMON = MAX_RANKED + 500
BOTH = 25  # uploads have both common words
WORDS = ("zebra", "zebras", "zebra crossing", "a zebra", "many zebras", "zebrafish", "nothing")


@pytest.fixture(scope="module")
def uploads(mongo_database: Any) -> Collection[dict[str, Any]]:
    """Of uploads with two common words, some with both, and of some with the words of a zebra."""
    collection = mongo_database["term_search"]
    collection.create_index(name="search_terms", **INDEXES["search_terms"])
    collection.create_index(name="newest_first", keys=NEWEST_FIRST)
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
    collection.insert_one({"_id": "foreign", "search": {"terms": ["c=zebra"]}})
    return collection


def upload(number: int, caption: str, *tags: str) -> dict[str, Any]:
    stored = STEMMING.terms_of_upload(f"20{number % 900:03}.jpg", caption, tags)
    return {
        "_id": ObjectId(),
        "upload_time": datetime(2026, 1, 1) + timedelta(minutes=number),
        "caption": caption,
        "tags": [*tags],
        "status": "pending" if number % 2 else "processed",
        "facets": ["any", "pending" if number % 2 else "processed"],
        "search": {"terms": [*stored.terms], "text": stored.text},
    }


@pytest.fixture
def search(uploads: Collection[dict[str, Any]], mongo_database: Any) -> TermSearch:
    vocabulary = Vocabulary(mongo_database["term_search_vocabulary"], uploads)
    return TermSearch(uploads, vocabulary)


def query(q: str, prefix: bool = False) -> SearchQuery:
    return parse(q, STEMMING, prefix)


def _pending(uploads: Collection[dict[str, Any]]) -> set[ObjectId]:
    return {*uploads.distinct("_id", {"status": "pending"})}


def texts(uploads: Collection[dict[str, Any]], hits: list[Hit]) -> list[str]:
    found = {each["_id"]: each for each in uploads.find({"_id": {"$in": [h.key for h in hits]}})}
    return ["".join(found[h.key]["tags"]) or f"({found[h.key]['caption']})" for h in hits]


def test_what_matches_best_comes_first(search, uploads):
    found = search.find(query("zebra"), 20)
    assert found.ranked
    assert found.total == 10
    assert not found.more
    assert texts(uploads, found.hits) == [
        *("a zebra", "zebra crossing", "zebra"),
        *("(a zebra)", "(zebra crossing)", "(zebra)"),
        *("(many zebras)", "many zebras", "(zebras)", "zebras"),
    ]


def test_words_that_only_begin_so_come_last(search, uploads):
    found = search.find(query("zebra", prefix=True), 20)
    assert texts(uploads, found.hits)[10:] == ["(zebrafish)", "zebrafish"]
    found = search.find(query("zeb", prefix=True), 20)
    assert found.total == 12
    pending = search.find(query("zebra"), 20, upload_filter=UploadFilter(status="pending"))
    every = [hit.key for hit in search.find(query("zebra"), 20).hits]
    assert [hit.key for hit in pending.hits] == [key for key in every if key in _pending(uploads)]


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
    upload_filter = UploadFilter(status=status)
    walked: list[Hit] = []
    page = search.find(query(q), 300, upload_filter=upload_filter)
    total, second = page.total, search.find(query(q), 3, skipped=3, upload_filter=upload_filter)
    while page.more:
        walked += page.hits
        page = search.find(query(q), 300, walked[-1], upload_filter=upload_filter)
    walked += page.hits
    assert walked == sorted(walked, key=Hit.order)
    assert len({hit.key for hit in walked}) == len(walked)
    assert second.hits == walked[3:6]
    assert total == (len(walked) if len(walked) <= 1000 else None)
    if status is None:
        assert len(walked) == number
    statuses = uploads.distinct("status", {"_id": {"$in": [hit.key for hit in walked]}})
    assert {*statuses} <= ({status} if status else {"pending", "processed"})


@pytest.mark.parametrize(
    ("q", "most"), [("bird", 0), ("zebra", 0), ("sea bird", BOTH), ("bird -zebra", 21)]
)
def test_of_common_words_no_more_is_read_than_is_found(search, uploads, q, most):
    database = uploads.database
    database["system.profile"].drop()
    database.command("profile", 2)
    try:
        found = search.find(query(q), 20)
    finally:
        database.command("profile", 0)
    assert len(found.hits) == (10 if q == "zebra" else 20)
    read = [*database["system.profile"].find({"ns": uploads.full_name, "op": "query"})]
    assert read
    assert sum(each["docsExamined"] for each in read) <= most


def test_numbers_are_found_by_their_beginnings(search, uploads):
    found = search.find(query("2001", prefix=True), 20)
    assert found.ranked
    begin_so = {"search.text": {"$regex": "^n 2001", "$options": "m"}}
    assert found.total == uploads.count_documents(begin_so)
    found = search.find(query("20", prefix=True), 20)
    newest = uploads.find({"upload_time": {"$exists": True}}).sort(NEWEST_FIRST).limit(20)
    assert [hit.key for hit in found.hits] == [upload["_id"] for upload in newest]
    assert (found.total, found.ranked, found.more) == (None, False, True)
