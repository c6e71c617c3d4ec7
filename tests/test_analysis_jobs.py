"""Jobs that analyze many uploads: nothing is done twice, whoever is killed meanwhile."""

import os
import re
import signal
import subprocess
import sys
from datetime import timedelta

import photographs
from bson import ObjectId
from jobs import end_of, engine, get, job_of, multiply, order, ordered, queue_all, run_until
from running import wait_until
from workshop import Program, Workshop, analyzer

from clustr.api.schemas import jobs as schemas
from clustr.database import JobState, ReanalysisSelection, bulk_selection
from clustr.database.bulk_selection import Selections
from clustr.domain.errors import DatabaseUnavailable
from clustr.domain.models import State

GATE = """
gate = Path({gate!r})
if not gate.exists(): raise Fail("the gate is shut")
return {{"read": gate.read_text()}}
"""


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


def test_a_batch_that_was_not_written_down_is_done_once_more_without_harm(workshop, monkeypatch):
    """The process is killed between what it queued and saying so."""
    monkeypatch.setattr(bulk_selection, "BATCH", 100)
    workshop.analyzer("it", "return {}")
    workshop.upload(photographs.photograph(width=40))
    multiply(workshop, 160)
    ended = {"$set": {"analyses.0.state": "succeeded"}}
    workshop.collection.update_many({}, ended)
    job_id = ordered(workshop, "it", "all", limit=150)
    database = workshop.web.database
    analyzer = workshop.web.plugin_manager.analyzers["it"]
    with engine(workshop) as bulk:
        run_until(bulk, lambda: job_of(workshop, job_id).after)
    for _ in range(2):  # Two that die.
        job = job_of(workshop, job_id)
        assert job.counts["selected"] == 100
        batch = database.selections.queue_batch(
            job, ReanalysisSelection.from_parameters(job.parameters), analyzer, ()
        )
        assert (batch.selected, batch.last) == (50, True)
        # Some of it is done by the time that somebody goes on.
        second = {"_id": {"$gt": ObjectId(job.after)}, "analyses.job": ObjectId(job_id)}
        workshop.collection.update_one(second, ended)
    # One that was slow comes after all with what it had.
    with engine(workshop) as bulk:
        queue_all(workshop, bulk, job_id)
    assert not database.jobs.advance(job, batch.after, None, {"selected": 0})
    job = job_of(workshop, job_id)
    assert (job.total, job.counts["selected"]) == (150, 150)
    queued = {"analyses.job": ObjectId(job_id)}
    assert workshop.collection.count_documents(queued) == 150
    assert workshop.collection.count_documents({**queued, "analyses.state": "queued"}) == 149
    database.jobs.cancel(job_id)


def test_a_count_that_takes_too_long_does_not_hold_up_what_is_queued(workshop, monkeypatch):
    monkeypatch.setattr(bulk_selection, "BATCH", 1)
    monkeypatch.setattr("clustr.services.job_kinds.COUNT_EVERY_SECONDS", 3600)
    workshop.analyzer("it", "return {}")
    workshop.upload(*[photographs.photograph(width=40)] * 3)
    workshop.collection.update_many({}, {"$set": {"analyses.0.state": "succeeded"}})
    counted = []

    def take_too_long(_self: Selections, job_id: str) -> None:
        counted.append(job_id)
        raise DatabaseUnavailable

    monkeypatch.setattr(Selections, "count_states", take_too_long)
    job_id = ordered(workshop, "it", "all")
    with engine(workshop) as bulk:
        job = queue_all(workshop, bulk, job_id)
        bulk.run_once()
    assert job.counts == {"selected": 3}
    assert counted == [job_id]


def test_a_last_count_that_takes_too_long_is_not_made_in_every_round(workshop, monkeypatch):
    monkeypatch.setattr("clustr.services.job_kinds.COUNT_EVERY_SECONDS", 0)
    monkeypatch.setattr("clustr.services.job_kinds.COUNT_PAUSES", 0)
    workshop.analyzer("it", "return {}")
    workshop.upload(photographs.photograph(width=40))
    workshop.collection.update_many({}, {"$set": {"analyses.0.state": "succeeded"}})
    job_id = ordered(workshop, "it", "all")
    counted, count_states = [], Selections.count_states

    def take_too_long_later(selections: Selections, job_id: str) -> dict[str, int]:
        counted.append(job_id)
        if len(counted) > 1:
            raise DatabaseUnavailable
        return count_states(selections, job_id)

    with engine(workshop) as bulk:
        queue_all(workshop, bulk, job_id)
        workshop.collection.update_many({}, {"$set": {"analyses.0.state": "succeeded"}})
        monkeypatch.setattr("clustr.services.job_kinds.COUNT_EVERY_SECONDS", 3600)
        monkeypatch.setattr(Selections, "count_states", take_too_long_later)
        for _ in range(3):
            bulk.run_once()
    assert counted == [job_id] * 2


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


def test_killed_in_the_middle_another_goes_on_and_nothing_is_done_twice(workshop, monkeypatch):
    monkeypatch.setattr(bulk_selection, "BATCH", 100)  # In this process it is put back.
    small = "from clustr.database import bulk_selection\nbulk_selection.BATCH = 100\n"
    workshop.write("it", small + analyzer("it", "return {}"))
    workshop.upload(photographs.photograph(width=40))
    multiply(workshop, 300)
    change = {"$set": {"analyses.0.state": "failed"}}
    workshop.collection.update_many({}, change)
    job_id = ordered(workshop, "it", "failed")
    first = workshop.worker("--queues", "gpu")  # It does jobs, but no analyses of this queue.
    wait_until(lambda: job_of(workshop, job_id).after, 60, "a batch")
    first.end()
    after = job_of(workshop, job_id).after
    workshop.collection.database["leases"].delete_many({})  # As if fifteen seconds had passed.
    workshop.worker("--workers", "2")
    job = end_of(workshop, job_id)
    assert after <= job.after
    assert (job.state, job.total) == (JobState.SUCCEEDED, 300)
    assert (job.counts["selected"], job.counts["succeeded"]) == (300, 300)
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
        (("late",), {}, 2, "clustr: say NAME and which uploads: --missing, --stale, --other-con"),
        (("--stale",), {}, 2, "clustr: say NAME and which uploads"),
        (("late", "--all-stale"), {}, 2, "clustr: --all-stale is for all analyzers: give neither"),
        (("lat", "--all"), {}, 2, "clustr: unknown analyzer lat; did you mean late?"),
        (("late", "--all"), nowhere, 2, "clustr: MongoDB does not answer at the address of"),
        (("late", "--missing", "--dry-run"), {}, 0, "3 uploads; "),
    ]
    waiting = analyze(workshop, "late", "--missing", "--limit", "2", AUTH="keys")
    programs = [analyze(workshop, *arguments, **settings) for arguments, settings, *_ in expected]
    for program, (_, _, code, said) in zip(programs, expected, strict=True):
        assert program.process.wait(60) == code, program.output()
        assert program.output().startswith(said), program.output()
    wait_until(lambda: "No worker has taken it up" in waiting.output(), 60, "a word on it")
    waiting.signal(signal.SIGINT)
    assert waiting.process.wait(60) == 130
    [job] = workshop.web.database.jobs.newest(2)
    command = 'curl -H "X-API-Key: $CLUSTR_KEY" -X POST'
    assert f"{command} http://127.0.0.1:5000/api/jobs/{job.id}/cancel" in waiting.output()

    workshop.worker()
    assert end_of(workshop, job.id).counts["succeeded"] == 2
    expected = [
        (("late", "--missing"), 0, "Succeeded: 1 succeeded."),
        (("gated", "--stale"), 0, "Succeeded: there was nothing to do."),
        (("gated", "--missing"), 1, "Succeeded: 3 failed."),
    ]
    programs = [analyze(workshop, *arguments) for arguments, *_ in expected]
    for program, (_, code, said) in zip(programs, expected, strict=True):
        assert program.process.wait(60) == code, program.output()
        assert program.output().splitlines()[-1] == said
    nothing = analyze(workshop, "--all-stale")
    assert nothing.process.wait(60) == 0
    assert "No analyzer has results of an earlier version" in nothing.output()
    gate.write_text("open")
    code, output = on_a_terminal(workshop, "gated", "--failed")
    assert code == 0, output
    assert re.search(r"\[#{30}\] 3 of 3\s+Succeeded: 3 succeeded", output), output


def test_all_that_is_stale_is_ordered_at_once(workshop):
    for name in ("one", "other", "same"):
        workshop.analyzer(name, "return {}")
    ids = workshop.upload(*[photographs.photograph(width=40)] * 2)
    worker = workshop.worker()
    for name in ("one", "other", "same"):
        for upload_id in ids:
            workshop.end_of(upload_id, name)
    assert worker.stop() == 0
    for name in ("one", "other"):
        workshop.analyzer(name, "return {}", version=2)
    workshop.renew()
    asked = analyze(workshop, "--all-stale", "--dry-run")
    assert asked.process.wait(60) == 0
    assert re.fullmatch(r"one: 2 uploads; .*\nother: 2 uploads; .*\n", asked.output())
    workshop.worker()
    ordered_all = analyze(workshop, "--all-stale")
    assert ordered_all.process.wait(60) == 0, ordered_all.output()
    assert ordered_all.output().count("Succeeded: 2 succeeded.") == 2
    for name, version in (("one", 2), ("other", 2), ("same", 1)):
        assert {workshop.analysis(upload_id, name).version for upload_id in ids} == {version}


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
    return running.wait(60), printed.decode()
