"""MongoDB finds by a search's condition just what the search matches."""

from datetime import date, datetime
from typing import Any

import pytest
from pymongo.collection import Collection
from test_search_terms import LIBRARY, PREFIXES, QUERIES, STEMMING

from clustr.database.analysis_updates import DUE_TERM
from clustr.database.connection import NAIVE_UTC
from clustr.database.search_conditions import search_condition
from clustr.database.search_terms import INDEXES
from clustr.search.query import Taken, parse


@pytest.fixture(scope="module")
def uploads(mongo_database: Any) -> Collection[dict[str, Any]]:
    collection = mongo_database["searched"]
    collection.create_index(name="search_terms", **INDEXES["search_terms"])
    for day, (name, words) in enumerate(LIBRARY.items(), 1):
        taken_on = date(2024, 7, day)
        stored = STEMMING.terms_of_upload(words.name, words.caption, words.tags, taken_on)
        search = {"terms": stored.terms, "text": stored.text}
        collection.insert_one({"_id": name, "upload_time": datetime(2024, 8, 1), "search": search})
    return collection.with_options(codec_options=NAIVE_UTC)


@pytest.mark.parametrize(
    ("q", "expected", "prefix"),
    [
        *((q, expected, False) for q, expected in QUERIES),
        *((q, expected, True) for q, expected in PREFIXES),
        ("taken:2024-07-02", "cat", False),
        ("dog after:2024-07-01", "cat", False),
        ("dog -before:2024-07-02", "cat", False),
        ("dog before:2024-07-02", "dogs", False),
    ],
)
def test_mongodb_finds_the_same_by_any_index(uploads, q, expected, prefix):
    query = parse(q, STEMMING, prefix)
    for indexed in (None, *query.words, *(each for each in query.required if type(each) is Taken)):
        found = uploads.find(search_condition(query, indexed), {"_id": 1})
        if indexed:
            found = found.hint("search_terms")
        assert {one["_id"] for one in found} == {*expected.split()}


@pytest.mark.parametrize("search", [None, {"terms": ["c=cat", DUE_TERM]}])
def test_by_what_is_not_there_none_is_found_whose_terms_are_still_to_be_made(uploads, search):
    uploads.insert_one({"_id": "untermed"} | ({"search": search} if search else {}))
    try:
        condition = search_condition(parse("-dog", STEMMING))
        assert "untermed" not in [one["_id"] for one in uploads.find(condition)]
    finally:
        uploads.delete_one({"_id": "untermed"})


def test_one_word_is_read_newest_first_without_sorting(uploads):
    query = parse("dog", STEMMING, prefix=False)
    find = {
        "find": uploads.name,
        "filter": search_condition(query, query.words[0]),
        "sort": {"upload_time": -1, "_id": -1},
        "hint": "search_terms",
        "limit": 1,
    }
    plan = uploads.database.command("explain", find, verbosity="executionStats")
    assert "'stage': 'SORT'" not in str(plan["queryPlanner"]["winningPlan"])
    assert plan["executionStats"]["totalDocsExamined"] == 1


def test_of_several_words_the_index_is_read_for_the_chosen_one(uploads):
    query = parse("on vacation", STEMMING, prefix=False)
    for word, bound in zip(query.words, ("on", "vacation"), strict=True):
        find = {
            "find": uploads.name,
            "filter": search_condition(query, word),
            "hint": "search_terms",
        }
        plan = uploads.database.command("explain", find, verbosity="queryPlanner")
        assert f"c={bound}" in str(plan["queryPlanner"]["winningPlan"]).split("indexBounds")[1]


def test_a_beginning_is_a_range_of_the_index(uploads):
    """No more keys are read than those of the range."""
    query = parse("dog", STEMMING, prefix=True)
    (word,) = query.words
    find = {
        "find": uploads.name,
        "filter": search_condition(query, word),
        "hint": "search_terms",
    }
    plan = uploads.database.command("explain", find, verbosity="executionStats")
    keys = [stored["search"]["terms"] for stored in uploads.find()]
    begins = tuple(word.prefixes())
    within = sum(term in word.ranks or term.startswith(begins) for of in keys for term in of)
    read = plan["executionStats"]["totalKeysExamined"]
    # MongoDB reads one key more at the end of each range to see that it is over.
    assert within <= read <= within + len(word.ranks) + 2 * len(word.prefixes())
    assert read < sum(map(len, keys))
