"""What a page of the listing costs MongoDB, and that walking it is right in every order."""

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection
from running import wait_until

from clustr.database import (
    INDEXES,
    Database,
    DatabaseView,
    Sort,
    UploadFilter,
    new_id,
    now,
    own_counts,
    result_indexes,
    upload_counts,
)
from clustr.database.documents import to_document
from clustr.database.listing_cursors import cursor_writer
from clustr.database.own_counts import OwnUploadCounts
from clustr.database.own_uploads import own_uploads
from clustr.database.tags import tag_fields
from clustr.database.upload_filter import INDEXED_SORTS, RangeLimit, indexed_sorts
from clustr.database.upload_filter import SORTS as SORTED_BY
from clustr.domain.errors import InvalidInput
from clustr.domain.models import Analysis, State, Status, Upload

COUNT = 300
PROCESSED = 200  # of these
LIMITS = (1, 7, 20)
SORTS = [Sort(by, down) for by in SORTED_BY for down in (False, True)]
FILTERS = {
    "all": UploadFilter(),
    "status": UploadFilter(status="processed"),
    "tag": UploadFilter(tag_keys=("cat",)),
    "content_type": UploadFilter(content_type="image/png"),
    "analysis": UploadFilter(analysis=("a", State.FAILED)),
    "duplicate": UploadFilter(duplicate=True),
    "original": UploadFilter(duplicate=False),
}
PAIRS = [
    pytest.param(wanted, sort, id=f"{kind}-{'-' * sort.descending}{sort.by}")
    for kind, wanted in FILTERS.items()
    for sort in SORTS
    if kind == "all" or sort.by in INDEXED_SORTS[wanted.index_prefixes[0]]
]


# The same for those who see all uploads, and for an owner, as far as there are indexes.
SEEN_PAIRS = [
    pytest.param(owner, *pair.values, id=f"{owner or 'all'}-{pair.id}")
    for owner in (None, "alice")
    for pair in PAIRS
    if not pair.values[0].analysis or pair.values[1].by in indexed_sorts(owner)["analyses"]
]


@pytest.fixture(scope="module")
def database(servers) -> Iterator[Database]:
    built = Database(servers.mongodb_url, f"listing-{uuid.uuid4().hex}", "uploads", 10)
    built.make_indexes()
    yield built
    built.close()


@pytest.fixture(params=[None, "alice"], ids=["all", "own"])
def seen(request: pytest.FixtureRequest, database: Database) -> DatabaseView:
    """The database as a view of all uploads, and as one of an owner's."""
    return database.view_of(request.param)


@pytest.fixture(scope="module")
def collection(servers, database: Database) -> Iterator[Collection[dict[str, Any]]]:
    """Uploads with much that is the same, in each order."""
    with MongoClient(servers.mongodb_url, tz_aware=True) as client:
        collection = client[database.uploads._collection.database.name]["uploads"]
        collection.insert_many(map(document, range(COUNT)))
        yield collection


def document(number: int) -> dict[str, Any]:
    upload_id, moment = new_id(), now() - timedelta(seconds=number // 3)
    upload = Upload(
        id=upload_id,
        original_name=f"photograph {number % 50}.jpg",
        filename=f"{upload_id}.jpg",
        upload_time=moment,
        updated_at=moment,
        size=1000 + number % 40,
        content_type=("image/jpeg", "image/png")[number % 2],
        sha256=upload_id.rjust(64, "0"),
        width=100 + number,
        height=100,
        status=(Status.PENDING, Status.PROCESSED)[number % 3 > 0],
        analyses=(
            Analysis("a", 1, (State.FAILED, State.SUCCEEDED)[number % 5 > 1]),
            Analysis("b", 1, (State.FAILED, State.SUCCEEDED)[number % 2]),
        ),
        request_id="seeded",
        duplicate_of=new_id() if number % 4 == 0 else None,
        owner=(None, "alice")[number // 6 % 2],
    )
    written = to_document(upload) | tag_fields(["sofa", "cat"][: 1 + number % 2])
    if number % 3:
        written["taken_at"] = moment - timedelta(days=number % 60)
        local = written["taken_at"] + timedelta(hours=number % 5)
        written |= {"taken_at_local": local, "sort_date": local}
    return written


def matches(document: dict[str, Any], wanted: UploadFilter) -> bool:
    """Whether a document is wanted, said once more in Python."""
    states = {a["name"]: a["state"] for a in document["analyses"]}
    duplicate = document["duplicate_of"] is not None
    return (
        wanted.status in (None, document["status"])
        and set(wanted.tag_keys) <= set(document["tag_keys"])
        and wanted.content_type in (None, document["content_type"])
        and (wanted.analysis is None or states[wanted.analysis[0]] == wanted.analysis[1])
        and wanted.duplicate in (None, duplicate)
    )


def in_order(
    collection: Collection[dict[str, Any]],
    wanted: UploadFilter,
    sort: Sort,
    owner: str | None = None,
) -> list[ObjectId]:
    """What a walk has to give, found without the database."""

    def place(document: dict[str, Any]) -> tuple[Any, ...]:
        value = document.get(sort.field)
        return (value is not None, value or 0, document["_id"])

    of_owner = {"owner": owner} if owner else {}
    found = [d for d in collection.find(of_owner) if matches(d, wanted)]
    return [d["_id"] for d in sorted(found, key=place, reverse=sort.descending)]


def walk(
    database: DatabaseView, limit: int, wanted: UploadFilter, sort: Sort
) -> Iterator[list[ObjectId]]:
    cursor = None
    while True:
        page = database.listing.page(limit, cursor=cursor, upload_filter=wanted, sort=sort)
        yield [document["_id"] for document in page.uploads]
        cursor = page.next_cursor
        if cursor is None:
            return


@pytest.fixture
def plans(collection: Collection[dict[str, Any]]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Called, how MongoDB did what was asked of it in this test."""
    mongo_database = collection.database
    mongo_database["system.profile"].drop()
    mongo_database.command("profile", 2)

    def stop_and_look() -> list[dict[str, Any]]:
        mongo_database.command("profile", 0)
        return list(
            mongo_database["system.profile"].find({"op": "query", "ns": collection.full_name})
        )

    yield stop_and_look
    mongo_database.command("profile", 0)


@pytest.mark.parametrize(("wanted", "sort"), PAIRS)
def test_a_walk_is_in_order_and_whole(seen, collection, wanted, sort):
    walked = list(itertools.chain(*walk(seen, 37, wanted, sort)))
    assert walked == in_order(collection, wanted, sort, seen.owner)
    assert len(walked) >= 25


@pytest.mark.parametrize(("seen", "wanted", "sort"), SEEN_PAIRS, indirect=["seen"])
def test_any_one_filter_goes_with_any_order(seen, collection, plans, wanted, sort):
    """A page costs no more than twice what it shows, wherever it is."""
    for limit in LIMITS:
        for _ in itertools.islice(walk(seen, limit, wanted, sort), 12):
            pass
    found = plans()
    assert len(found) >= 12
    for plan in found:
        limit = plan["command"]["limit"] - 1
        assert not plan.get("hasSortStage"), plan
        assert plan["keysExamined"] <= 2 * limit + 1, plan
        assert plan["docsExamined"] <= limit + 1, plan
        assert plan["planSummary"].startswith("IXSCAN { owner: 1, ") == bool(seen.owner), plan
    explained = [stages(collection, plan["command"]) for plan in found[:3]]
    assert all("SORT" not in each and "COLLSCAN" not in each for each in explained), explained


def test_what_an_owner_has_no_index_for_is_looked_for_in_that_of_the_order(
    database, collection, plans
):
    view, wanted, sort = database.view_of("alice"), FILTERS["analysis"], Sort("size")
    found = view.listing.scan(wanted, sort, None, 0, 8, {"_id": 1})
    assert [d["_id"] for d in found] == in_order(collection, wanted, sort, "alice")[:8]
    assert {plan["planSummary"] for plan in plans() if "sort" in plan["command"]} == {
        "IXSCAN { owner: 1, facets: 1, size: -1, _id: -1 }"
    }


@pytest.mark.parametrize("many", [1000, 10])
@pytest.mark.parametrize("sort", [Sort("size"), Sort("name", False), Sort("date")])
def test_where_an_owner_has_no_index_nothing_is_read_of_others(
    database, collection, plans, monkeypatch, sort, many
):
    """Few are sorted, and among many those are looked for that come first in the order."""
    monkeypatch.setattr("clustr.database.listing.MANY_TO_SORT", many)
    view, wanted = database.view_of("alice"), FILTERS["analysis"]
    expected = in_order(collection, wanted, sort, "alice")
    assert view.listing.page(7, upload_filter=wanted, sort=sort).total == len(expected) == 60
    assert [*itertools.chain(*walk(view, 7, wanted, sort))] == expected
    plans()
    of_uploads = {"ns": collection.full_name, "planSummary": {"$exists": True}}
    found = [*collection.database["system.profile"].find(of_uploads)]
    assert len(found) > 10
    for plan in found:
        assert plan["planSummary"].startswith("IXSCAN { owner: 1, "), plan
        # Behind a cursor there are two branches, of the same place in the order and after it.
        assert plan["docsExamined"] <= 2 * (60 if many == 1000 else COUNT / 2), plan


def stages(collection: Collection[dict[str, Any]], command: dict[str, Any]) -> set[str]:
    """The names of all stages of the plan that was chosen for a command."""
    kept = {key: value for key, value in command.items() if key in FIND}
    plan = collection.database.command("explain", kept, verbosity="queryPlanner")

    def names(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "stage" in node:
                yield node["stage"]
            for inner in [node[name] for name in node if name != "rejectedPlans"]:
                yield from names(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from names(inner)

    return set(names(plan))


FIND = (
    *("find", "filter", "sort", "projection", "limit", "skip", "hint", "min", "max"),
    *("aggregate", "pipeline", "cursor"),
)


@pytest.mark.parametrize("limit", [1, 20, 100])
def test_the_newest_and_how_many_there_are_take_one_round_trip(seen, collection, plans, limit):
    expected = in_order(collection, UploadFilter(), Sort(), seen.owner)
    page = seen.listing.page(limit)
    assert [d["_id"] for d in page.uploads] == expected[:limit]
    assert page.total == len(expected)
    plans()
    commands = {"ns": collection.full_name, "op": "command"}
    [plan] = collection.database["system.profile"].find(commands)
    assert not plan.get("hasSortStage"), plan
    assert plan["docsExamined"] == limit + 1
    assert plan["keysExamined"] <= limit + 1 + COUNT  # all of so few are counted
    union = plan["command"]["pipeline"][-1]["$unionWith"]
    explained = {"aggregate": collection.name, "pipeline": union["pipeline"], "cursor": {}}
    assert not {"SORT", "COLLSCAN"} & stages(collection, explained)


def test_many_uploads_of_an_owner_are_counted_once_in_a_while(collection, plans, monkeypatch):
    for module in (own_counts, upload_counts):
        monkeypatch.setattr(module, "COUNTED_TOTAL", 100)
    monkeypatch.setattr(own_counts, "MANY_SECONDS", 60)
    counts = OwnUploadCounts(own_uploads(collection, "alice"))
    newest = [{"$sort": {"upload_time": -1, "_id": -1}}, {"$limit": 6}]
    for _ in range(3):
        documents, total = counts.aggregate_with_count(newest, {})
        assert (len(documents), total) == (6, None)
    assert counts.aggregate_with_count([], {}) == ([], None)
    plans()
    profile = collection.database["system.profile"]
    asked = profile.find({"ns": collection.full_name, "op": "command"}).sort("ts", 1)
    first, *others = [plan["keysExamined"] for plan in asked]
    assert 100 < first <= 110
    assert others == [6, 6]


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_the_newest_are_whole_in_answers_of_any_size(database, collection, monkeypatch, batch):
    """Large ones are sent in several, and MongoDB goes on with what it has begun."""
    whole, aggregate = database.listing.page(100), Collection.aggregate
    monkeypatch.setattr(
        Collection, "aggregate", lambda *a, **more: aggregate(*a, **more | {"batchSize": batch})
    )
    for _ in range(3):
        assert database.listing.page(100) == whole


def test_a_database_that_is_new_has_nothing(servers):
    database = Database(servers.mongodb_url, f"new-{uuid.uuid4().hex}", "uploads", 10)
    assert (database.listing.page(10).uploads, database.listing.page(10).total) == ([], 0)
    database.close()


def test_behind_a_cursor_nothing_is_counted(database, collection):
    page = database.listing.page(7)
    key = collection.insert_one(document(COUNT)).inserted_id
    further = database.listing.page(7, cursor=page.next_cursor)
    assert (page.total, further.total) == (COUNT, COUNT)
    collection.delete_one({"_id": key})


@pytest.mark.parametrize(("wanted", "sort"), PAIRS)
def test_a_page_by_number_reads_what_it_shows(database, collection, plans, wanted, sort):
    """What is in front of it is passed over in the index alone."""
    expected = in_order(collection, wanted, sort)
    for number in (2, 5):
        page = database.listing.page(10, number, upload_filter=wanted, sort=sort)
        assert [d["_id"] for d in page.uploads] == expected[number * 10 - 10 : number * 10]
    assert database.listing.page(10, 900, upload_filter=wanted, sort=sort).uploads == []
    found = [plan for plan in plans() if "hint" in plan["command"]]
    assert len(found) == 5
    for plan in found:
        assert plan["docsExamined"] <= 11, plan
        assert not plan.get("hasSortStage"), plan


def test_a_page_by_number_passes_over_no_undated_uploads_among_days(database, collection, plans):
    """They are in the order of dates, but on no day, and no page has them."""
    early = now() - timedelta(days=365)
    wanted = UploadFilter(bounds=(RangeLimit("taken_at_local", "gte", early),))
    dated = [d for d in collection.find() if "taken_at_local" in d]
    dated.sort(key=lambda d: (d["sort_date"], d["_id"]), reverse=True)
    expected = [d["_id"] for d in dated]
    for number in (2, 5):
        page = database.listing.page(10, number, upload_filter=wanted, sort=Sort("date"))
        assert [d["_id"] for d in page.uploads] == expected[number * 10 - 10 : number * 10]
    found = [plan for plan in plans() if "hint" in plan["command"]]
    assert len(found) == 2
    for plan in found:
        assert plan["docsExamined"] <= 11, plan


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize(
    "wanted", [UploadFilter(), UploadFilter(status="processed"), UploadFilter(tag_keys=("cat",))]
)
def test_a_range_goes_with_its_own_order(database, collection, plans, wanted, down):
    bounds = (RangeLimit("size", "gte", 1010), RangeLimit("size", "lte", 1020))
    wanted = replace(wanted, bounds=bounds)
    walked = list(itertools.chain(*walk(database, 10, wanted, Sort("size", down))))
    for plan in plans():
        assert not plan.get("hasSortStage"), plan
        assert plan["keysExamined"] <= 21, plan
    expected = [d for d in collection.find() if matches(d, wanted) and 1010 <= d["size"] <= 1020]
    assert len(walked) == len(set(walked)) == len(expected) > 20


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("operators", [("gte",), ("lt",), ("lte",), ("gte", "lt")])
def test_a_range_of_times_has_only_what_has_one(database, collection, plans, operators, down):
    moments = sorted(d["taken_at"] for d in collection.find({"taken_at": {"$exists": True}}))
    limits = {"gte": moments[60], "lt": moments[-60], "lte": moments[-60]}
    wanted = UploadFilter(
        bounds=tuple(RangeLimit("taken_at", each, limits[each]) for each in operators)
    )
    walked = list(itertools.chain(*walk(database, 50, wanted, Sort("taken_at", down))))
    for plan in plans():
        assert plan["keysExamined"] <= 101, plan
    asked = {f"${each}": limits[each] for each in operators}
    assert len(walked) == len(set(walked))
    assert set(walked) == {d["_id"] for d in collection.find({"taken_at": asked})}


def test_a_cursor_that_somebody_made_leads_nowhere(database, collection):
    """Behind what is wanted there is nothing."""
    wanted, sort = UploadFilter(bounds=(RangeLimit("size", "gte", 1010),)), Sort("size")
    behind = cursor_writer(sort, wanted, None)({"size": 1, "_id": ObjectId()})
    page = database.listing.page(5, cursor=behind, upload_filter=wanted, sort=sort)
    assert (page.uploads, page.next_cursor) == ([], None)


def test_uploads_of_an_older_version_are_listed_once_they_are_completed(database, collection):
    wanted, before = (
        UploadFilter(duplicate=True),
        {d["_id"]: d["facets"] for d in collection.find()},
    )
    found = database.listing.page(100, upload_filter=wanted).uploads
    collection.update_many({"_id": {"$in": [*before][::2]}}, {"$unset": {"facets": True}})
    assert len(database.listing.page(100, upload_filter=wanted).uploads) < len(found)
    assert database.listing.add_missing_facets() == len(before) / 2
    assert database.listing.add_missing_facets() == 0
    assert {d["_id"]: d["facets"] for d in collection.find()} == before
    assert database.listing.page(100, upload_filter=wanted).uploads == found


def test_no_more_indexes_than_a_collection_should_have(collection):
    of_results = result_indexes(["chunks", "colors.name"])  # what our own plugins ask for
    assert {*collection.index_information()} == {"_id_", *INDEXES}
    of_owners = {name for name in INDEXES if name.startswith("own_")}
    assert len({"_id_", *INDEXES, *of_results} - of_owners) <= 26
    assert len(of_owners) <= 14  # Uploads without an owner are in none of them.


def test_a_cursor_is_of_its_sort_and_its_filters(database, collection):
    cursor = database.listing.page(5, upload_filter=UploadFilter(status="processed")).next_cursor
    for wanted, sort in [
        (UploadFilter(), Sort()),
        (UploadFilter(status="pending"), Sort()),
        (UploadFilter(status="processed"), Sort("size")),
        (UploadFilter(status="processed"), Sort(descending=False)),
    ]:
        with pytest.raises(InvalidInput) as raised:
            database.listing.page(5, cursor=cursor, upload_filter=wanted, sort=sort)
        assert list(raised.value.errors) == ["cursor"]
        assert "another sort" in raised.value.errors["cursor"][0]


def test_a_total_is_counted_where_that_is_cheap(database, collection, monkeypatch):
    page = database.listing.page(5, upload_filter=UploadFilter(status="processed"))
    assert page.total == PROCESSED
    further = database.listing.page(
        5, cursor=page.next_cursor, upload_filter=UploadFilter(status="processed")
    )
    assert further.total == PROCESSED
    assert database.listing.page(5).total == COUNT
    monkeypatch.setattr("clustr.database.upload_counts.COUNTED_TOTAL", 100)
    page = database.listing.page(5, upload_filter=UploadFilter(status="processed"))
    assert page.total is None
    further = database.listing.page(
        5, cursor=page.next_cursor, upload_filter=UploadFilter(status="processed")
    )
    assert further.total is None


def test_what_a_page_is_behind_tells_that_there_are_too_many_to_count(
    database, collection, plans, monkeypatch
):
    monkeypatch.setattr("clustr.database.upload_counts.COUNTED_TOTAL", 100)
    wanted = UploadFilter(analysis=("a", State.FAILED))
    page = database.listing.page(5, 21, upload_filter=wanted)
    assert (len(page.uploads), page.total) == (5, None)
    plans()
    assert not list(collection.database["system.profile"].find({"op": "command"}))


def test_behind_the_end_the_total_is_counted_too(database, collection):
    page = database.listing.page(20, 400, upload_filter=UploadFilter(status="processed"))
    assert (page.uploads, page.total) == ([], PROCESSED)


def test_pages_reach_so_far_among_many(database, collection, monkeypatch):
    monkeypatch.setattr("clustr.database.listing.MAX_SKIPPED", 100)
    assert len(database.listing.page(20, 6).uploads) == 20
    with pytest.raises(InvalidInput) as raised:
        database.listing.page(20, 7)
    assert "`cursor`" in raised.value.errors["page"][0]
    monkeypatch.setattr("clustr.database.listing.MAX_SKIPPED", 1000)
    assert database.listing.page(100, 50).uploads == []


def test_a_walk_past_many_sees_each_that_stays_once(servers):
    """2,000 uploads, while others are added and removed on all sides."""
    database = Database(servers.mongodb_url, f"walk-{uuid.uuid4().hex}", "uploads", 10)
    client: MongoClient[dict[str, Any]] = MongoClient(servers.mongodb_url)
    try:
        database.make_indexes()
        collection = client[database.uploads._collection.database.name]["uploads"]
        ids = collection.insert_many(map(document, range(2000))).inserted_ids
        for sort in (Sort(), Sort("name", False), Sort("taken_at")):
            walk_while_it_changes(database, collection, sort)
        assert len(ids) == 2000
    finally:
        client.drop_database(database.uploads._collection.database.name)
        client.close()
        database.close()


def walk_while_it_changes(database: Database, collection: Any, sort: Sort) -> None:
    before = {d["_id"] for d in collection.find({}, {"_id": 1})}
    removed: set[ObjectId] = set()
    changed, stop = [0], threading.Event()
    passing = iter(sorted(before, key=lambda key: key.binary[::-1]))

    def change() -> None:
        for number, key in enumerate(passing):
            if stop.is_set():
                return
            collection.insert_one(document(number * 7 % 1800))
            removed.add(key)
            collection.delete_one({"_id": key})
            changed[0] += 1

    other = threading.Thread(target=change)
    other.start()
    try:
        pages = walk(database, 20, UploadFilter(), sort)
        walked = list(next(pages))
        wait_until(lambda: changed[0] > 10, 60, "changes after the first page")
        walked += itertools.chain(*pages)
    finally:
        stop.set()
        other.join()
    assert len(walked) == len(set(walked))
    assert before - removed <= set(walked)
