"""Indexes: how they are made, and that each query of the engine costs what it takes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.errors import OperationFailure
from stored_analyses import add, an_upload, claim, set_analysis, stored

from clustr.database import Database, new_id, now
from clustr.database.connection import translate_errors
from clustr.database.duplicates import INDEXES
from clustr.domain.errors import DatabaseUnavailable
from clustr.domain.models import State


def add_at(database: Database, moment: datetime, upload_id: str, number: int) -> str:
    """Add an upload that came at this moment; equal numbers stand for equal bytes."""
    filename = f"{upload_id}.jpg"
    upload = replace(an_upload((), number), id=upload_id, filename=filename, upload_time=moment)
    database.uploads.add([upload])
    return upload_id


def test_first_with_the_same_bytes_is_the_one_that_came_first(database):
    """Ids that two processes give within one second do not follow time."""
    moment = now()
    lower, higher, highest = sorted(new_id() for _ in range(3))
    add_at(database, moment + timedelta(milliseconds=1), lower, 1)
    first = add_at(database, moment, higher, 1)
    add_at(database, moment, highest, 1)
    other = add_at(database, moment, new_id(), 2)
    one, two, unknown = (f"{number:064x}" for number in (1, 2, 3))
    assert database.uploads.first_ids_by_hash([one]) == {one: first}
    assert database.uploads.first_ids_by_hash([one, two, unknown]) == {one: first, two: other}
    assert database.uploads.first_uploads_by_hash([one])[one].id == first


@pytest.mark.parametrize(
    ("keys", "options"),
    [([("sha256", 1), ("_id", 1)], {}), (INDEXES["same_bytes"]["keys"], {"sparse": True})],
)
def test_index_that_was_declared_otherwise_is_made_anew(open_database, collection, keys, options):
    """However many processes start at once after an update."""
    add(open_database, State.QUEUED, count=1000)
    before = set(collection.index_information())
    collection.drop_index("same_bytes")
    collection.create_index(keys, name="same_bytes", **options)
    with ThreadPoolExecutor(6) as threads:
        for made in [threads.submit(open_database.make_indexes) for _ in range(6)]:
            made.result()
    there = collection.index_information()
    assert there["same_bytes"]["key"] == INDEXES["same_bytes"]["keys"]
    assert "sparse" not in there["same_bytes"]
    assert set(there) == before


@pytest.fixture
def plans(database, mongo_database) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Called, how MongoDB did what the database asked of it in this test."""
    add(database, State.QUEUED, State.SUCCEEDED, count=400)
    add(database, State.DEFERRED, State.RUNNING, count=30)
    mongo_database["system.profile"].drop()
    mongo_database.command("profile", 2)

    def stop_and_look() -> list[dict[str, Any]]:
        mongo_database.command("profile", 0)
        of_uploads = {"ns": f"{mongo_database.name}.uploads", "planSummary": {"$exists": True}}
        return list(mongo_database["system.profile"].find(of_uploads))

    yield stop_and_look
    mongo_database.command("profile", 0)


def check(plans: list[dict[str, Any]], index: str, most: int) -> None:
    """One at least used this index, all some; none sorted or looked at more than `most` uploads."""
    assert any(plan["planSummary"].startswith(f"IXSCAN {{ {index}") for plan in plans), plans
    by_index = ("IXSCAN", "IDHACK", "DISTINCT_SCAN", "COUNT_SCAN")
    for plan in plans:
        assert plan["planSummary"].startswith(by_index), plan
        assert not plan.get("hasSortStage"), plan
        assert plan["docsExamined"] <= most, plan


def test_claim_costs_what_it_takes(database, plans):
    assert len(claim(database, size=8)) == 8
    check(plans(), "analyses.name", most=8)


def test_question_for_work_costs_one_look(database, plans):
    assert database.analyses.has_work("a")
    assert not database.analyses.has_work("none")
    check(plans(), "analyses.name", most=1)


def test_settling_what_is_old_costs_a_look_at_what_waits(database, collection, plans):
    [waiting] = add(database, State.SUCCEEDED, State.WAITING)
    set_analysis(collection, waiting, name="gone")
    collection.update_one({"_id": ObjectId(waiting)}, {"$set": {"analyses.1.requires": ["gone"]}})
    assert database.analyses.settle_waiting(["b"], timedelta(0)) == 1
    assert stored(collection, waiting, "b")["state"] == "queued"
    check(plans(), "analyses.name", most=1)


def test_what_has_succeeded_of_a_job_is_counted_in_the_index(database, plans, mongo_database):
    job = ObjectId()
    mongo_database.command("profile", 0)
    succeeded = {"analyses.1.state": State.SUCCEEDED}
    mongo_database["uploads"].update_many(succeeded, {"$set": {"analyses.1.job": job}})
    mongo_database.command("profile", 2)
    counts = database.selections.count_states(str(job))
    assert {state: count for state, count in counts.items() if count} == {State.SUCCEEDED: 400}
    check(plans(), "analyses.job", most=0)


def test_question_for_what_is_put_off_costs_no_look_at_others(database, plans, mongo_database):
    """However many are not due yet."""
    later = {"analyses.0.due_at": now() + timedelta(seconds=60)}
    mongo_database.command("profile", 0)
    mongo_database["uploads"].update_many({}, {"$set": {"analyses.0.state": "deferred", **later}})
    mongo_database.command("profile", 2)
    assert not database.analyses.has_work("a")
    assert database.analyses.requeue_deferred("a", include_not_due=False) == 0
    check(plans(), "analyses.name", most=0)


def test_taking_back_nothing_costs_no_look_at_others(database, plans):
    assert database.analyses.reclaim("a", 3, "lost") == 0
    check(plans(), "analyses.name", most=0)


def test_deferred_are_counted_by_the_index(database, plans):
    assert database.analyses.deferred_summary("a").count == 30
    check(plans(), "analyses.name", most=30)


@pytest.mark.parametrize("count", [1, 20])
def test_first_with_the_same_bytes_is_found_in_the_index_alone(database, plans, count):
    hashes = [f"{number:064x}" for number in range(count)]
    assert len(database.uploads.first_ids_by_hash(hashes)) == count
    (plan,) = plans()
    assert plan["planSummary"].startswith(("IXSCAN", "DISTINCT_SCAN")), plan
    assert not plan.get("hasSortStage"), plan
    assert plan["docsExamined"] == 0, plan
    assert plan["keysExamined"] <= count + 1, plan


def test_page_costs_what_it_shows_at_any_depth(database, plans):
    cursor = database.listing.page(10).next_cursor
    for _ in range(30):
        page = database.listing.page(10, cursor=cursor)
        assert len(page.uploads) == 10
        cursor = page.next_cursor
    finds = [plan for plan in plans() if plan["op"] in ("query", "getmore")]
    check(finds, "upload_time", most=11)


def test_a_mongod_that_has_just_been_started_again_is_away_for_a_moment():
    """What one may say that was killed under load; nobody can make it say so."""
    said = "No keys found for HMAC that is valid for time"
    with pytest.raises(DatabaseUnavailable), translate_errors():
        raise OperationFailure(said, 211, {"errmsg": said, "code": 211})
