"""The vocabulary: the terms that uploads have, by their beginnings."""

from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from editing import edited
from workshop import Workshop

from clustr.database.search_terms import INDEXES
from clustr.database.vocabulary import (
    COUNTED_AGAIN_AFTER,
    CountedTerm,
    Vocabulary,
    is_in_vocabulary,
)


@pytest.fixture
def vocabulary(mongo_database: Any, collection: Any) -> Vocabulary:
    collection.create_index(name="search_terms", **INDEXES["search_terms"])
    return Vocabulary(mongo_database["search_vocabulary"], collection)


def has(collection: Any, *terms: str) -> None:
    """Let another upload have these terms."""
    collection.insert_one({"_id": ObjectId(), "search": {"terms": [*terms]}})


def test_terms_are_found_by_their_beginnings_the_frequent_ones_first(vocabulary, collection):
    vocabulary.add(["c=vacation", "c=vacant", "t=vacation", "c=vase", "c~vacat"])
    vocabulary.add(["c=vacation", "c=vast"])
    has(collection, "c=vacation")
    has(collection, "c=vacation", "c=vacant")
    assert vocabulary.count_some() == 6
    vacation, vacant = CountedTerm("c=vacation", 2), CountedTerm("c=vacant", 1)
    assert vocabulary.beginning_with(["c=vac"], 10) == [vacation, vacant]
    assert vocabulary.beginning_with(["c=vac"], 1) == [vacation]
    assert vocabulary.beginning_with(["t=vac"], 10) == [CountedTerm("t=vacation", 0)]
    assert vocabulary.beginning_with([], 10) == []
    assert vocabulary.counted(["c=vacant", "c=vac", "c=vacation"]) == [vacant, vacation]


def test_a_new_term_is_found_at_once(vocabulary):
    vocabulary.add(["#=red ball", "t=red"])
    found = vocabulary.beginning_with(["#=red", "t=red"], 10)
    assert found == [CountedTerm("#=red ball", 1), CountedTerm("t=red", 1)]


def test_another_process_adds_what_is_there_already(vocabulary, mongo_database, collection):
    vocabulary.add(["c=dog"])
    Vocabulary(mongo_database["search_vocabulary"], collection).add(["c=dog", "c=dune"])
    assert mongo_database["search_vocabulary"].count_documents({}) == 2


def test_terms_are_counted_again_after_some_time(vocabulary, mongo_database, collection):
    vocabulary.add(["c=dog", "c=dune"])
    while vocabulary.count_some():
        pass
    # An upload may have it again before it is counted again.
    assert vocabulary.beginning_with(["c=dog"], 10) == [CountedTerm("c=dog", 0)]
    has(collection, "c=dog")
    assert vocabulary.count_some() == 0
    age(mongo_database)
    assert vocabulary.count_some() == 2
    assert vocabulary.beginning_with(["c=dog"], 10) == [CountedTerm("c=dog", 1)]


def test_terms_are_not_counted_again_while_no_upload_changes(vocabulary, collection, monkeypatch):
    monkeypatch.setattr("clustr.database.vocabulary.COUNTED_AGAIN_AFTER", timedelta(0))
    vocabulary.add(["c=dog", "c=dune"])
    assert vocabulary.count_some() == 2
    assert [vocabulary.count_some() for _ in range(3)] == [0, 0, 0]
    has(collection, "c=dog")
    assert vocabulary.count_some() == 2


def age(mongo_database: Any) -> None:
    """Let the terms have been counted some time before."""
    aged = {"$subtract": ["$counted_at", COUNTED_AGAIN_AFTER // timedelta(milliseconds=1)]}
    mongo_database["search_vocabulary"].update_many({}, [{"$set": {"counted_at": aged}}])


@pytest.mark.parametrize(
    ("term", "known"),
    [
        ("c=dog", True),
        ("c=mp3", True),
        ("c=海", True),
        ("t=boeing747", True),
        ("#=route 2024", True),
        ("c=covid2019", True),
        ("t=2024", False),
        ("n=2024", False),
        ("n=07", False),
        ("n=20240715", False),
        ("n=2024-07", False),
        ("n=3f9a8b7c6d5e", False),
    ],
)
def test_numbers_are_left_out(term, known):
    assert is_in_vocabulary(term) == known


def test_what_is_written_anywhere_is_in_the_vocabulary(saying_workshop: Workshop, upload_id):
    edited(saying_workshop, upload_id, tags={"add": ["red ball", "Boeing747"]})
    vocabulary = saying_workshop.web.database.vocabulary
    found = vocabulary.beginning_with(["n=phot", "c=ca", "#=so", "#=boe", "t=bal"], 10)
    terms = {each.term for each in found}
    assert terms == {"n=photograph", "c=cat", "#=sofa", "#=boeing747", "t=ball"}
