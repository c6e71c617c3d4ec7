"""The database on a real MongoDB: who may change what, in which order, and at what cost."""

import itertools
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from clustr.database import Database, FinishedAnalysis, new_id, now
from clustr.database.analyses import BATCH
from clustr.database.circuit_breakers import LONGEST_WAIT_SECONDS
from clustr.database.connection import translate_errors
from clustr.database.duplicates import INDEXES
from clustr.domain.errors import DatabaseUnavailable
from clustr.domain.models import UNFINISHED, Analysis, State, Status, Upload, status_of

LEASE = timedelta(seconds=30)


@pytest.fixture(scope="module")
def mongo_database(servers) -> Iterator[Any]:
    """A database of the tests' own, to look into."""
    with MongoClient(servers.mongodb_url, tz_aware=True) as client:
        yield client[f"catalog-{uuid.uuid4().hex}"]


@pytest.fixture
def collection(mongo_database) -> Collection[dict[str, Any]]:
    for name in ("uploads", "breakers", "leases"):
        mongo_database[name].delete_many({})
    return mongo_database["uploads"]


@pytest.fixture(scope="module")
def opened(servers, mongo_database) -> Iterator[Database]:
    database = Database(servers.mongodb_url, mongo_database.name, "uploads", timeout_seconds=10)
    database.make_indexes()
    yield database
    database.close()


@pytest.fixture
def database(opened, collection) -> Database:
    """An empty catalog."""
    return opened


def add(database: Database, *states: State, count: int = 1) -> list[str]:
    """Add uploads with analyses `a`, `b` and so on in these states; their ids in order."""
    analyses = tuple(
        Analysis(name, 1, state) for name, state in zip("abcdefgh", states, strict=False)
    )
    uploads = [an_upload(analyses, number) for number in range(count)]
    database.uploads.add(uploads)
    return [upload.id for upload in uploads]


def an_upload(analyses: tuple[Analysis, ...], number: int = 0) -> Upload:
    upload_id, moment = new_id(), now() + timedelta(milliseconds=number)
    return Upload(
        id=upload_id,
        original_name="cat.jpg",
        filename=f"{upload_id}.jpg",
        upload_time=moment,
        updated_at=moment,
        size=1000,
        content_type="image/jpeg",
        sha256=f"{number:064x}",
        width=300,
        height=200,
        status=status_of([analysis.state for analysis in analyses]),
        analyses=analyses,
        request_id="request",
    )


def claim(
    database: Database,
    run: str = "run",
    size: int = 1,
    analyzer: str = "a",
    state: State = State.QUEUED,
    lease: timedelta = LEASE,
) -> list[str]:
    claimed = database.analyses.claim(analyzer, 1, run, size, lease, state)
    return [one.upload.id for one in claimed]


def finish(
    database: Database,
    upload_id: str,
    run: str = "run",
    state: State = State.SUCCEEDED,
    **more: Any,
) -> int:
    end = FinishedAnalysis(upload_id, state, **more)
    return database.analyses.finish("a", run, [end])


def stored(collection: Collection[dict[str, Any]], upload_id: str, name: str = "a") -> Any:
    document = collection.find_one({"_id": ObjectId(upload_id)})
    return next(analysis for analysis in document["analyses"] if analysis["name"] == name)


def set_analysis(collection: Collection[dict[str, Any]], upload_id: str, **values: Any) -> None:
    changes = {f"analyses.0.{name}": value for name, value in values.items()}
    collection.update_one({"_id": ObjectId(upload_id)}, {"$set": changes})


# Claims


def test_C6_concurrent_claims_never_share_an_analysis(database):
    ids = add(database, State.QUEUED, count=120)
    runs = [f"run-{number}" for number in range(8)]

    def take_all(run: str) -> list[str]:
        taken: list[str] = []
        for size in itertools.cycle((1, 5, 3)):
            # None may be left over only because all those that one wanted were just taken.
            if not (claimed := claim(database, run, size)) and not database.analyses.has_work("a"):
                return taken
            taken += claimed
        raise AssertionError

    with ThreadPoolExecutor(len(runs)) as threads:
        taken = list(threads.map(take_all, runs))
    assert sorted(itertools.chain(*taken)) == sorted(ids)
    assert sum(bool(some) for some in taken) > 1


def test_claim_takes_the_most_urgent_first(database, collection):
    later, backfill, urgent, sooner = add(database, State.QUEUED, count=4)
    set_analysis(collection, later, due_at=now() + timedelta(seconds=5))
    set_analysis(collection, backfill, priority=1)
    set_analysis(collection, urgent, priority=-1)
    assert claim(database, size=2) == [urgent, sooner]
    assert claim(database, size=9) == [later, backfill]


def test_claim_is_of_one_analyzer_in_one_state(database):
    add(database, State.RUNNING, State.QUEUED)
    add(database, State.DEFERRED, State.QUEUED)
    assert claim(database, size=9) == []
    assert len(claim(database, state=State.DEFERRED)) == 1


def test_claim_says_what_it_is_and_counts_the_attempt(database, collection):
    [upload_id] = add(database, State.QUEUED, State.QUEUED)
    before = now()
    [claimed] = database.analyses.claim("a", 7, "run", 1, LEASE, State.QUEUED)
    assert (claimed.upload.id, claimed.attempts) == (upload_id, 1)
    analysis = stored(collection, upload_id)
    assert (analysis["state"], analysis["version"], analysis["run"]) == ("running", 7, "run")
    assert before + LEASE <= analysis["lease_until"] <= now() + LEASE
    assert before <= analysis["started_at"] <= now()
    assert stored(collection, upload_id, "b")["state"] == "queued"


def test_C7_one_that_crashed_is_claimed_alone_and_after_the_others(database, collection):
    crashed, fine, also_fine, crashed_too = add(database, State.QUEUED, count=4)
    set_analysis(collection, crashed, crashes=1)
    set_analysis(collection, crashed_too, crashes=2)
    assert claim(database, size=9) == [fine, also_fine]
    assert claim(database, size=9) == [crashed]
    assert claim(database, size=9) == [crashed_too]


# Ends


def test_finish_writes_result_fields_and_status(database):
    [upload_id] = add(database, State.QUEUED)
    claim(database)
    result = {"caption": "$caption", "numbers": [1, 2.5, None]}
    assert finish(database, upload_id, result=result, fields={"caption": "$caption"}) == 1
    upload = database.uploads.get(upload_id)
    assert upload.analyses[0].result == result
    assert upload.caption == "$caption"
    assert upload.status == Status.PROCESSED
    assert upload.updated_at >= upload.upload_time
    assert upload.analyses[0].finished_at >= upload.analyses[0].started_at


@pytest.mark.parametrize("key", ["$set", "$literal", "a.b", ".", "$", "", "$$ROOT", "ключ"])
def test_results_may_have_any_keys(database, key):
    [upload_id] = add(database, State.QUEUED)
    claim(database)
    finish(database, upload_id, result={key: {key: [{key: "$name"}]}})
    assert database.uploads.get(upload_id).analyses[0].result == {key: {key: [{key: "$name"}]}}


def test_C9_finish_of_another_run_changes_nothing(database, collection):
    [upload_id] = add(database, State.QUEUED)
    claim(database, "first")
    set_analysis(collection, upload_id, run="second")
    before = collection.find_one({})
    assert finish(database, upload_id, "first", result={"x": 1}) == 0
    assert database.analyses.release("a", "first") == 0
    database.analyses.renew("a", "first", timedelta(hours=1))
    assert collection.find_one({}) == before
    assert finish(database, upload_id, "second", result={"x": 2}) == 1
    assert finish(database, upload_id, "second", result={"x": 3}) == 0
    assert database.uploads.get(upload_id).analyses[0].result == {"x": 2}


def test_F4c_nothing_resurrects_what_was_deleted(database, collection):
    [upload_id] = add(database, State.QUEUED)
    claim(database)
    collection.delete_one({})
    assert finish(database, upload_id, result={"x": 1}, fields={"caption": "x"}) == 0
    assert database.analyses.release("a", "run") == 0
    assert database.analyses.reclaim("a", 3, "lost", "run") == 0
    assert collection.count_documents({}) == 0


def test_one_late_end_does_not_keep_the_others(database, collection):
    ids = add(database, State.QUEUED, count=3)
    claim(database, size=3)
    collection.delete_one({"_id": ObjectId(ids[0])})
    set_analysis(collection, ids[1], run="another")
    ends = [FinishedAnalysis(upload_id, State.SUCCEEDED, result={}) for upload_id in ids]
    assert database.analyses.finish("a", "run", ends) == 1
    assert stored(collection, ids[2])["state"] == "succeeded"


def test_result_too_large_for_its_upload_is_a_failure_of_that_analysis(database, collection):
    first, full = add(database, State.QUEUED, State.SUCCEEDED, count=2)
    collection.update_one(
        {"_id": ObjectId(full)}, {"$set": {"analyses.1.result": {"x": "x" * 15_900_000}}}
    )
    claim(database, size=2)
    result = {"x": "x" * 900_000}
    ends = [
        FinishedAnalysis(upload_id, State.SUCCEEDED, result=result) for upload_id in (full, first)
    ]
    assert database.analyses.finish("a", "run", ends) == 2
    assert stored(collection, first)["state"] == "succeeded"
    analysis = stored(collection, full)
    assert (analysis["state"], "result" in analysis) == ("failed", False)
    assert "too large" in analysis["error"]
    assert collection.find_one({"_id": ObjectId(full)})["status"] == "error"


@pytest.mark.parametrize("end", [State.DEFERRED, State.SUCCEEDED, State.SKIPPED, State.FAILED])
def test_status_follows_from_all_states(database, end):
    for others in itertools.product(State, repeat=2):
        [upload_id] = add(database, State.QUEUED, *others)
        claim(database)
        finish(database, upload_id, state=end, due_at=now())
        if {end, *others} & set(UNFINISHED):
            expected = "pending"
        elif State.FAILED in (end, *others):
            expected = "error"
        else:
            expected = "processed"
        assert database.uploads.get(upload_id).status == expected, others


@pytest.mark.parametrize("end", [State.SUCCEEDED, State.SKIPPED, State.FAILED, State.DEFERRED])
def test_what_waits_follows_in_the_same_update(database, end):
    """`b` requires `a`; `c` both of them; `d` one that is not there; `e` requires `d`."""
    requires = {"a": (), "b": ("a",), "c": ("a", "b"), "d": ("none",), "e": ("d",)}
    analyses = tuple(
        Analysis(name, 1, State.WAITING if names else State.QUEUED, requires=names)
        for name, names in requires.items()
    )
    [upload] = uploads = [an_upload(analyses)]
    database.uploads.add(uploads)
    claim(database)
    before = now()
    assert finish(database, upload.id, state=end, due_at=now(), result=None) == 1
    found = database.uploads.get(upload.id)
    ends = {a.name: (a.state, a.error) for a in found.analyses}
    assert ends["d"] == ("skipped", "requires none")
    assert ends["e"] == ("skipped", "requires d")
    if end is State.SUCCEEDED:
        assert (ends["b"], ends["c"]) == (("queued", None), ("waiting", None))
        assert claim(database, analyzer="b") == [upload.id]
        assert (
            database.analyses.finish("b", "run", [FinishedAnalysis(upload.id, State.SUCCEEDED)])
            == 1
        )
        assert claim(database, analyzer="c") == [upload.id]
    elif end is State.DEFERRED:
        assert (ends["b"], ends["c"]) == (("waiting", None), ("waiting", None))
    else:
        assert (ends["b"], ends["c"]) == (("skipped", "requires a"), ("skipped", "requires a"))
        assert found.status == ("error" if end is State.FAILED else "processed")
        assert before <= found.analyses[1].finished_at <= now()


def test_claim_reads_the_results_that_are_asked_for(database):
    ids = add(database, State.QUEUED, State.QUEUED, State.QUEUED)
    for name in "ab":
        claim(database, analyzer=name)
        end = FinishedAnalysis(ids[0], State.SUCCEEDED, result={"of": name}, version=1)
        assert database.analyses.finish(name, "run", [end]) == 1

    def results_read(wanted: Any) -> list[Any]:
        arguments = ("c", 1, "run", 1, LEASE, State.QUEUED, wanted)
        [claimed] = database.analyses.claim(*arguments)
        database.analyses.release("c", "run")
        return [analysis.result for analysis in claimed.upload.analyses]

    assert results_read(()) == [None, None, None]
    assert results_read(("b",)) == [None, {"of": "b"}, None]
    assert results_read(None) == [{"of": "a"}, {"of": "b"}, None]


def test_version_is_that_of_the_result_while_there_is_one(database, collection):
    [upload_id] = add(database, State.QUEUED)

    def run(version: int, **end: Any) -> Analysis:
        set_analysis(collection, upload_id, state=State.QUEUED)
        database.analyses.claim("a", version, "run", 1, LEASE, State.QUEUED)
        if not end:
            database.analyses.reclaim("a", 1, "killed", "run")
        else:
            finish(database, upload_id, version=version, provenance={"model": version}, **end)
        return database.uploads.get(upload_id).analyses[0]

    assert run(2, state=State.FAILED).version == 2
    assert run(3).version == 3
    good = run(4, result={"x": 1})
    assert (good.version, good.provenance) == (4, {"model": 4})
    for bad in (run(5), run(6, state=State.FAILED), run(7, state=State.SKIPPED)):
        assert (bad.version, bad.result, bad.provenance) == (4, {"x": 1}, {"model": 4})
    newer = run(8, result={"x": 2})
    assert (newer.version, newer.result, newer.provenance) == (8, {"x": 2}, {"model": 8})


# Ways back


def test_C13_what_is_put_back_has_had_no_attempt(database, collection):
    held, other_run = add(database, State.QUEUED, count=2)
    claim(database, "run")
    claim(database, "other")
    assert database.analyses.release("a", "run") == 1
    analysis = stored(collection, held)
    assert (analysis["state"], analysis["attempts"], analysis["crashes"]) == ("queued", 0, 0)
    assert "run" not in analysis
    assert stored(collection, other_run)["state"] == "running"


def test_C7_taken_back_from_one_run_that_died(database, collection):
    held, other_run = add(database, State.QUEUED, count=2)
    claim(database, "run")
    claim(database, "other")
    assert database.analyses.reclaim("a", 3, "it was killed", "run") == 1
    analysis = stored(collection, held)
    assert (analysis["state"], analysis["crashes"], analysis["attempts"]) == ("queued", 1, 1)
    assert stored(collection, other_run)["state"] == "running"


def test_C7_taken_back_when_the_lease_has_ended_and_not_before(database, collection):
    ended, held = add(database, State.QUEUED, count=2)
    claim(database, "run", lease=timedelta(seconds=-1))
    claim(database, "other")
    assert database.analyses.reclaim("a", 3, "lost") == 1
    assert stored(collection, ended)["state"] == "queued"
    assert stored(collection, held)["state"] == "running"


def test_renewed_lease_is_kept(database, collection):
    [upload_id] = add(database, State.QUEUED)
    claim(database, lease=timedelta(seconds=-1))
    database.analyses.renew("a", "run", LEASE)
    assert database.analyses.reclaim("a", 3, "lost") == 0
    assert stored(collection, upload_id)["state"] == "running"


def test_C7_after_its_last_attempt_it_fails_with_the_reason(database, collection):
    [upload_id] = add(database, State.QUEUED)
    for crashes in (1, 2):
        claim(database)
        database.analyses.reclaim("a", 3, "killed by SIGSEGV", "run")
        assert stored(collection, upload_id)["crashes"] == crashes
    claim(database)
    assert database.analyses.reclaim("a", 3, "killed by SIGSEGV", "run") == 1
    upload = database.uploads.get(upload_id)
    assert upload.status == Status.ERROR
    [analysis] = upload.analyses
    assert (analysis.state, analysis.attempts) == (State.FAILED, 3)
    assert analysis.error == "killed by SIGSEGV"
    assert analysis.finished_at


def test_success_leaves_no_error_of_earlier_attempts(database):
    [upload_id] = add(database, State.QUEUED)
    claim(database)
    database.analyses.reclaim("a", 3, "killed", "run")
    claim(database)
    finish(database, upload_id, result={})
    assert database.uploads.get(upload_id).analyses[0].error is None


# Deferral


def test_park_and_wake_move_all_that_there_is(database):
    add(database, State.QUEUED, State.QUEUED, count=BATCH + 3)
    assert database.analyses.defer_queued("a", "the captioner is away") == BATCH + 3
    assert claim(database) == []
    assert len(claim(database, analyzer="b")) == 1
    assert database.analyses.deferred_summary("a").count == BATCH + 3
    assert database.analyses.deferred_summary("b") is None
    assert database.analyses.requeue_deferred("a", include_not_due=True) == BATCH + 3
    assert len(claim(database, size=BATCH + 9)) == BATCH + 3


def test_only_what_is_due_is_woken(database, collection):
    due, later = add(database, State.QUEUED, count=2)
    claim(database, size=2)
    finish(database, due, state=State.DEFERRED, due_at=now() - timedelta(seconds=1))
    finish(database, later, state=State.DEFERRED, due_at=now() + timedelta(seconds=60))
    assert database.analyses.has_work("a")
    assert database.analyses.requeue_deferred("a", include_not_due=False) == 1
    assert claim(database, size=9) == [due]
    assert not database.analyses.has_work("a")
    assert database.analyses.has_work("a", only_due=False)
    assert stored(collection, later)["state"] == "deferred"


def test_D4_deferred_is_counted_since_the_first_time(database, collection):
    [upload_id] = add(database, State.QUEUED)
    began = now()
    claim(database)
    finish(database, upload_id, state=State.DEFERRED, due_at=now())
    since = database.analyses.deferred_summary("a").since
    assert began <= since <= now()
    hour_ago = since - timedelta(hours=1)
    set_analysis(collection, upload_id, deferred_at=hour_ago)
    claim(database, state=State.DEFERRED)
    finish(database, upload_id, state=State.DEFERRED, due_at=now())
    assert database.analyses.deferred_summary("a").since == hour_ago
    database.analyses.requeue_deferred("a", include_not_due=True)
    database.analyses.defer_queued("a", "still away")
    assert database.analyses.deferred_summary("a").since == hour_ago
    claim(database, state=State.DEFERRED)
    finish(database, upload_id, result={})
    assert database.analyses.deferred_summary("a") is None
    set_analysis(collection, upload_id, state="queued")  # it is to be done anew
    claim(database)
    finish(database, upload_id, state=State.DEFERRED, due_at=now())
    assert database.analyses.deferred_summary("a").since >= since


# Breakers and leases


def test_breaker_opens_after_failures_and_closes_at_once(database):
    assert database.circuit_breakers.get("a") is None
    opened = [database.circuit_breakers.record_failure("a", f"reason {n}").open for n in range(4)]
    assert opened == [False, False, True, True]
    assert database.circuit_breakers.get("a").reason == "reason 3"
    assert database.circuit_breakers.get("b") is None
    database.circuit_breakers.close("a")
    assert database.circuit_breakers.get("a") is None


def test_D4_breaker_is_probed_every_ten_seconds_however_long_it_lasts(database, mongo_database):
    for failures in (0, 3, 100, 2000, 10**9):
        mongo_database["breakers"].update_one(
            {"_id": "a"}, {"$set": {"failures": failures}}, upsert=True
        )
        breaker = database.circuit_breakers.record_failure("a", "away")
        assert 0 < (breaker.probe_at - now()).total_seconds() <= LONGEST_WAIT_SECONDS < 10


def test_one_takes_the_probe(database, mongo_database):
    for _ in range(3):
        database.circuit_breakers.record_failure("a", "away")
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
    database.leases.release("x", owner)
    assert database.leases.acquire("x", "another", -1)
    assert database.leases.acquire("x", owner, 30)


@pytest.mark.parametrize(
    ("left_seconds", "prolonged"),
    [(29, False), (11, False), (9, True), (-1, True), (40, True), (86_400, True)],
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


# The same bytes


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


# Errors


def test_a_mongod_that_has_just_been_started_again_is_away_for_a_moment():
    """What one may say that was killed under load; nobody can make it say so."""
    said = "No keys found for HMAC that is valid for time"
    with pytest.raises(DatabaseUnavailable), translate_errors():
        raise OperationFailure(said, 211, {"errmsg": said, "code": 211})


# Indexes


@pytest.mark.parametrize(
    ("keys", "options"),
    [([("sha256", 1), ("_id", 1)], {}), (INDEXES["same_bytes"]["keys"], {"sparse": True})],
)
def test_index_that_was_declared_otherwise_is_made_anew(opened, collection, keys, options):
    """However many processes start at once after an update."""
    add(opened, State.QUEUED, count=5000)
    before = set(collection.index_information())
    collection.drop_index("same_bytes")
    collection.create_index(keys, name="same_bytes", **options)
    with ThreadPoolExecutor(6) as threads:
        for made in [threads.submit(opened.make_indexes) for _ in range(6)]:
            made.result()
    there = collection.index_information()
    assert there["same_bytes"]["key"] == INDEXES["same_bytes"]["keys"]
    assert "sparse" not in there["same_bytes"]
    assert set(there) == before


# Clocks


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


# Cost


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
    for plan in plans:
        assert plan["planSummary"].startswith(("IXSCAN", "IDHACK", "DISTINCT_SCAN")), plan
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
