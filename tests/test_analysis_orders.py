"""Orders of analyses of many uploads: which are selected, and what is answered."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import photographs
import pytest
from bson import ObjectId
from jobs import engine, get, job_of, order, ordered, queue_all, run_until
from running import Servers
from workshop import Workshop

from clustr.api.http.request_context import EXTENSION
from clustr.api.schemas import jobs as schemas
from clustr.app import create_app
from clustr.database import JobState, ReanalysisSelection, now
from clustr.database.documents import facets
from clustr.services.job_runner import JobRunner
from clustr.settings import read_settings


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
    "other_config": {"old", "failed_after_success"},
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


@pytest.fixture(scope="module")
def shelf_runner(shelf) -> Iterator[JobRunner]:
    with engine(shelf[0]) as runner:
        yield runner


def put_on_shelf(workshop: Workshop, ids: dict[str, str]) -> None:
    for kind, analysis in BEFORE.items():
        analyses = [{"name": "it", **analysis}] if analysis else []
        here = {"status": "processed", "facets": facets("processed", "image/jpeg", False)}
        if kind == "succeeded":  # The others were made by a configuration that nobody knows.
            plugin = workshop.web.plugin_manager.plugin_of(
                workshop.web.plugin_manager.analyzers["it"]
            )
            analyses[0]["provenance"] = {"config_hash": plugin.config_hash}
        elif analyses and "result" in analyses[0]:
            analyses[0]["provenance"] = {"config_hash": "another"}
        change = {"$set": {"analyses": analyses, **here}}
        workshop.collection.update_one({"_id": ObjectId(ids[kind])}, change)


def of_job(workshop: Workshop, ids: dict[str, str], job_id: str) -> set[str]:
    documents = workshop.collection.find({"analyses.job": ObjectId(job_id)})
    found = {str(document["_id"]) for document in documents}
    return {kind for kind, upload_id in ids.items() if upload_id in found}


@pytest.mark.parametrize("select", SELECTED)
def test_selection_is_what_it_says(shelf, shelf_runner, select):
    workshop, ids = shelf
    put_on_shelf(workshop, ids)
    before = {d["_id"]: d for d in workshop.collection.find()}
    matched = order(workshop, "it", select, dry_run=True)
    assert (matched.status_code, matched.json["matched"]) == (200, len(SELECTED[select]))
    assert {d["_id"]: d for d in workshop.collection.find()} == before
    job = queue_all(workshop, shelf_runner, ordered(workshop, "it", select))
    shelf_runner.run_once()
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


def test_selection_within_limits(shelf, shelf_runner):
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
        job = queue_all(workshop, shelf_runner, ordered(workshop, "it", "all", **more))
        assert of_job(workshop, ids, job.id) == selected, more
        workshop.web.database.jobs.cancel(job.id)


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        ({"analyzer": "itt"}, "analyzer", "did you mean it"),
        ({"analyzer": "quite_another"}, "analyzer", "there are it"),
        ({"select": "olds"}, "select", "missing, stale, other_config, failed, all"),
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
    assert found["missing"] == len(SELECTED["missing"])
    assert found["oldest_waiting_at"][:19] == LAST_RUN["due_at"].isoformat()[:19]
    assert (found["rate_per_minute"], found["durations_ms"]) == (0, None)


def test_the_rate_falls_while_nothing_ends_though_nothing_is_counted(shelf):
    workshop, _ = shelf
    collection = workshop.collection.database["statistics"]
    counted = {"_id": "it", "states": {}, "oldest_waiting_at": None, "durations": None, "stale": 0}

    def check_rate(minutes_ago: float, expected: float, **kept: Any) -> None:
        """Check what is said so long after it was counted; it falls by 12 a minute at most."""
        began = time.monotonic()
        at = now() - timedelta(minutes=minutes_ago)
        collection.replace_one({"_id": "it"}, counted | {"counted_at": at} | kept, upsert=True)
        said = get(workshop, "/api/analyses")["data"][0]["rate_per_minute"]
        fallen = 12 * (time.monotonic() - began) / 60
        assert expected - fallen - 0.1 <= said <= expected + 0.1, minutes_ago

    for minutes, expected in {0: 20, 0.5: 19, 1: 18, 4: 12, 4.5: 6, 5: 0, 600: 0}.items():
        check_rate(minutes, expected, ended_by_minute=[60, 30, 0, 0, 10])
    # As the version before has kept it.
    check_rate(0, 7, rate_per_minute=7.0)
    check_rate(6, 0, rate_per_minute=7.0)


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


def test_jobs_that_ended_are_kept_up_to_a_number(shelf, shelf_runner, monkeypatch):
    workshop, _ = shelf
    monkeypatch.setattr("clustr.database.jobs.MAX_FINISHED", 3)
    ids = []
    for _ in range(5):
        ids.append(ordered(workshop, "it", "failed", ids=["0" * 24]))
        run_until(shelf_runner, lambda: job_of(workshop, ids[-1]).ended)
    waiting = ordered(workshop, "it", "failed", ids=["0" * 24])
    ended = workshop.collection.database["jobs"].find({"finished_at": {"$exists": True}})
    left = [str(job["_id"]) for job in ended.sort("finished_at", 1)]
    assert left == ids[-3:]
    assert job_of(workshop, waiting).state is JobState.QUEUED
    answer = workshop.app.test_client().get(f"/api/jobs/{ids[0]}")
    assert answer.status_code == 404
    assert "kept for 30 days, and no more than the newest 3 of them" in answer.json["detail"]


def test_job_of_an_analyzer_that_is_gone_fails_and_others_go_on(shelf, shelf_runner):
    workshop, ids = shelf
    put_on_shelf(workshop, ids)
    gone = workshop.web.database.jobs.add(
        "analyze",
        ReanalysisSelection("gone", schemas.AnalysisSelection.ALL).parameters(),
        "request",
    )
    strange = workshop.web.database.jobs.add("strange", {}, "request")
    job_id = ordered(workshop, "it", "failed")
    queue_all(workshop, shelf_runner, job_id)
    for job, said in ((gone, "unknown analyzer gone"), (strange, "strange")):
        found = job_of(workshop, job.id)
        assert found.state is JobState.FAILED
        assert said in found.error
    assert job_of(workshop, job_id).total == 2
    workshop.web.database.jobs.cancel(job_id)
