"""What the end of an analysis writes into its upload, and what is put off, on a real MongoDB."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from stored_analyses import LEASE, add, an_upload, claim, finish, set_analysis, stored

from clustr.database import FinishedAnalysis, analyses, now
from clustr.domain.models import UNFINISHED, Analysis, State, Status


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
    ids = {
        others: add(database, State.QUEUED, *others)[0]
        for others in itertools.product(State, repeat=2)
    }
    claim(database, size=len(ids))
    ends = [FinishedAnalysis(upload_id, end, due_at=now()) for upload_id in ids.values()]
    assert database.analyses.finish("a", "run", ends) == len(ids)
    for others, upload_id in ids.items():
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


def test_park_and_wake_move_all_that_there_is(database, monkeypatch):
    monkeypatch.setattr(analyses, "BATCH", 10)
    add(database, State.QUEUED, State.QUEUED, count=23)
    assert database.analyses.defer_queued("a", "the captioner is away") == 23
    assert claim(database) == []
    assert len(claim(database, analyzer="b")) == 1
    assert database.analyses.deferred_summary("a").count == 23
    assert database.analyses.deferred_summary("b") is None
    assert database.analyses.requeue_deferred("a", include_not_due=True) == 23
    assert len(claim(database, size=30)) == 23


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
