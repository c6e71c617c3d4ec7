"""Jobs: what is done to many uploads at once, whoever is killed meanwhile."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import photographs
import pytest
from bson import ObjectId
from running import Servers, wait_until
from workshop import Program, Workshop, another

from clustr import components
from clustr.api.http.request_context import EXTENSION
from clustr.api.schemas import jobs as schemas
from clustr.app import create_app
from clustr.database import Job, JobState, ReanalysisSelection, now
from clustr.database.documents import facets
from clustr.domain.models import State
from clustr.services.bulk import JobRunner
from clustr.settings import read_settings

GATE = """
gate = Path({gate!r})
if not gate.exists(): raise Fail("the gate is shut")
return {{"read": gate.read_text()}}
"""


@contextmanager
def engine(workshop: Workshop) -> Iterator[JobRunner]:
    """What does the jobs, in this process, step by step."""
    built = components.build_worker(
        workshop.settings, components.build_plugin_manager(workshop.settings)
    )
    built.database.make_indexes()
    try:
        yield built.job_runner
    finally:
        built.job_runner.stop()
        built.database.close()


def order(workshop: Workshop, analyzer: str, select: str, **more: Any) -> Any:
    body = {"analyzer": analyzer, "select": select, **more}
    return workshop.app.test_client().post("/api/analyses", json=body)


def ordered(workshop: Workshop, analyzer: str, select: str, **more: Any) -> str:
    """The id of a job that was ordered."""
    answer = order(workshop, analyzer, select, **more)
    assert answer.status_code == 202, answer.text
    schemas.JobSchema().load(answer.json)
    assert answer.headers["Location"] == f"/api/jobs/{answer.json['id']}"
    return answer.json["id"]


def get(workshop: Workshop, path: str) -> Any:
    answer = workshop.app.test_client().get(path)
    assert answer.status_code == 200, answer.text
    return answer.json


def job_of(workshop: Workshop, job_id: str) -> Job:
    return workshop.web.database.jobs.get(job_id)


def end_of(workshop: Workshop, job_id: str, seconds: float = 30) -> Job:
    wait_until(lambda: job_of(workshop, job_id).ended, seconds, "the end of the job")
    return job_of(workshop, job_id)


def run_until(bulk: JobRunner, condition: Callable[[], Any]) -> None:
    """Do one round after another until the condition holds."""

    def holds() -> Any:
        bulk.run_once()
        return condition()

    wait_until(holds, 20, "that the jobs are so far")


def queue_all(workshop: Workshop, bulk: JobRunner, job_id: str) -> Job:
    """Let a job queue everything that it is about."""
    run_until(bulk, lambda: job_of(workshop, job_id).total is not None)
    return job_of(workshop, job_id)


def multiply(workshop: Workshop, count: int) -> None:
    """Have so many uploads with the same file and analyses as the one that there is."""
    document = workshop.collection.find_one()
    copies = [another(document) for _ in range(count - 1)]
    workshop.collection.insert_many(copies)


def with_job(analysis: dict[str, Any], job_id: str) -> bool:
    return analysis.get("job") == ObjectId(job_id)


# Which are selected

LAST_RUN = {"attempts": 1, "crashes": 0, "priority": 0, "due_at": now()}
ENDED_RUN = {**LAST_RUN, "finished_at": now() - timedelta(days=1)}
BEFORE: dict[str, dict[str, Any] | None] = {
    "absent": None,
    "succeeded": {"state": "succeeded", "version": 2, "result": {}, **ENDED_RUN},
    "old": {"state": "succeeded", "version": 1, "result": {"n": 1}, **ENDED_RUN},
    "failed": {"state": "failed", "version": 2, "error": "x", **ENDED_RUN},
    "failed_after_success": {"state": "failed", "version": 1, "result": {}, **ENDED_RUN},
    "cancelled": {"state": "cancelled", "version": 2, **ENDED_RUN},
    "nothing_to_say": {"state": "skipped", "version": 2, **ENDED_RUN},
    "requirement_failed": {"state": "skipped", "version": 2, **ENDED_RUN, "attempts": 0},
    "queued": {"state": "queued", "version": 1, **LAST_RUN},
    "running": {"state": "running", "version": 1, "run": "r", **LAST_RUN},
    "deferred": {"state": "deferred", "version": 1, "result": {}, **LAST_RUN},
}
UNTOUCHED = {"queued", "running", "deferred"}
SELECTED = {
    "missing": {"absent", "failed", "cancelled", "requirement_failed"},
    "stale": {"old", "failed_after_success"},
    "failed": {"failed", "failed_after_success"},
    "all": set(BEFORE) - UNTOUCHED,
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, servers: Servers) -> Iterator[tuple[Workshop, dict[str, str]]]:
    """A workshop without a worker, and one upload for each way in which an analysis can be."""
    with Workshop(tmp_path_factory.mktemp("shelf"), servers) as workshop:
        workshop.analyzer("it", "return {}", version=2)
        ids = workshop.upload(*[photographs.photograph(width=40)] * len(BEFORE))
        yield workshop, dict(zip(BEFORE, ids, strict=True))


def put_on_shelf(workshop: Workshop, ids: dict[str, str]) -> None:
    for kind, analysis in BEFORE.items():
        analyses = [{"name": "it", **analysis}] if analysis else []
        here = {"status": "processed", "facets": facets("processed", "image/jpeg", False)}
        change = {"$set": {"analyses": analyses, **here}}
        workshop.collection.update_one({"_id": ObjectId(ids[kind])}, change)


def of_job(workshop: Workshop, ids: dict[str, str], job_id: str) -> set[str]:
    documents = workshop.collection.find({"analyses.job": ObjectId(job_id)})
    found = {str(document["_id"]) for document in documents}
    return {kind for kind, upload_id in ids.items() if upload_id in found}


@pytest.mark.parametrize("select", SELECTED)
def test_selection_is_what_it_says(shelf, select):
    workshop, ids = shelf
    put_on_shelf(workshop, ids)
    before = {d["_id"]: d for d in workshop.collection.find()}
    matched = order(workshop, "it", select, dry_run=True)
    assert (matched.status_code, matched.json["matched"]) == (200, len(SELECTED[select]))
    assert {d["_id"]: d for d in workshop.collection.find()} == before
    with engine(workshop) as bulk:
        job = queue_all(workshop, bulk, ordered(workshop, "it", select))
        bulk.run_once()
    assert of_job(workshop, ids, job.id) == SELECTED[select]
    assert job.total == job.counts["selected"] == len(SELECTED[select])
    for kind in SELECTED[select]:
        analysis = workshop.stored(ids[kind], "it")
        old = BEFORE[kind] or {}
        assert (analysis["state"], analysis["priority"]) == ("queued", 10)
        assert (analysis["attempts"], analysis["crashes"], analysis["error"]) == (0, 0, None)
        assert analysis.get("result") == old.get("result")
        assert analysis["version"] == (old["version"] if "result" in old else 2)
        assert workshop.get(ids[kind]).status == "pending"
    for kind in set(BEFORE) - SELECTED[select]:
        key = ObjectId(ids[kind])
        assert workshop.collection.find_one(key) == before[key]
    # Once more finds nothing: what is under way is left alone.
    if select in ("missing", "failed"):
        assert order(workshop, "it", select, dry_run=True).json["matched"] == 0
    workshop.web.database.jobs.cancel(job.id)


def test_selection_within_limits(shelf):
    workshop, ids = shelf
    since = workshop.get(ids["failed"]).upload_time.isoformat()
    some = [ids["old"], ids["queued"], ids["failed"], "0123456789abcdef01234567"]
    for more, selected in [
        ({"limit": 2}, {"absent", "succeeded"}),
        ({"ids": some}, {"old", "failed"}),
        ({"ids": some, "limit": 1}, {"old"}),
        ({"ids": some, "filter": {"status": "error"}}, {"failed"}),
        ({"filter": {"status": "error"}}, {"failed"}),
        ({"filter": {"content_type": "image/png"}}, set()),
        ({"filter": {"content_type": "image/jpeg"}}, SELECTED["all"]),
        ({"filter": {"uploaded_before": "2020-01-01T00:00:00Z"}}, set()),
        ({"filter": {"uploaded_after": since, "status": "error"}}, {"failed"}),
    ]:
        put_on_shelf(workshop, ids)
        failed = {"$set": {"status": "error", "facets": facets("error", "image/jpeg", False)}}
        workshop.collection.update_one({"_id": ObjectId(ids["failed"])}, failed)
        dry = order(workshop, "it", "all", dry_run=True, **more)
        assert dry.json["matched"] == len(selected), more
        with engine(workshop) as bulk:
            job = queue_all(workshop, bulk, ordered(workshop, "it", "all", **more))
        assert of_job(workshop, ids, job.id) == selected, more
        workshop.web.database.jobs.cancel(job.id)


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        ({"analyzer": "itt"}, "analyzer", "did you mean it"),
        ({"analyzer": "quite_another"}, "analyzer", "there are it"),
        ({"select": "olds"}, "select", "missing, stale, failed, all"),
        ({"limit": 0}, "limit", "greater than or equal to 1"),
        ({"limit": 1.5}, "limit", "integer"),
        ({"dry_run": 1}, "dry_run", "boolean"),
        ({"ids": []}, "ids", "1 and 10000"),
        ({"ids": ["x"]}, "ids.0", "24 hexadecimal digits"),
        ({"filter": {"state": "error"}}, "filter.state", "did you mean status"),
        ({"filter": {"status": "bad"}}, "filter.status", "pending, processed, error"),
        ({"filter": {"content_type": "x"}}, "filter.content_type", "image/jpeg"),
        (
            {"filter": {"uploaded_after": "0001-01-01T00:00:00+14:00"}},
            "filter.uploaded_after",
            "Expected a date and time",
        ),
        (
            {"filter": {"uploaded_after": "2026-01-02", "uploaded_before": "x"}},
            "filter.uploaded_before",
            "Expected a date and time",
        ),
        ({"dryrun": True}, "dryrun", "did you mean dry_run"),
    ],
)
def test_orders_that_cannot_be_used_say_why(shelf, wrong, field, said):
    workshop, _ = shelf
    before = len(workshop.web.database.jobs.newest(100))
    answer = order(workshop, **{"analyzer": "it", "select": "all", **wrong})
    assert answer.status_code == 422
    assert said in answer.json["errors"][field][0]
    assert len(workshop.web.database.jobs.newest(100)) == before


def test_jobs_that_are_not_there(shelf):
    workshop, _ = shelf
    client = workshop.app.test_client()
    for method, below in ((client.get, ""), (client.post, "/cancel")):
        assert method(f"/api/jobs/0123456789abcdef01234567{below}").status_code == 404
        assert method(f"/api/jobs/x{below}").status_code == 404
    assert client.get("/api/jobs?limit=0").status_code == 422


def test_statistics_count_every_state(shelf):
    workshop, ids = shelf
    put_on_shelf(workshop, ids)
    workshop.web.database.statistics.count(workshop.web.plugin_manager.analyzers["it"])
    [found] = get(workshop, "/api/analyses")["data"]
    states = [analysis["state"] for analysis in BEFORE.values() if analysis]
    assert found["states"] == {state: states.count(state) for state in set(states)}
    assert found["stale"] == len(SELECTED["stale"])
    assert found["oldest_waiting_at"][:19] == LAST_RUN["due_at"].isoformat()[:19]
    assert (found["rate_per_minute"], found["durations_ms"]) == (0, None)


def test_the_rate_falls_while_nothing_ends_though_nothing_is_counted(shelf):
    workshop, _ = shelf
    collection = workshop.collection.database["statistics"]
    counted = {"_id": "it", "states": {}, "oldest_waiting_at": None, "durations": None, "stale": 0}

    def rate(minutes_ago: float, **kept: Any) -> float:
        """What is said so long after it was counted."""
        at = now() - timedelta(minutes=minutes_ago)
        collection.replace_one({"_id": "it"}, counted | {"counted_at": at} | kept, upsert=True)
        return get(workshop, "/api/analyses")["data"][0]["rate_per_minute"]

    ended = {"ended_by_minute": [60, 30, 0, 0, 10]}
    said = [rate(minutes, **ended) for minutes in (0, 0.5, 1, 4, 4.5, 5, 600)]
    assert said == pytest.approx([20, 19, 18, 12, 6, 0, 0], abs=0.2)
    # As the version before has kept it.
    assert rate(0, rate_per_minute=7.0) == pytest.approx(7, abs=0.1)
    assert rate(6, rate_per_minute=7.0) == 0


def test_without_a_database_it_is_said(shelf):
    workshop, _ = shelf
    away = {**workshop.environment, "MONGODB_URL": "mongodb://127.0.0.1:1"}
    app = create_app(read_settings(away))
    try:
        answer = app.test_client().get("/api/analyses")
        assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
    finally:
        app.extensions[EXTENSION].database.close()


def test_jobs_that_ended_are_removed_after_thirty_days(shelf):
    workshop, _ = shelf
    indexes = workshop.collection.database["jobs"].index_information()
    assert indexes["ended"]["expireAfterSeconds"] == timedelta(days=30).total_seconds()


def test_jobs_that_ended_are_kept_up_to_a_number(shelf, monkeypatch):
    workshop, _ = shelf
    monkeypatch.setattr("clustr.database.jobs.MAX_FINISHED", 3)
    with engine(workshop) as bulk:
        ids = []
        for _ in range(5):
            ids.append(ordered(workshop, "it", "failed", ids=["0" * 24]))
            run_until(bulk, lambda: job_of(workshop, ids[-1]).ended)
        waiting = ordered(workshop, "it", "failed", ids=["0" * 24])
        ended = workshop.collection.database["jobs"].find({"finished_at": {"$exists": True}})
        left = [str(job["_id"]) for job in ended.sort("finished_at", 1)]
    assert left == ids[-3:]
    assert job_of(workshop, waiting).state is JobState.QUEUED
    answer = workshop.app.test_client().get(f"/api/jobs/{ids[0]}")
    assert answer.status_code == 404
    assert "kept for 30 days, and no more than the newest 3 of them" in answer.json["detail"]


def test_job_of_an_analyzer_that_is_gone_fails_and_others_go_on(shelf):
    workshop, ids = shelf
    put_on_shelf(workshop, ids)
    gone = workshop.web.database.jobs.add(
        "analyze",
        ReanalysisSelection("gone", schemas.AnalysisSelection.ALL).parameters(),
        "request",
    )
    strange = workshop.web.database.jobs.add("strange", {}, "request")
    job_id = ordered(workshop, "it", "failed")
    with engine(workshop) as bulk:
        queue_all(workshop, bulk, job_id)
    for job, said in ((gone, "unknown analyzer gone"), (strange, "strange")):
        found = job_of(workshop, job.id)
        assert found.state is JobState.FAILED
        assert said in found.error
    assert job_of(workshop, job_id).total == 2
    workshop.web.database.jobs.cancel(job_id)


# How they are queued


def test_new_analysis_is_in_the_order_of_what_it_requires(workshop):
    workshop.analyzer("base", "return {}")
    workshop.analyzer("late", "return {}", requires=("base",), formats=frozenset({"image/jpeg"}))
    workshop.analyzer("user", "return {}", requires=("late",))
    contents = [photographs.photograph(width=40), photographs.photograph("png", width=40)]
    jpeg, png, without = workshop.upload(*contents, contents[0])
    workshop.collection.update_many({}, {"$pull": {"analyses": {"name": "late"}}})
    workshop.collection.update_one(
        {"_id": ObjectId(without)}, {"$pull": {"analyses": {"name": "base"}}}
    )
    with engine(workshop) as bulk:
        queue_all(workshop, bulk, ordered(workshop, "late", "missing"))
    found = {id: {a.name: a for a in workshop.get(id).analyses} for id in (jpeg, png, without)}
    assert [*found[jpeg]] == ["base", "late", "user"]
    assert found[jpeg]["late"].state == "waiting"
    assert (found[png]["late"].state, found[png]["late"].attempts) == ("skipped", 0)
    assert found[png]["late"].error == "does not look at image/png"
    assert (found[without]["late"].state, found[without]["late"].error) == (
        "skipped",
        "requires base",
    )


def test_a_batch_that_was_not_written_down_is_done_once_more_without_harm(own_workshop):
    """The process is killed between what it queued and saying so."""
    workshop = own_workshop
    workshop.analyzer("it", "return {}")
    workshop.upload(photographs.photograph(width=40))
    multiply(workshop, 1600)
    ended = {"$set": {"analyses.0.state": "succeeded"}}
    workshop.collection.update_many({}, ended)
    job_id = ordered(workshop, "it", "all", limit=1500)
    database = workshop.web.database
    analyzer = workshop.web.plugin_manager.analyzers["it"]
    with engine(workshop) as bulk:
        run_until(bulk, lambda: job_of(workshop, job_id).after)
    for _ in range(2):  # Two that die.
        job = job_of(workshop, job_id)
        assert job.counts["selected"] == 1000
        batch = database.selections.queue_batch(
            job, ReanalysisSelection.from_parameters(job.parameters), analyzer, ()
        )
        assert (batch.selected, batch.last) == (500, True)
        # Some of it is done by the time that somebody goes on.
        second = {"_id": {"$gt": ObjectId(job.after)}, "analyses.job": ObjectId(job_id)}
        workshop.collection.update_one(second, ended)
    # One that was slow comes after all with what it had.
    with engine(workshop) as bulk:
        queue_all(workshop, bulk, job_id)
    assert not database.jobs.advance(job, batch.after, None, {"selected": 0})
    job = job_of(workshop, job_id)
    assert (job.total, job.counts["selected"]) == (1500, 1500)
    queued = {"analyses.job": ObjectId(job_id)}
    assert workshop.collection.count_documents(queued) == 1500
    assert workshop.collection.count_documents({**queued, "analyses.state": "queued"}) == 1499
    database.jobs.cancel(job_id)


def test_cancelled_job_leaves_all_as_it_was(workshop):
    workshop.analyzer("it", "return {}")
    ids = workshop.upload(*[photographs.photograph(width=40)] * 4)
    states = ("succeeded", "failed", "succeeded", "failed")
    for upload_id, state in zip(ids, states, strict=True):
        kept = {"analyses.0.result": {"n": 1}} if state == "succeeded" else {}
        change = {"$set": {"analyses.0.state": state, "status": "processed", **kept}}
        workshop.collection.update_one({"_id": ObjectId(upload_id)}, change)
    job_id = ordered(workshop, "it", "all")
    with engine(workshop) as bulk:
        queue_all(workshop, bulk, job_id)
        lease, queued = timedelta(seconds=30), State.QUEUED
        [claimed] = workshop.web.database.analyses.claim("it", 1, "run", 1, lease, queued)
        answer = workshop.app.test_client().post(f"/api/jobs/{job_id}/cancel")
        assert answer.status_code == 202
        assert answer.json["cancel_requested_at"]
        run_until(bulk, lambda: job_of(workshop, job_id).ended)
    job = job_of(workshop, job_id)
    assert job.state is JobState.CANCELLED
    assert (job.counts["selected"], job.counts["running"], job.counts["cancelled"]) == (4, 1, 3)
    assert claimed.upload.id == ids[0]  # It goes on, and is what keeps its upload pending.
    assert [workshop.state_of(each, "it") for each in ids] == [
        "running",
        "cancelled",
        "succeeded",
        "cancelled",
    ]
    assert [workshop.get(each).status for each in ids] == ["pending", *["processed"] * 3]
    # To cancel what has ended changes nothing.
    again = workshop.app.test_client().post(f"/api/jobs/{job_id}/cancel")
    assert (again.status_code, again.json["state"]) == (202, "cancelled")
    assert again.json["updated_at"] == get(workshop, f"/api/jobs/{job_id}")["updated_at"]


# With workers


def test_killed_in_the_middle_another_goes_on_and_nothing_is_done_twice(own_workshop):
    workshop = own_workshop
    workshop.analyzer("it", "return {}")
    workshop.upload(photographs.photograph(width=40))
    multiply(workshop, 2500)
    change = {"$set": {"analyses.0.state": "failed"}}
    workshop.collection.update_many({}, change)
    job_id = ordered(workshop, "it", "failed")
    first = workshop.worker("--queues", "gpu")  # It does jobs, but no analyses of this queue.
    wait_until(lambda: job_of(workshop, job_id).after, 20, "a batch")
    first.end()
    after = job_of(workshop, job_id).after
    workshop.collection.database["leases"].delete_many({})  # As if fifteen seconds had passed.
    workshop.worker("--workers", "2")
    job = end_of(workshop, job_id, seconds=60)
    assert after <= job.after
    assert (job.state, job.total) == (JobState.SUCCEEDED, 2500)
    assert (job.counts["selected"], job.counts["succeeded"]) == (2500, 2500)
    analyses = [d["analyses"][0] for d in workshop.collection.find()]
    assert {(a["state"], a["attempts"]) for a in analyses} == {("succeeded", 1)}


def test_uploads_overtake_and_the_last_good_result_stays(workshop):
    gate = workshop.folder / "gate"
    workshop.analyzer("gated", GATE.format(gate=str(gate)))
    workshop.analyzer("other", "time.sleep(0.02)\nreturn {}")
    gate.write_text("first")
    worker = workshop.worker()
    ids = workshop.upload(*[photographs.photograph(width=40)] * 30)
    for upload_id in ids:
        assert workshop.end_of(upload_id, "gated").result == {"read": "first"}
        workshop.end_of(upload_id, "other")
    assert worker.stop() == 0

    gate.unlink()
    jobs = [ordered(workshop, "gated", "all", limit=20), ordered(workshop, "other", "all")]
    with engine(workshop) as bulk:
        for job_id in jobs:
            queue_all(workshop, bulk, job_id)
    waiting = workshop.analysis(ids[0], "gated")
    assert (waiting.state, waiting.result) == ("queued", {"read": "first"})
    [new] = workshop.upload()
    worker = workshop.worker()
    done = [end_of(workshop, job_id) for job_id in jobs]
    assert [job.state for job in done] == [JobState.SUCCEEDED] * 2
    assert (done[0].counts["failed"], done[1].counts["succeeded"]) == (20, 30)
    assert {f.upload_id for f in done[0].failures} == set(ids[:20])
    assert {f.error for f in done[0].failures} == {"the gate is shut"}
    for name in ("gated", "other"):
        began = [workshop.stored(upload_id, name)["started_at"] for upload_id in ids[:20]]
        assert workshop.stored(new, name)["started_at"] <= min(began)
    failed = workshop.analysis(ids[0], "gated")
    assert (failed.state, failed.result, failed.version) == ("failed", {"read": "first"}, 1)
    assert workshop.get(ids[0]).status == "error"

    gate.write_text("second")
    again = end_of(workshop, ordered(workshop, "gated", "failed"))
    assert again.counts["succeeded"] == 21  # The new one failed, too.
    assert workshop.analysis(ids[0], "gated").result == {"read": "second"}
    listed = get(workshop, "/api/jobs?limit=2")["data"]
    schemas.JobListSchema().load({"data": listed})
    assert [one["id"] for one in listed] == [again.id, jobs[1]]
    schemas.JobSchema().load(get(workshop, f"/api/jobs/{jobs[0]}"))

    def counted() -> bool:
        found = get(workshop, "/api/analyses")["data"]
        return [one["states"] for one in found] == [{"succeeded": 31}] * 2

    assert worker.stop() == 0
    with engine(workshop) as bulk:
        run_until(bulk, counted)
    body = get(workshop, "/api/analyses")
    schemas.AnalysesSchema().load(body)
    [other] = [one for one in body["data"] if one["analyzer"] == "other"]
    assert (other["plugin"], other["version"], other["stale"]) == ("other", 1, 0)
    assert other["states"] == {"succeeded": 31}
    assert other["oldest_waiting_at"] is None
    assert other["rate_per_minute"] > 0
    # What is claimed together is written down together, and yet it is one that is said.
    assert 15 <= other["durations_ms"]["p50"] <= 300
    estimate = order(workshop, "other", "all", dry_run=True).json
    schemas.EstimateSchema().load(estimate)
    assert estimate["matched"] == 31
    assert 0.3 <= estimate["estimated_seconds"] <= 10


# The command


def analyze(workshop: Workshop, *arguments: str, **settings: str) -> Program:
    """`clustr analyze` as a process."""
    return workshop.run("-m", "clustr", "analyze", *arguments, **settings)


def test_clustr_analyze(workshop):
    gate = workshop.folder / "gate"
    workshop.analyzer("first", "return {}")
    workshop.upload(*[photographs.photograph(width=40)] * 3)
    workshop.analyzer("late", "return {}", version=1)
    workshop.analyzer("gated", GATE.format(gate=str(gate)), auto=False)
    workshop.renew()

    nowhere = {"MONGODB_URL": "mongodb://127.0.0.1:1"}
    expected = [
        (("late",), {}, 2, "clustr: say which uploads: --missing, --stale, --failed or --all"),
        (("lat", "--all"), {}, 2, "clustr: unknown analyzer lat; did you mean late?"),
        (("late", "--all"), nowhere, 2, "clustr: MongoDB does not answer at the address of"),
        (("late", "--missing", "--dry-run"), {}, 0, "3 uploads; "),
    ]
    waiting = analyze(workshop, "late", "--missing", "--limit", "2")
    programs = [analyze(workshop, *arguments, **settings) for arguments, settings, *_ in expected]
    for program, (_, _, code, said) in zip(programs, expected, strict=True):
        assert program.process.wait(30) == code, program.output()
        assert program.output().startswith(said), program.output()
    wait_until(lambda: "No worker has taken it up" in waiting.output(), 20, "a word on it")
    waiting.signal(signal.SIGINT)
    assert waiting.process.wait(10) == 130
    [job] = workshop.web.database.jobs.newest(2)
    assert f"curl -X POST http://127.0.0.1:5000/api/jobs/{job.id}/cancel" in waiting.output()

    workshop.worker()
    assert end_of(workshop, job.id).counts["succeeded"] == 2
    expected = [
        (("late", "--missing"), 0, "Succeeded: 1 succeeded."),
        (("gated", "--stale"), 0, "Succeeded: there was nothing to do."),
        (("gated", "--missing"), 1, "Succeeded: 3 failed."),
    ]
    programs = [analyze(workshop, *arguments) for arguments, *_ in expected]
    for program, (_, code, said) in zip(programs, expected, strict=True):
        assert program.process.wait(30) == code, program.output()
        assert program.output().splitlines()[-1] == said
    gate.write_text("open")
    code, output = on_a_terminal(workshop, "gated", "--failed")
    assert code == 0, output
    assert re.search(r"\[#{30}\] 3 of 3\s+Succeeded: 3 succeeded", output), output


def on_a_terminal(workshop: Workshop, *arguments: str) -> tuple[int, str]:
    """Run `clustr analyze` on a terminal of its own."""
    ours, its = os.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "clustr", "analyze", *arguments],
        env={**workshop.environment, "PATH": os.environ["PATH"]},
        cwd=workshop.folder,
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    printed = b""
    try:
        while more := os.read(ours, 4096):
            printed += more
    except OSError:  # It has ended.
        pass
    finally:
        os.close(ours)
    return running.wait(10), printed.decode()
