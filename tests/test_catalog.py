"""The catalog on a real MongoDB: who may change what, in which order, and at what cost."""

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

from clustr.catalog import Catalog, Finished, new_id, now
from clustr.catalog.analyses import BATCH
from clustr.catalog.breakers import LONGEST_WAIT_SECONDS
from clustr.catalog.connection import answering
from clustr.catalog.copies import INDEXES
from clustr.errors import DatabaseUnavailable
from clustr.upload import UNFINISHED, Analysis, State, Status, Upload, status_of

LEASE = timedelta(seconds=30)


@pytest.fixture(scope="module")
def database(servers) -> Iterator[Any]:
    """A database of the tests' own, to look into."""
    with MongoClient(servers.mongodb_url, tz_aware=True) as client:
        yield client[f"catalog-{uuid.uuid4().hex}"]


@pytest.fixture
def collection(database) -> Collection[dict[str, Any]]:
    for name in ("uploads", "breakers", "leases"):
        database[name].delete_many({})
    return database["uploads"]


@pytest.fixture(scope="module")
def opened(servers, database) -> Iterator[Catalog]:
    catalog = Catalog(servers.mongodb_url, database.name, "uploads", timeout_seconds=10)
    catalog.make_indexes()
    yield catalog
    catalog.close()


@pytest.fixture
def catalog(opened, collection) -> Catalog:
    """An empty catalog."""
    return opened


def add(catalog: Catalog, *states: State, count: int = 1) -> list[str]:
    """Add uploads with analyses `a`, `b` and so on in these states; their ids in order."""
    analyses = tuple(
        Analysis(name, 1, state) for name, state in zip("abcdefgh", states, strict=False)
    )
    uploads = [an_upload(analyses, number) for number in range(count)]
    catalog.uploads.add(uploads)
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
    catalog: Catalog,
    run: str = "run",
    size: int = 1,
    analyzer: str = "a",
    state: State = State.QUEUED,
    lease: timedelta = LEASE,
) -> list[str]:
    claimed = catalog.analyses.claim(analyzer, 1, run, size, lease, state)
    return [one.upload.id for one in claimed]


def finish(
    catalog: Catalog, upload_id: str, run: str = "run", state: State = State.SUCCEEDED, **more: Any
) -> int:
    end = Finished(upload_id, state, **more)
    return catalog.analyses.finish("a", run, [end])


def stored(collection: Collection[dict[str, Any]], upload_id: str, name: str = "a") -> Any:
    document = collection.find_one({"_id": ObjectId(upload_id)})
    return next(analysis for analysis in document["analyses"] if analysis["name"] == name)


def set_analysis(collection: Collection[dict[str, Any]], upload_id: str, **values: Any) -> None:
    changes = {f"analyses.0.{name}": value for name, value in values.items()}
    collection.update_one({"_id": ObjectId(upload_id)}, {"$set": changes})


# Claims


def test_C6_concurrent_claims_never_share_an_analysis(catalog):
    ids = add(catalog, State.QUEUED, count=120)
    runs = [f"run-{number}" for number in range(8)]

    def take_all(run: str) -> list[str]:
        taken: list[str] = []
        for size in itertools.cycle((1, 5, 3)):
            # None may be left over only because all those that one wanted were just taken.
            if not (claimed := claim(catalog, run, size)) and not catalog.analyses.work_waits("a"):
                return taken
            taken += claimed
        raise AssertionError

    with ThreadPoolExecutor(len(runs)) as threads:
        taken = list(threads.map(take_all, runs))
    assert sorted(itertools.chain(*taken)) == sorted(ids)
    assert sum(bool(some) for some in taken) > 1


def test_claim_takes_the_most_urgent_first(catalog, collection):
    later, backfill, urgent, sooner = add(catalog, State.QUEUED, count=4)
    set_analysis(collection, later, due_at=now() + timedelta(seconds=5))
    set_analysis(collection, backfill, priority=1)
    set_analysis(collection, urgent, priority=-1)
    assert claim(catalog, size=2) == [urgent, sooner]
    assert claim(catalog, size=9) == [later, backfill]


def test_claim_is_of_one_analyzer_in_one_state(catalog):
    add(catalog, State.RUNNING, State.QUEUED)
    add(catalog, State.DEFERRED, State.QUEUED)
    assert claim(catalog, size=9) == []
    assert len(claim(catalog, state=State.DEFERRED)) == 1


def test_claim_says_what_it_is_and_counts_the_attempt(catalog, collection):
    [upload_id] = add(catalog, State.QUEUED, State.QUEUED)
    before = now()
    [claimed] = catalog.analyses.claim("a", 7, "run", 1, LEASE, State.QUEUED)
    assert (claimed.upload.id, claimed.attempts) == (upload_id, 1)
    analysis = stored(collection, upload_id)
    assert (analysis["state"], analysis["version"], analysis["run"]) == ("running", 7, "run")
    assert before + LEASE <= analysis["lease_until"] <= now() + LEASE
    assert before <= analysis["started_at"] <= now()
    assert stored(collection, upload_id, "b")["state"] == "queued"


def test_C7_one_that_crashed_is_claimed_alone_and_after_the_others(catalog, collection):
    crashed, fine, also_fine, crashed_too = add(catalog, State.QUEUED, count=4)
    set_analysis(collection, crashed, crashes=1)
    set_analysis(collection, crashed_too, crashes=2)
    assert claim(catalog, size=9) == [fine, also_fine]
    assert claim(catalog, size=9) == [crashed]
    assert claim(catalog, size=9) == [crashed_too]


# Ends


def test_finish_writes_result_fields_and_status(catalog):
    [upload_id] = add(catalog, State.QUEUED)
    claim(catalog)
    result = {"caption": "$caption", "numbers": [1, 2.5, None]}
    assert finish(catalog, upload_id, result=result, fields={"caption": "$caption"}) == 1
    upload = catalog.uploads.get(upload_id)
    assert upload.analyses[0].result == result
    assert upload.caption == "$caption"
    assert upload.status == Status.PROCESSED
    assert upload.updated_at >= upload.upload_time
    assert upload.analyses[0].finished_at >= upload.analyses[0].started_at


@pytest.mark.parametrize("key", ["$set", "$literal", "a.b", ".", "$", "", "$$ROOT", "ключ"])
def test_results_may_have_any_keys(catalog, key):
    [upload_id] = add(catalog, State.QUEUED)
    claim(catalog)
    finish(catalog, upload_id, result={key: {key: [{key: "$name"}]}})
    assert catalog.uploads.get(upload_id).analyses[0].result == {key: {key: [{key: "$name"}]}}


def test_C9_finish_of_another_run_changes_nothing(catalog, collection):
    [upload_id] = add(catalog, State.QUEUED)
    claim(catalog, "first")
    set_analysis(collection, upload_id, run="second")
    before = collection.find_one({})
    assert finish(catalog, upload_id, "first", result={"x": 1}) == 0
    assert catalog.analyses.put_back("a", "first") == 0
    catalog.analyses.renew("a", "first", timedelta(hours=1))
    assert collection.find_one({}) == before
    assert finish(catalog, upload_id, "second", result={"x": 2}) == 1
    assert finish(catalog, upload_id, "second", result={"x": 3}) == 0
    assert catalog.uploads.get(upload_id).analyses[0].result == {"x": 2}


def test_F4c_nothing_resurrects_what_was_deleted(catalog, collection):
    [upload_id] = add(catalog, State.QUEUED)
    claim(catalog)
    collection.delete_one({})
    assert finish(catalog, upload_id, result={"x": 1}, fields={"caption": "x"}) == 0
    assert catalog.analyses.put_back("a", "run") == 0
    assert catalog.analyses.take_back("a", 3, "lost", "run") == 0
    assert collection.count_documents({}) == 0


def test_one_late_end_does_not_keep_the_others(catalog, collection):
    ids = add(catalog, State.QUEUED, count=3)
    claim(catalog, size=3)
    collection.delete_one({"_id": ObjectId(ids[0])})
    set_analysis(collection, ids[1], run="another")
    ends = [Finished(upload_id, State.SUCCEEDED, result={}) for upload_id in ids]
    assert catalog.analyses.finish("a", "run", ends) == 1
    assert stored(collection, ids[2])["state"] == "succeeded"


def test_result_too_large_for_its_upload_is_a_failure_of_that_analysis(catalog, collection):
    first, full = add(catalog, State.QUEUED, State.SUCCEEDED, count=2)
    collection.update_one(
        {"_id": ObjectId(full)}, {"$set": {"analyses.1.result": {"x": "x" * 15_900_000}}}
    )
    claim(catalog, size=2)
    result = {"x": "x" * 900_000}
    ends = [Finished(upload_id, State.SUCCEEDED, result=result) for upload_id in (full, first)]
    assert catalog.analyses.finish("a", "run", ends) == 2
    assert stored(collection, first)["state"] == "succeeded"
    analysis = stored(collection, full)
    assert (analysis["state"], "result" in analysis) == ("failed", False)
    assert "too large" in analysis["error"]
    assert collection.find_one({"_id": ObjectId(full)})["status"] == "error"


@pytest.mark.parametrize("end", [State.DEFERRED, State.SUCCEEDED, State.SKIPPED, State.FAILED])
def test_status_follows_from_all_states(catalog, end):
    for others in itertools.product(State, repeat=2):
        [upload_id] = add(catalog, State.QUEUED, *others)
        claim(catalog)
        finish(catalog, upload_id, state=end, due_at=now())
        if {end, *others} & set(UNFINISHED):
            expected = "pending"
        elif State.FAILED in (end, *others):
            expected = "error"
        else:
            expected = "processed"
        assert catalog.uploads.get(upload_id).status == expected, others


@pytest.mark.parametrize("end", [State.SUCCEEDED, State.SKIPPED, State.FAILED, State.DEFERRED])
def test_what_waits_follows_in_the_same_update(catalog, end):
    """`b` requires `a`; `c` both of them; `d` one that is not there; `e` requires `d`."""
    requires = {"a": (), "b": ("a",), "c": ("a", "b"), "d": ("none",), "e": ("d",)}
    analyses = tuple(
        Analysis(name, 1, State.WAITING if names else State.QUEUED, requires=names)
        for name, names in requires.items()
    )
    [upload] = uploads = [an_upload(analyses)]
    catalog.uploads.add(uploads)
    claim(catalog)
    before = now()
    assert finish(catalog, upload.id, state=end, due_at=now(), result=None) == 1
    found = catalog.uploads.get(upload.id)
    ends = {a.name: (a.state, a.error) for a in found.analyses}
    assert ends["d"] == ("skipped", "requires none")
    assert ends["e"] == ("skipped", "requires d")
    if end is State.SUCCEEDED:
        assert (ends["b"], ends["c"]) == (("queued", None), ("waiting", None))
        assert claim(catalog, analyzer="b") == [upload.id]
        assert catalog.analyses.finish("b", "run", [Finished(upload.id, State.SUCCEEDED)]) == 1
        assert claim(catalog, analyzer="c") == [upload.id]
    elif end is State.DEFERRED:
        assert (ends["b"], ends["c"]) == (("waiting", None), ("waiting", None))
    else:
        assert (ends["b"], ends["c"]) == (("skipped", "requires a"), ("skipped", "requires a"))
        assert found.status == ("error" if end is State.FAILED else "processed")
        assert before <= found.analyses[1].finished_at <= now()


def test_claim_reads_the_results_that_are_asked_for(catalog):
    ids = add(catalog, State.QUEUED, State.QUEUED, State.QUEUED)
    for name in "ab":
        claim(catalog, analyzer=name)
        end = Finished(ids[0], State.SUCCEEDED, result={"of": name}, version=1)
        assert catalog.analyses.finish(name, "run", [end]) == 1

    def results_read(wanted: Any) -> list[Any]:
        arguments = ("c", 1, "run", 1, LEASE, State.QUEUED, wanted)
        [claimed] = catalog.analyses.claim(*arguments)
        catalog.analyses.put_back("c", "run")
        return [analysis.result for analysis in claimed.upload.analyses]

    assert results_read(()) == [None, None, None]
    assert results_read(("b",)) == [None, {"of": "b"}, None]
    assert results_read(None) == [{"of": "a"}, {"of": "b"}, None]


def test_version_is_that_of_the_result_while_there_is_one(catalog, collection):
    [upload_id] = add(catalog, State.QUEUED)

    def run(version: int, **end: Any) -> Analysis:
        set_analysis(collection, upload_id, state=State.QUEUED)
        catalog.analyses.claim("a", version, "run", 1, LEASE, State.QUEUED)
        if not end:
            catalog.analyses.take_back("a", 1, "killed", "run")
        else:
            finish(catalog, upload_id, version=version, provenance={"model": version}, **end)
        return catalog.uploads.get(upload_id).analyses[0]

    assert run(2, state=State.FAILED).version == 2
    assert run(3).version == 3
    good = run(4, result={"x": 1})
    assert (good.version, good.provenance) == (4, {"model": 4})
    for bad in (run(5), run(6, state=State.FAILED), run(7, state=State.SKIPPED)):
        assert (bad.version, bad.result, bad.provenance) == (4, {"x": 1}, {"model": 4})
    newer = run(8, result={"x": 2})
    assert (newer.version, newer.result, newer.provenance) == (8, {"x": 2}, {"model": 8})


# Ways back


def test_C13_what_is_put_back_has_had_no_attempt(catalog, collection):
    held, other_run = add(catalog, State.QUEUED, count=2)
    claim(catalog, "run")
    claim(catalog, "other")
    assert catalog.analyses.put_back("a", "run") == 1
    analysis = stored(collection, held)
    assert (analysis["state"], analysis["attempts"], analysis["crashes"]) == ("queued", 0, 0)
    assert "run" not in analysis
    assert stored(collection, other_run)["state"] == "running"


def test_C7_taken_back_from_one_run_that_died(catalog, collection):
    held, other_run = add(catalog, State.QUEUED, count=2)
    claim(catalog, "run")
    claim(catalog, "other")
    assert catalog.analyses.take_back("a", 3, "it was killed", "run") == 1
    analysis = stored(collection, held)
    assert (analysis["state"], analysis["crashes"], analysis["attempts"]) == ("queued", 1, 1)
    assert stored(collection, other_run)["state"] == "running"


def test_C7_taken_back_when_the_lease_has_ended_and_not_before(catalog, collection):
    ended, held = add(catalog, State.QUEUED, count=2)
    claim(catalog, "run", lease=timedelta(seconds=-1))
    claim(catalog, "other")
    assert catalog.analyses.take_back("a", 3, "lost") == 1
    assert stored(collection, ended)["state"] == "queued"
    assert stored(collection, held)["state"] == "running"


def test_renewed_lease_is_kept(catalog, collection):
    [upload_id] = add(catalog, State.QUEUED)
    claim(catalog, lease=timedelta(seconds=-1))
    catalog.analyses.renew("a", "run", LEASE)
    assert catalog.analyses.take_back("a", 3, "lost") == 0
    assert stored(collection, upload_id)["state"] == "running"


def test_C7_after_its_last_attempt_it_fails_with_the_reason(catalog, collection):
    [upload_id] = add(catalog, State.QUEUED)
    for crashes in (1, 2):
        claim(catalog)
        catalog.analyses.take_back("a", 3, "killed by SIGSEGV", "run")
        assert stored(collection, upload_id)["crashes"] == crashes
    claim(catalog)
    assert catalog.analyses.take_back("a", 3, "killed by SIGSEGV", "run") == 1
    upload = catalog.uploads.get(upload_id)
    assert upload.status == Status.ERROR
    [analysis] = upload.analyses
    assert (analysis.state, analysis.attempts) == (State.FAILED, 3)
    assert analysis.error == "killed by SIGSEGV"
    assert analysis.finished_at


def test_success_leaves_no_error_of_earlier_attempts(catalog):
    [upload_id] = add(catalog, State.QUEUED)
    claim(catalog)
    catalog.analyses.take_back("a", 3, "killed", "run")
    claim(catalog)
    finish(catalog, upload_id, result={})
    assert catalog.uploads.get(upload_id).analyses[0].error is None


# Deferral


def test_park_and_wake_move_all_that_there_is(catalog):
    add(catalog, State.QUEUED, State.QUEUED, count=BATCH + 3)
    assert catalog.analyses.park("a", "the captioner is away") == BATCH + 3
    assert claim(catalog) == []
    assert len(claim(catalog, analyzer="b")) == 1
    assert catalog.analyses.deferred("a").count == BATCH + 3
    assert catalog.analyses.deferred("b") is None
    assert catalog.analyses.wake("a", all_of_them=True) == BATCH + 3
    assert len(claim(catalog, size=BATCH + 9)) == BATCH + 3


def test_only_what_is_due_is_woken(catalog, collection):
    due, later = add(catalog, State.QUEUED, count=2)
    claim(catalog, size=2)
    finish(catalog, due, state=State.DEFERRED, due_at=now() - timedelta(seconds=1))
    finish(catalog, later, state=State.DEFERRED, due_at=now() + timedelta(seconds=60))
    assert catalog.analyses.work_waits("a")
    assert catalog.analyses.wake("a", all_of_them=False) == 1
    assert claim(catalog, size=9) == [due]
    assert not catalog.analyses.work_waits("a")
    assert catalog.analyses.work_waits("a", only_due=False)
    assert stored(collection, later)["state"] == "deferred"


def test_D4_deferred_is_counted_since_the_first_time(catalog, collection):
    [upload_id] = add(catalog, State.QUEUED)
    began = now()
    claim(catalog)
    finish(catalog, upload_id, state=State.DEFERRED, due_at=now())
    since = catalog.analyses.deferred("a").since
    assert began <= since <= now()
    hour_ago = since - timedelta(hours=1)
    set_analysis(collection, upload_id, deferred_at=hour_ago)
    claim(catalog, state=State.DEFERRED)
    finish(catalog, upload_id, state=State.DEFERRED, due_at=now())
    assert catalog.analyses.deferred("a").since == hour_ago
    catalog.analyses.wake("a", all_of_them=True)
    catalog.analyses.park("a", "still away")
    assert catalog.analyses.deferred("a").since == hour_ago
    claim(catalog, state=State.DEFERRED)
    finish(catalog, upload_id, result={})
    assert catalog.analyses.deferred("a") is None
    set_analysis(collection, upload_id, state="queued")  # it is to be done anew
    claim(catalog)
    finish(catalog, upload_id, state=State.DEFERRED, due_at=now())
    assert catalog.analyses.deferred("a").since >= since


# Breakers and leases


def test_breaker_opens_after_failures_and_closes_at_once(catalog):
    assert catalog.breakers.get("a") is None
    opened = [catalog.breakers.record_failure("a", f"reason {n}").open for n in range(4)]
    assert opened == [False, False, True, True]
    assert catalog.breakers.get("a").reason == "reason 3"
    assert catalog.breakers.get("b") is None
    catalog.breakers.close("a")
    assert catalog.breakers.get("a") is None


def test_D4_breaker_is_probed_every_ten_seconds_however_long_it_lasts(catalog, database):
    for failures in (0, 3, 100, 2000, 10**9):
        database["breakers"].update_one({"_id": "a"}, {"$set": {"failures": failures}}, upsert=True)
        breaker = catalog.breakers.record_failure("a", "away")
        assert 0 < (breaker.probe_at - now()).total_seconds() <= LONGEST_WAIT_SECONDS < 10


def test_one_takes_the_probe(catalog, database):
    for _ in range(3):
        catalog.breakers.record_failure("a", "away")
    assert not catalog.breakers.take_probe("a")
    database["breakers"].update_one({"_id": "a"}, {"$set": {"probe_at": now()}})
    with ThreadPoolExecutor(6) as threads:
        taken = list(threads.map(lambda _: catalog.breakers.take_probe("a"), range(12)))
    assert sum(taken) == 1


def test_F6c_lease_has_one_owner(catalog):
    owners = [f"owner-{number}" for number in range(6)]
    with ThreadPoolExecutor(len(owners)) as threads:
        taken = list(threads.map(lambda owner: catalog.leases.take("x", owner, 30), owners))
    assert sum(taken) == 1
    owner = owners[taken.index(True)]
    assert catalog.leases.take("x", owner, 30)
    assert not catalog.leases.take("x", "another", 30)
    assert catalog.leases.take("y", "another", 30)
    catalog.leases.give_back("x", "another")
    assert not catalog.leases.take("x", "another", 30)
    catalog.leases.give_back("x", owner)
    assert catalog.leases.take("x", "another", -1)
    assert catalog.leases.take("x", owner, 30)


@pytest.mark.parametrize(
    ("left_seconds", "prolonged"),
    [(29, False), (11, False), (9, True), (-1, True), (40, True), (86_400, True)],
)
def test_a_lease_is_prolonged_when_its_time_is_short_or_was_told_by_a_wrong_clock(
    catalog, database, left_seconds, prolonged
):
    assert catalog.leases.take("x", "owner", 30)
    until = now() + timedelta(seconds=left_seconds)
    database["leases"].update_one({"_id": "x"}, {"$set": {"until": until}})
    assert catalog.leases.take("x", "owner", 30)
    lease = database["leases"].find_one({"_id": "x"})
    assert (lease["until"] != until) == prolonged
    if prolonged:
        assert abs(lease["until"] - now() - timedelta(seconds=30)) < timedelta(seconds=5)


# The same bytes


def add_at(catalog: Catalog, moment: datetime, upload_id: str, number: int) -> str:
    """Add an upload that came at this moment; equal numbers stand for equal bytes."""
    filename = f"{upload_id}.jpg"
    upload = replace(an_upload((), number), id=upload_id, filename=filename, upload_time=moment)
    catalog.uploads.add([upload])
    return upload_id


def test_first_with_the_same_bytes_is_the_one_that_came_first(catalog):
    """Ids that two processes give within one second do not follow time."""
    moment = now()
    lower, higher, highest = sorted(new_id() for _ in range(3))
    add_at(catalog, moment + timedelta(milliseconds=1), lower, 1)
    first = add_at(catalog, moment, higher, 1)
    add_at(catalog, moment, highest, 1)
    other = add_at(catalog, moment, new_id(), 2)
    one, two, unknown = (f"{number:064x}" for number in (1, 2, 3))
    assert catalog.uploads.first_with_bytes([one]) == {one: first}
    assert catalog.uploads.first_with_bytes([one, two, unknown]) == {one: first, two: other}
    assert catalog.uploads.first_uploads_with_bytes([one])[one].id == first


# Errors


def test_a_mongod_that_has_just_been_started_again_is_away_for_a_moment():
    """What one may say that was killed under load; nobody can make it say so."""
    said = "No keys found for HMAC that is valid for time"
    with pytest.raises(DatabaseUnavailable), answering():
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


def test_D9_what_was_written_while_the_clock_was_wrong_is_due(catalog, database):
    """A day ahead, when nothing is put off for longer than an hour."""
    tomorrow = now() + timedelta(days=1)
    [held], [put_off] = add(catalog, State.QUEUED), add(catalog, State.DEFERRED)
    assert claim(catalog, lease=timedelta(days=1)) == [held]
    database["uploads"].update_one(
        {"_id": ObjectId(put_off)}, {"$set": {"analyses.0.due_at": tomorrow}}
    )
    assert catalog.analyses.work_waits("a")
    assert catalog.analyses.wake("a", all_of_them=False) == 1
    assert catalog.analyses.take_back("a", 3, "lost") == 1
    assert sorted(claim(catalog, size=1) + claim(catalog, size=1)) == sorted([held, put_off])
    assert catalog.leases.take("x", "of yesterday", timedelta(days=1).total_seconds())
    assert catalog.leases.take("x", "of today", 30)
    catalog.breakers.record_failure("a", "away")
    database["breakers"].update_one({"_id": "a"}, {"$set": {"probe_at": tomorrow}})
    assert catalog.breakers.get("a").due
    assert catalog.breakers.take_probe("a")
    assert not catalog.breakers.get("a").due


def test_D9_no_end_is_before_its_start(catalog, collection):
    [upload_id] = add(catalog, State.QUEUED)
    claim(catalog)
    tomorrow = now() + timedelta(days=1)
    set_analysis(collection, upload_id, started_at=tomorrow)
    finish(catalog, upload_id, result={})
    assert stored(collection, upload_id)["finished_at"] == tomorrow


# Cost


@pytest.fixture
def plans(catalog, database) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Called, how MongoDB did what the catalog asked of it in this test."""
    add(catalog, State.QUEUED, State.SUCCEEDED, count=400)
    add(catalog, State.DEFERRED, State.RUNNING, count=30)
    database["system.profile"].drop()
    database.command("profile", 2)

    def stop_and_look() -> list[dict[str, Any]]:
        database.command("profile", 0)
        of_uploads = {"ns": f"{database.name}.uploads", "planSummary": {"$exists": True}}
        return list(database["system.profile"].find(of_uploads))

    yield stop_and_look
    database.command("profile", 0)


def check(plans: list[dict[str, Any]], index: str, most: int) -> None:
    """One at least used this index, all some; none sorted or looked at more than `most` uploads."""
    assert any(plan["planSummary"].startswith(f"IXSCAN {{ {index}") for plan in plans), plans
    for plan in plans:
        assert plan["planSummary"].startswith(("IXSCAN", "IDHACK", "DISTINCT_SCAN")), plan
        assert not plan.get("hasSortStage"), plan
        assert plan["docsExamined"] <= most, plan


def test_claim_costs_what_it_takes(catalog, plans):
    assert len(claim(catalog, size=8)) == 8
    check(plans(), "analyses.name", most=8)


def test_question_for_work_costs_one_look(catalog, plans):
    assert catalog.analyses.work_waits("a")
    assert not catalog.analyses.work_waits("none")
    check(plans(), "analyses.name", most=1)


def test_settling_what_is_old_costs_a_look_at_what_waits(catalog, collection, plans):
    [waiting] = add(catalog, State.SUCCEEDED, State.WAITING)
    set_analysis(collection, waiting, name="gone")
    collection.update_one({"_id": ObjectId(waiting)}, {"$set": {"analyses.1.requires": ["gone"]}})
    assert catalog.analyses.settle(["b"], timedelta(0)) == 1
    assert stored(collection, waiting, "b")["state"] == "queued"
    check(plans(), "analyses.name", most=1)


def test_question_for_what_is_put_off_costs_no_look_at_others(catalog, plans, database):
    """However many are not due yet."""
    later = {"analyses.0.due_at": now() + timedelta(seconds=60)}
    database.command("profile", 0)
    database["uploads"].update_many({}, {"$set": {"analyses.0.state": "deferred", **later}})
    database.command("profile", 2)
    assert not catalog.analyses.work_waits("a")
    assert catalog.analyses.wake("a", all_of_them=False) == 0
    check(plans(), "analyses.name", most=0)


def test_taking_back_nothing_costs_no_look_at_others(catalog, plans):
    assert catalog.analyses.take_back("a", 3, "lost") == 0
    check(plans(), "analyses.name", most=0)


def test_deferred_are_counted_by_the_index(catalog, plans):
    assert catalog.analyses.deferred("a").count == 30
    check(plans(), "analyses.name", most=30)


@pytest.mark.parametrize("count", [1, 20])
def test_first_with_the_same_bytes_is_found_in_the_index_alone(catalog, plans, count):
    hashes = [f"{number:064x}" for number in range(count)]
    assert len(catalog.uploads.first_with_bytes(hashes)) == count
    (plan,) = plans()
    assert plan["planSummary"].startswith(("IXSCAN", "DISTINCT_SCAN")), plan
    assert not plan.get("hasSortStage"), plan
    assert plan["docsExamined"] == 0, plan
    assert plan["keysExamined"] <= count + 1, plan


def test_page_costs_what_it_shows_at_any_depth(catalog, plans):
    cursor = catalog.listing.page(10).next_cursor
    for _ in range(30):
        page = catalog.listing.page(10, cursor=cursor)
        assert len(page.uploads) == 10
        cursor = page.next_cursor
    finds = [plan for plan in plans() if plan["op"] in ("query", "getmore")]
    check(finds, "upload_time", most=11)
