"""Filters for what uploads have not: a tag, any tag, a time at which they were taken."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.collection import Collection
from test_tags import document
from workshop import Workshop

from clustr.database import Database, Sort, filter_from_query
from clustr.search.terms import Stemming

COUNT = 120
STEMMING = Stemming(["en"])
TAGS = [[], ["cat"], ["cat", "sofa"], None, ["dog"]]
FIRST = datetime(2024, 5, 1, tzinfo=UTC)
SORTS = [Sort(by, down) for by in ("upload_time", "taken_at", "size", "name") for down in (0, 1)]


def tags(stored: dict[str, Any]) -> set[str]:
    return {*(stored.get("tags") or [])}


FILTERS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = {
    "tag_not": ({"tag_not": ["CAT"]}, lambda one: "cat" not in tags(one)),
    "tags_not": ({"tag_not": ["cat", "dog"]}, lambda one: not tags(one) & {"cat", "dog"}),
    "tag_and_not": (
        {"tag": ["cat"], "tag_not": ["sofa"]},
        lambda one: "cat" in tags(one) and "sofa" not in tags(one),
    ),
    "untagged": ({"untagged": True}, lambda one: not tags(one)),
    "tagged": ({"untagged": False}, lambda one: bool(tags(one))),
    "undated": ({"undated": True}, lambda one: one.get("taken_at") is None),
    "dated": ({"undated": False}, lambda one: one.get("taken_at") is not None),
    "undated_with_tag": (
        {"undated": True, "tag": ["cat"]},
        lambda one: one.get("taken_at") is None and "cat" in tags(one),
    ),
    "dated_until": (
        {"undated": False, "taken_before": FIRST + timedelta(days=20)},
        lambda one: one.get("taken_at") is not None and one["taken_at"] < FIRST + timedelta(20),
    ),
    "all_of_these": (
        {
            **{"undated": False, "untagged": False, "tag_not": ["sofa"], "status": "processed"},
            **{"min_size": 1001, "taken_after": FIRST + timedelta(days=1), "duplicate": False},
        },
        lambda one: (
            one.get("taken_at") is not None
            and one["taken_at"] >= FIRST + timedelta(days=1)
            and bool(tags(one))
            and "sofa" not in tags(one)
            and one["status"] == "processed"
            and one["size"] >= 1001
        ),
    ),
}


@pytest.fixture(scope="module")
def collection(mongo_database: Any) -> Collection[dict[str, Any]]:
    mongo_database["uploads"].insert_many(map(upload, range(COUNT)))
    return mongo_database["uploads"]


@pytest.fixture(scope="module")
def filled(open_database: Database, collection: Collection[dict[str, Any]]) -> Database:
    return open_database


def upload(number: int) -> dict[str, Any]:
    of_number = TAGS[number % len(TAGS)]
    written = document(number, *(of_number or ()))
    if of_number is None:  # as it is before anybody has said anything of an upload
        del written["tags"], written["tag_keys"]
    written |= {"size": 1000 + number % 7, "original_name": f"{number % 11}.jpg"}
    if number % 3:
        written["taken_at"] = FIRST + timedelta(days=number // 4) if number % 3 == 1 else None
    return written


def walk(database: Database, limit: int, wanted: dict[str, Any], sort: Sort) -> Iterator[ObjectId]:
    cursor = None
    for _ in range(COUNT):
        filters = filter_from_query(wanted, STEMMING)
        page = database.listing.page(limit, cursor=cursor, upload_filter=filters, sort=sort)
        yield from (stored["_id"] for stored in page.uploads)
        cursor = page.next_cursor
        if cursor is None:
            return


def in_order(stored: list[dict[str, Any]], sort: Sort) -> list[ObjectId]:
    def place(one: dict[str, Any]) -> tuple[Any, ...]:
        value = one.get(sort.field)
        return (value is not None, value or 0, one["_id"])

    return [one["_id"] for one in sorted(stored, key=place, reverse=bool(sort.descending))]


@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize(("wanted", "met"), FILTERS.values(), ids=FILTERS.keys())
def test_a_walk_has_what_meets_them_in_any_order(
    filled, collection, monkeypatch, wanted, met, patient
):
    """Also where it took too long at first, and few uploads are looked at."""
    if not patient:
        monkeypatch.setattr("clustr.database.listing.SEARCH_SECONDS", 1e-6)
    meeting = [one for one in collection.find() if met(one)]
    assert 0 < len(meeting) < COUNT
    for sort in SORTS:
        expected = in_order(meeting, sort)
        assert [*walk(filled, 9, wanted, sort)] == expected, sort
        page = filled.listing.page(
            4, 2, upload_filter=filter_from_query(wanted, STEMMING), sort=sort
        )
        assert [one["_id"] for one in page.uploads] == expected[4:8], sort
        assert page.total == len(expected)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("taken", ["taken_after", "taken_before"])
def test_what_excludes_each_other_finds_nothing(filled, taken, down):
    for by in ("taken_at", "upload_time"):
        wanted = {"undated": True, taken: FIRST + timedelta(days=5)}
        assert [*walk(filled, 5, wanted, Sort(by, down))] == []
    assert [*walk(filled, 5, {"untagged": True, "tag": ["cat"]}, Sort("size", down))] == []
    assert [*walk(filled, 5, {"tag": ["cat"], "tag_not": ["Cat"]}, Sort("size", down))] == []


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("more", [{}, {"status": "processed"}])
@pytest.mark.parametrize("undated", [False, True])
def test_undated_goes_with_the_order_of_taken_at_by_an_index(
    filled, collection, undated, more, down
):
    """A page reads no more uploads than it shows."""
    mongo_database = collection.database
    mongo_database["system.profile"].drop()
    mongo_database.command("profile", 2)
    try:
        walked = [*walk(filled, 7, {"undated": undated, **more}, Sort("taken_at", down))]
    finally:
        mongo_database.command("profile", 0)
    assert len(walked) > 7
    plans = [*mongo_database["system.profile"].find({"op": "query", "ns": collection.full_name})]
    assert len(plans) >= 2
    for plan in plans:
        assert not plan.get("hasSortStage"), plan
        assert plan["docsExamined"] <= 8, plan


# In queries


@pytest.fixture
def asked(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Asks the listing of a workshop with some uploads."""
    client = workshop.app.test_client()
    workshop.collection.insert_many(map(upload, range(COUNT)))
    return lambda query: client.get(f"/api/uploads?{query}")


def test_they_are_parameters_of_the_listing(asked, workshop):
    stored = [*workshop.collection.find()]
    for query, met in [
        ("tag_not=CAT", lambda one: "cat" not in tags(one)),
        ("tag_not=cat&tag_not=dog&untagged=false", lambda _: False),
        ("tag_not=cat&untagged=false", lambda one: "dog" in tags(one)),
        ("untagged=true", lambda one: not tags(one)),
        ("untagged=true&undated=false", lambda one: not tags(one) and one.get("taken_at")),
    ]:
        page = asked(f"{query}&limit=100").json
        expected = {str(one["_id"]) for one in stored if met(one)}
        assert {one["id"] for one in page["data"]} == expected, query
        assert page["total"] == len(expected)


def test_undated_are_by_default_in_the_order_of_their_upload_and_dated_of_taken_at(asked):
    undated = asked("undated=true&limit=100").json["data"]
    assert [one["id"] for one in undated] == sorted((o["id"] for o in undated), reverse=True)
    assert undated == asked("undated=true&limit=100&sort=-taken_at").json["data"]
    dated = [one["taken_at"] for one in asked("undated=false&limit=100").json["data"]]
    assert dated == sorted(dated, reverse=True)
    assert len(undated) + len(dated) == COUNT
    sizes = [one["size"] for one in asked("undated=true&min_size=1001").json["data"]]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("tag_not=cat", "tag_not", "narrow it down with a range"),
        ("untagged=true", "untagged", "narrow it down with a range"),
        ("untagged=false&sort=name", "untagged", "narrow it down with a range"),
        ("undated=true&sort=size", "undated", "`sort=-taken_at`"),
        ("undated=false&sort=size", "undated", "`sort=-taken_at`"),
    ],
)
def test_what_would_take_too_long_is_refused_with_what_goes_together(
    asked, monkeypatch, query, field, says
):
    monkeypatch.setattr("clustr.database.listing.SEARCH_SECONDS", 1e-6)
    monkeypatch.setattr("clustr.database.listing.MAX_EXAMINED", 3)
    answer = asked(query)
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == [field]
    assert says in answer.json["errors"][field][0]
    for by_index in (
        "undated=true",
        "undated=false",
        "undated=true&status=processed&sort=taken_at",
    ):
        assert asked(by_index).status_code == 200
