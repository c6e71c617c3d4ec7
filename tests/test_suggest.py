"""Suggestions for the last word of a search that somebody is typing."""

from typing import Any

import photographs
import pytest
from calling import get
from workshop import Workshop

from clustr.database import Database
from clustr.database.most_used import MAX_SORTED
from clustr.database.search_conditions import search_condition
from clustr.search.query import parse
from clustr.services.suggestions import KINDS, suggest

LETTERS = str.maketrans("0123456789", "ghijkmnopq")  # for words without digits
UPLOADS: list[tuple[str, list[str]]] = [
    ("two dogs on a golden beach", ["Golden Retriever", "beach"]),
    ("a golden dog", ["Golden Retriever", "dog"]),
    ("a goldfish", ["golden retriever", "gold"]),
    ("München bei Nacht", ["München", "2024", 'so "called"']),
    ("a dog", ["Route 66", "❤"]),
]


@pytest.fixture(scope="module")
def shared_workshop(shared_workshop: Workshop) -> Workshop:
    """With some uploads, which are counted."""
    client = shared_workshop.app.test_client()
    ids = shared_workshop.upload(*(photographs.unique(number=n) for n in range(len(UPLOADS))))
    for upload_id, (caption, tags) in zip(ids, UPLOADS, strict=True):
        edit = {"caption": caption, "tags": {"set": tags}, "original_name": "golden_IMG.jpg"}
        assert client.patch(f"/api/uploads/{upload_id}", json=edit).status_code == 200
    count(shared_workshop.web.database)
    return shared_workshop


@pytest.fixture
def workshop(shared_workshop: Workshop) -> Workshop:
    return shared_workshop


def count(database: Database) -> None:
    while database.vocabulary.count_some():
        pass
    while not database.counters.step():
        pass


def suggestions(workshop: Workshop, q: str, **query: Any) -> list[dict[str, Any]]:
    query |= {"q": q}
    answer = workshop.app.test_client().get("/api/suggest", query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.get_json()["data"]


def values(workshop: Workshop, q: str, **query: Any) -> list[tuple[str, str, int | None]]:
    return [(s["kind"], s["value"], s["count"]) for s in suggestions(workshop, q, **query)]


def test_the_kinds_take_turns_and_of_each_the_most_frequent_come_first(workshop):
    assert values(workshop, "gol") == [
        ("tag", 'tag:"Golden Retriever"', 3),
        ("word", "golden", 5),
        ("tag", "tag:gold", 1),
        ("word", "gold", 1),
        ("word", "goldfish", 1),
    ]
    assert values(workshop, "gol", limit=2) == values(workshop, "gol")[:2]
    assert values(workshop, "t")[-2:] == [("filter", "tag:", None), ("filter", "taken:", None)]


def test_a_kind_can_be_asked_for(workshop):
    assert {s["kind"] for s in suggestions(workshop, "gol", kind="tag")} == {"tag"}
    assert values(workshop, "ta", kind="filter") == [
        ("filter", "tag:", None),
        ("filter", "taken:", None),
    ]
    both = suggestions(workshop, "t", kind=["filter", "word"])
    assert {s["kind"] for s in both} == {"filter", "word"}


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("tag:gold", ['tag:"Golden Retriever"', "tag:gold"]),
        ('tag:"golden ret', ['tag:"Golden Retriever"']),
        ('"golden ret', ['tag:"Golden Retriever"']),
        ("tag:20", ["tag:2024"]),
        ("tag:route", ['tag:"Route 66"']),
        ("tag:so", ['tag:"so called"']),
        ("caption:go", ["caption:golden", "caption:goldfish"]),
        ("name:go", ["name:golden"]),
        ("-caption:goldf", ["-caption:goldfish"]),
        ("-goldf", ["-goldfish"]),
        ("-befo", ["-before:"]),
        ("mün", ["tag:München", "munchen"]),
        ("MUN", ["tag:München", "munchen"]),
        ("TAK", ["taken:"]),
        ('"golden beach" af', ["after:"]),
        ("after:20", []),
        ("colour:go", []),
        ("http://gol", []),
        ("two ", []),
        (" ", []),
        ('"golden retriever"', []),
        ("golden-bea", []),
        ("caption:", []),
        ("\0", []),
        ("%(.*", []),
    ],
)
def test_the_last_word_is_completed_in_its_field(workshop, q, expected):
    assert [s["value"] for s in suggestions(workshop, q)] == expected


def test_after_tag_the_most_used_tags_are_suggested(workshop):
    found = values(workshop, "tag:", limit=50)
    assert found[0] == ("tag", 'tag:"Golden Retriever"', 3)
    assert len(found) == 8  # No search can find a tag without letters and digits.


@pytest.mark.parametrize("before", ["", "dog ", "-name:x ", '"two dogs" ', "tag:beach  "])
@pytest.mark.parametrize("typed", ["gol", 'tag:"golden r', "name:gol", "caption:golde"])
def test_the_whole_search_with_a_suggestion_is_a_search(workshop, before, typed):
    found = suggestions(workshop, before + typed)
    assert found
    for one in found:
        assert one["search"] == before + one["value"]
        assert uploads_found(workshop, one["value"])


def uploads_found(workshop: Workshop, search: str) -> int:
    query = parse(search, workshop.web.database.search_terms.stemming, prefix=False)
    return workshop.collection.count_documents(search_condition(query))


def test_a_suggestion_finds_the_uploads_that_it_counts(workshop):
    """Words find what has another form of them, or has them in another field, too."""
    for typed in ("gol", "tag:", "dog", "mun", "caption:d"):
        for one in suggestions(workshop, typed):
            found = uploads_found(workshop, one["search"])
            assert found == one["count"] if one["kind"] == "tag" else found >= one["count"], one


def test_a_new_word_is_suggested_at_once(workshop):
    (upload_id,) = workshop.upload(photographs.unique(number=77))
    client = workshop.app.test_client()
    client.patch(f"/api/uploads/{upload_id}", json={"caption": "a zeppelin"})
    assert values(workshop, "zep") == [("word", "zeppelin", 1)]
    client.delete(f"/api/uploads/{upload_id}")


@pytest.mark.parametrize("count", [3, MAX_SORTED + 1])
def test_the_most_used_are_found_among_few_and_among_many(database, collection, count):
    words = {f"wa{number:x}".translate(LETTERS): number + 1 for number in range(count)}
    stored = [{"_id": f"c={word}", "count": number} for word, number in words.items()]
    stored += [{"_id": "c=walrus", "count": 0}, {"_id": "c=other", "count": 10**6}]
    stored += [{"_id": "#=walrus house", "count": 10**6}, {"_id": "#=wal", "count": 10**5}]
    stored += [{"_id": "t=wal", "count": 7}, {"_id": "c~wal", "count": 10**6}]
    collection.database["search_vocabulary"].insert_many(stored)
    tags = [{"_id": word, "name": word, "folded": word, "count": n} for word, n in words.items()]
    collection.database["tags"].insert_many([*tags, {"_id": "b", "folded": "b", "count": 10**6}])
    most = sorted(words, key=lambda word: -words[word])[:3]
    found = database.vocabulary.most_used_words("wa", None, 4)
    assert [(one.word, one.count) for one in found] == [
        ("wal", 10**5),
        *((word, words[word]) for word in most),
    ][:4]
    assert list(database.counters.most_used_tags("WA", 3)) == most


@pytest.mark.parametrize("q", ["w", "wal", "tag:w", "caption:w"])
@pytest.mark.parametrize("used", [0, 1])
def test_few_are_read_of_those_that_begin_alike(database, collection, q, used):
    """Whether they are the most used of all, or the least."""
    others = [f"x{number:x}".translate(LETTERS) for number in range(5 * MAX_SORTED)]
    words = [f"wal{number:x}".translate(LETTERS) for number in range(MAX_SORTED * (1 + used))]
    counts = {**dict.fromkeys(others, 5), **dict.fromkeys(words, 9 if used else 1)}
    mongo = collection.database
    stored = [{"_id": f"c={word}", "count": number} for word, number in counts.items()]
    mongo["search_vocabulary"].insert_many(stored)
    mongo["tags"].insert_many([{"_id": w, "folded": w, "count": n} for w, n in counts.items()])
    mongo["system.profile"].drop()
    mongo.command("profile", 2)
    found = suggest(database, q, 10)
    mongo.command("profile", 0)
    assert len(found) == 10
    plans = [*mongo["system.profile"].find({"op": {"$in": ["query", "command"]}})]
    assert len(plans) in (2, 4)
    for plan in plans:
        assert plan["docsExamined"] <= MAX_SORTED, plan
        assert plan["keysExamined"] <= MAX_SORTED + 10, plan


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "q"),
        ("q=", "q"),
        (f"q={'a' * 501}", "q"),
        ("q=a&limit=0", "limit"),
        ("q=a&limit=51", "limit"),
        ("q=a&limit=x", "limit"),
        ("q=a&kind=person", "kind.0"),
        ("q=a&kind=", "kind.0"),
        ("q=a&prefix=a", "prefix"),
    ],
)
def test_what_is_wrong_is_named(web, query, field):
    answer = get(web, f"/api/suggest?{query}")
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == [field]
    if field == "kind.0":
        assert all(kind in answer.text for kind in KINDS)
