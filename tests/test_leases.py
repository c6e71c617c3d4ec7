"""Leases and circuit breakers on a real MongoDB, also when a clock is wrong."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from bson import ObjectId
from stored_analyses import add, claim, finish, set_analysis, stored

from clustr.database import now
from clustr.database.circuit_breakers import LONGEST_WAIT_SECONDS
from clustr.domain.models import State


def test_breaker_opens_after_failures_and_closes_at_once(database):
    assert database.circuit_breakers.get("a") is None
    opened = [database.circuit_breakers.record_failure("a", f"reason {n}").open for n in range(4)]
    assert opened == [False, False, True, True]
    assert database.circuit_breakers.get("a").reason == "reason 3"
    assert database.circuit_breakers.get("b") is None
    database.circuit_breakers.close("a")
    assert database.circuit_breakers.get("a") is None
    opened = [database.circuit_breakers.record_failure("a", "busy", opens=n == 1) for n in range(3)]
    assert [breaker.open for breaker in opened] == [False, True, True]


def test_D4_breaker_is_probed_every_ten_seconds_however_long_it_lasts(database, mongo_database):
    for failures in (0, 3, 100, 2000, 10**9):
        mongo_database["breakers"].update_one(
            {"_id": "a"}, {"$set": {"failures": failures}}, upsert=True
        )
        before = now()
        breaker = database.circuit_breakers.record_failure("a", "away")
        assert before < breaker.probe_at
        assert (breaker.probe_at - now()).total_seconds() <= LONGEST_WAIT_SECONDS < 10


def test_the_pause_after_a_time_out_is_as_long_as_the_call(database):
    for taken, least, most in ((0.1, 0, LONGEST_WAIT_SECONDS), (25, 25, 25), (600, 60, 60)):
        before = now()
        breaker = database.circuit_breakers.record_failure("slow", "did not answer", taken)
        assert least <= (breaker.probe_at - before).total_seconds()
        assert (breaker.probe_at - now()).total_seconds() <= most


def test_one_takes_the_probe(database, mongo_database):
    for _ in range(3):
        database.circuit_breakers.record_failure("a", "away", 60)
    assert not database.circuit_breakers.take_probe("a")
    mongo_database["breakers"].update_one({"_id": "a"}, {"$set": {"probe_at": now()}})
    with ThreadPoolExecutor(6) as threads:
        taken = list(threads.map(lambda _: database.circuit_breakers.take_probe("a"), range(12)))
    assert sum(taken) == 1


def test_F6c_lease_has_one_owner(database):
    owners = [f"owner-{number}" for number in range(6)]
    with ThreadPoolExecutor(len(owners)) as threads:
        taken = list(threads.map(lambda owner: database.leases.acquire("x", owner, 30), owners))
    assert sum(taken) == 1
    owner = owners[taken.index(True)]
    assert database.leases.acquire("x", owner, 30)
    assert not database.leases.acquire("x", "another", 30)
    assert database.leases.acquire("y", "another", 30)
    database.leases.release("x", "another")
    assert not database.leases.acquire("x", "another", 30)
    database.leases.release("x", owner, after_seconds=30)
    assert not database.leases.acquire("x", "another", 30)
    database.leases.release("x", owner)
    assert database.leases.acquire("x", "another", -1)
    assert database.leases.acquire("x", owner, 30)


@pytest.mark.parametrize(
    ("left_seconds", "prolonged"),
    [(29, False), (18, False), (9, True), (-1, True), (40, True), (86_400, True)],
)
def test_a_lease_is_prolonged_when_its_time_is_short_or_was_told_by_a_wrong_clock(
    database, mongo_database, left_seconds, prolonged
):
    assert database.leases.acquire("x", "owner", 30)
    until = now() + timedelta(seconds=left_seconds)
    mongo_database["leases"].update_one({"_id": "x"}, {"$set": {"until": until}})
    assert database.leases.acquire("x", "owner", 30)
    lease = mongo_database["leases"].find_one({"_id": "x"})
    assert (lease["until"] != until) == prolonged
    if prolonged:
        assert abs(lease["until"] - now() - timedelta(seconds=30)) < timedelta(seconds=5)


def test_D9_what_was_written_while_the_clock_was_wrong_is_due(database, mongo_database):
    """A day ahead, when nothing is put off for longer than an hour."""
    tomorrow = now() + timedelta(days=1)
    [held], [put_off] = add(database, State.QUEUED), add(database, State.DEFERRED)
    assert claim(database, lease=timedelta(days=1)) == [held]
    mongo_database["uploads"].update_one(
        {"_id": ObjectId(put_off)}, {"$set": {"analyses.0.due_at": tomorrow}}
    )
    assert database.analyses.has_work("a")
    assert database.analyses.requeue_deferred("a", include_not_due=False) == 1
    assert database.analyses.reclaim("a", 3, "lost") == 1
    assert sorted(claim(database, size=1) + claim(database, size=1)) == sorted([held, put_off])
    assert database.leases.acquire("x", "of yesterday", timedelta(days=1).total_seconds())
    assert database.leases.acquire("x", "of today", 30)
    database.circuit_breakers.record_failure("a", "away")
    mongo_database["breakers"].update_one({"_id": "a"}, {"$set": {"probe_at": tomorrow}})
    assert database.circuit_breakers.get("a").due
    assert database.circuit_breakers.take_probe("a")
    assert not database.circuit_breakers.get("a").due


def test_D9_no_end_is_before_its_start(database, collection):
    [upload_id] = add(database, State.QUEUED)
    claim(database)
    tomorrow = now() + timedelta(days=1)
    set_analysis(collection, upload_id, started_at=tomorrow)
    finish(database, upload_id, result={})
    assert stored(collection, upload_id)["finished_at"] == tomorrow
