"""The same done to many uploads, as jobs that go on where they were."""

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import photographs
import pytest
from bson import ObjectId
from failing import fail_once, unavailable
from jobs import end_of, engine, job_of, run_until
from running import wait_until
from trash import go_on
from workshop import Workshop

from clustr.api.schemas.jobs import JobSchema
from clustr.database import AnalysisSelection, ReanalysisSelection, now
from clustr.database.bulk_selection import Selections
from clustr.services.job_kinds import MoveUploads
from clustr.services.job_runner import LEASE, JobRunner
from clustr.services.jobs import add_analysis_job
from clustr.storage.trash import TrashFolder


def order(workshop: Workshop, action: str, **more: Any) -> Any:
    return workshop.app.test_client().post("/api/uploads/bulk", json={"action": action, **more})


def ordered(workshop: Workshop, action: str, **more: Any) -> str:
    """The id of a job that was ordered."""
    answer = order(workshop, action, **more)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/api/jobs/{answer.json['id']}"
    JobSchema().load(answer.json)
    return answer.json["id"]


def done(workshop: Workshop, action: str, **more: Any) -> Any:
    """What a job says on the wire once it is done."""
    with engine(workshop) as bulk:
        return done_by(bulk, workshop, action, **more)


def done_by(bulk: JobRunner, workshop: Workshop, action: str, **more: Any) -> Any:
    """The same, with what has done other jobs already."""
    job_id = ordered(workshop, action, **more)
    run_until(bulk, lambda: job_of(workshop, job_id).ended)
    said = workshop.app.test_client().get(f"/api/jobs/{job_id}").json
    JobSchema().load(said)
    return said


def counts(said: Any) -> dict[str, int]:
    return {name: count for name, count in said["counts"].items() if count}


def places(workshop: Workshop) -> tuple[set[str], set[str]]:
    """The ids of the uploads, and of those in the trash; each has its file where it is."""
    trash = workshop.collection.database[f"{workshop.collection.name}_trash"]
    folder = workshop.settings.upload_folder
    found = (
        {str(document["_id"]) for document in collection.find()}
        for collection in (workshop.collection, trash)
    )
    live, trashed = found
    assert {path.stem for path in folder.glob("[0-9a-f]*/*")} == live
    assert {path.stem for path in folder.glob(".trash/*/*")} == trashed
    return live, trashed


def many(workshop: Workshop, count: int) -> list[str]:
    ids: list[str] = []
    while len(ids) < count:
        ids += workshop.upload(*[photographs.one_pixel()] * min(50, count - len(ids)))
    return ids


def test_some_are_removed_and_restored_by_their_ids(workshop, monkeypatch):
    monkeypatch.setattr(MoveUploads, "batch_size", 10)
    ids = many(workshop, 30)
    some, unknown = ids[:25], "0" * 24
    said = done(workshop, "delete", ids=[*some, unknown, some[0]])
    assert said["kind"] == "delete"
    assert said["state"] == "succeeded"
    assert counts(said) == {"selected": 26, "succeeded": 25, "failed": 1}
    assert said["failures"] == [{"id": unknown, "error": "There is no such upload."}]
    assert said["total"] == 26
    assert places(workshop) == ({*ids[25:]}, {*some})
    said = done(workshop, "restore", ids=some[:15])
    assert counts(said) == {"selected": 15, "succeeded": 15}
    assert places(workshop) == ({*ids[25:], *some[:15]}, {*some[15:]})


def test_those_of_a_filter_are_removed_and_restored(workshop, monkeypatch):
    monkeypatch.setattr(MoveUploads, "batch_size", 10)
    ids = many(workshop, 15)
    (other,) = workshop.upload(photographs.photograph())
    wanted = {"content_type": "image/png"}
    assert order(workshop, "delete", filter=wanted, dry_run=True).json == {"matched": 15}
    assert counts(done(workshop, "delete", filter=wanted)) == {"selected": 15, "succeeded": 15}
    assert places(workshop) == ({other}, {*ids})
    dry = order(workshop, "restore", filter={}, dry_run=True)
    assert (dry.status_code, dry.json) == (200, {"matched": 15})
    assert counts(done(workshop, "restore", filter={})) == {"selected": 15, "succeeded": 15}
    assert places(workshop) == ({*ids, other}, set())
    assert counts(done(workshop, "restore", filter={})) == {}


def test_a_filter_knows_what_the_listing_knows(workshop):
    workshop.analyzer("quick", "return {}")
    first, second, third = many(workshop, 3)
    (large,) = workshop.upload(photographs.photograph())
    done(workshop, "tag", ids=[first, large], tags=["cat"])
    done(workshop, "tag", ids=[large], tags=["sofa"])
    meanings: list[tuple[dict[str, Any], set[str]]] = [
        ({"tag": ["cat"]}, {first, large}),
        ({"tag": ["cat", "sofa"]}, {large}),
        ({"tag_not": ["SOFA"]}, {first, second, third}),
        ({"tag": ["cat"], "tag_not": ["sofa", "dog"]}, {first}),
        ({"q": "cats"}, {first, large}),
        ({"q": "tag:ca"}, set()),  # A word is whole here: nobody deletes what only begins so.
        ({"q": "-tag:cat"}, {second, third}),
        ({"q": "cat -sofa", "duplicate": False}, {first}),
        ({"untagged": True}, {second, third}),
        ({"untagged": False}, {first, large}),
        ({"undated": True, "untagged": False}, {first, large}),
        ({"undated": False}, set()),
        ({"duplicate": True}, {second, third}),
        ({"duplicate": False}, {first, large}),
        ({"duplicate": False, "max_width": 1}, {first}),
        ({"sha256": workshop.get(first).sha256}, {first, second, third}),
        ({"min_size": 1000, "min_width": 100, "min_height": 100}, {large}),
        ({"analyzer": "quick", "analysis_status": "queued"}, {first, second, third, large}),
        ({"analyzer": "quick", "analysis_status": "failed"}, set()),
        ({"taken_after": "2020-01-01T00:00:00Z"}, set()),
        (
            {"uploaded_after": "2020-01-01T00:00:00Z", "status": "pending", "tag": ["cat"]},
            {first, large},
        ),
    ]
    with engine(workshop) as bulk:
        for filter, meant in meanings:
            dry = order(workshop, "delete", filter=filter, dry_run=True).json
            assert dry == {"matched": len(meant)}, filter
            done_by(bulk, workshop, "delete", filter=filter)
            assert places(workshop)[1] == meant, filter
            for upload_id in meant:
                workshop.web.removal.restore(upload_id)


def test_a_job_says_what_filter_it_was_given(workshop):
    filter = {"tag": ["cat"], "duplicate": False, "taken_before": "2020-01-01T00:00:00Z"}
    said = filter | {"taken_before": "2020-01-01T00:00:00.000000Z"}
    assert done(workshop, "delete", filter=filter)["parameters"] == {"filter": said}


def test_tags_are_added_and_removed_as_a_human_does(workshop):
    ids = many(workshop, 3)
    full = [str(number) for number in range(100)]
    workshop.app.test_client().patch(f"/api/uploads/{ids[2]}", json={"tags": {"set": full}})
    said = done(workshop, "tag", filter={}, tags=["$a", "b", "b"])
    assert counts(said) == {"selected": 3, "succeeded": 2, "failed": 1}
    assert said["failures"][0]["id"] == ids[2]
    assert "100" in said["failures"][0]["error"]
    assert [workshop.get(i).tags for i in ids[:2]] == [("$a", "b")] * 2
    said = done(workshop, "untag", ids=ids, tags=["b", "7"])
    assert counts(said) == {"selected": 3, "succeeded": 3}
    assert [workshop.get(i).tags for i in ids[:2]] == [("$a",)] * 2
    assert "7" not in workshop.get(ids[2]).tags
    human = workshop.collection.find_one({"_id": ObjectId(ids[0])})["human"]
    assert human == {"tags": {"added": ["$a"], "added_keys": ["$a"], "removed": ["b", "7"]}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"action": "delete"}, "ids"),
        ({"action": "delete", "ids": ["0" * 24], "filter": {}}, "ids"),
        ({"action": "delete", "ids": []}, "ids"),
        ({"action": "delete", "ids": ["x"]}, "ids.0"),
        ({"action": "delete", "filter": {}, "tags": ["a"]}, "tags"),
        ({"action": "tag", "filter": {}}, "tags"),
        ({"action": "tag", "filter": {}, "tags": []}, "tags"),
        ({"action": "burn", "filter": {}}, "action"),
        ({"filter": {}}, "action"),
        ({"action": "delete", "filter": {"stauts": "error"}}, "filter.stauts"),
        ({"action": "delete", "filter": {}, "dryrun": True}, "dryrun"),
        ({"action": "delete", "filter": {}, "dry_run": "yes"}, "dry_run"),
        ({"action": "delete", "filter": {"tag": "cat"}}, "filter.tag"),
        ({"action": "delete", "filter": {"q": '"cat'}}, "filter.q"),
        ({"action": "delete", "filter": {"q": "cat", "prefix": "on"}}, "filter.prefix"),
        ({"action": "delete", "filter": {"min_width": "1"}}, "filter.min_width"),
        ({"action": "delete", "filter": {"analyses": {"x.y": 1}}}, "filter.analyses"),
        ({"action": "delete", "filter": {"duplicate": "true"}}, "filter.duplicate"),
        ({"action": "delete", "filter": {"analyzer": "blip"}}, "filter.analysis_status"),
    ],
)
def test_what_cannot_be_used_is_named(workshop, body, field):
    answer = workshop.app.test_client().post("/api/uploads/bulk", json=body)
    assert answer.status_code == 422, answer.text
    assert any(name.startswith(field) for name in answer.json["errors"]), answer.json
    assert workshop.app.test_client().get("/api/uploads/bulk").status_code == 405


def test_a_job_that_is_cancelled_leaves_the_rest(workshop, monkeypatch):
    monkeypatch.setattr(MoveUploads, "batch_size", 10)
    ids = many(workshop, 40)
    job_id = ordered(workshop, "delete", ids=ids)
    with engine(workshop) as bulk:
        run_until(bulk, lambda: job_of(workshop, job_id).counts.get("selected", 0) >= 10)
        assert workshop.app.test_client().post(f"/api/jobs/{job_id}/cancel").status_code == 202
        run_until(bulk, lambda: job_of(workshop, job_id).ended)
    job = job_of(workshop, job_id)
    assert job.state == "cancelled"
    live, trashed = places(workshop)
    assert len(trashed) == job.counts["succeeded"] == 10
    assert len(live) == job.counts["cancelled"] == 30


def test_a_job_whose_process_is_killed_goes_on_and_counts_each_once(workshop):
    ids = many(workshop, 100)
    for action, place in (("delete", 1), ("restore", 0)):
        job_id = ordered(workshop, action, filter={})
        worker = workshop.worker()
        wait_until(lambda j=job_id: job_of(workshop, j).counts, 60, "a first batch")
        os.kill(worker.children()[1].pid, signal.SIGKILL)
        workshop.collection.database["leases"].delete_many({})  # or it would wait for its end
        job = end_of(workshop, job_id)
        worker.stop()
        assert job.state == "succeeded"
        assert {n: c for n, c in job.counts.items() if c} == {"selected": 100, "succeeded": 100}
        assert places(workshop)[place] == {*ids}


def test_a_batch_that_was_done_and_not_written_down_is_counted(workshop):
    ids = many(workshop, 5)
    job_id = ordered(workshop, "delete", ids=ids)
    for upload_id in ids[:3]:
        workshop.web.removal.remove(upload_id, job=job_id)
    with engine(workshop) as bulk:
        run_until(bulk, lambda: job_of(workshop, job_id).ended)
    job = job_of(workshop, job_id)
    assert (job.counts["succeeded"], job.counts["failed"]) == (5, 0)


def become_empty(folder: Path) -> None:
    """Be as a folder on which no file system is mounted."""
    folder.mkdir()


def answer_with_an_error(folder: Path) -> None:
    """Be as a file system that does not say whether a file is there: no name can be so long."""
    folder.symlink_to("x" * 300)


@pytest.mark.parametrize("be_away", [become_empty, answer_with_an_error])
def test_a_job_waits_while_the_store_is_away(workshop, be_away):
    ids = many(workshop, 5)
    job_id = ordered(workshop, "delete", ids=ids)
    folder = workshop.settings.upload_folder
    with engine(workshop) as bulk:
        folder.rename(folder.with_name("away"))
        be_away(folder)
        run_until(bulk, lambda: job_of(workshop, job_id).state == "running")
        for _ in range(3):
            bulk.run_once()
        if folder.is_symlink():
            folder.unlink()
        else:
            folder.rmdir()
        folder.with_name("away").rename(folder)
        waiting = job_of(workshop, job_id)
        assert (waiting.ended, waiting.counts) == (False, {})
        run_until(bulk, lambda: job_of(workshop, job_id).ended)
    job = job_of(workshop, job_id)
    assert (job.counts["succeeded"], job.counts["failed"]) == (5, 0)
    assert places(workshop) == (set(), {*ids})


def test_what_is_in_the_trash_has_not_failed_when_its_file_is_moved_later(workshop, monkeypatch):
    ids = many(workshop, 3)
    fail_once(monkeypatch, TrashFolder, "put", OSError)
    said = done(workshop, "delete", ids=ids)
    assert counts(said) == {"selected": 3, "succeeded": 3}
    go_on(workshop)
    assert places(workshop) == (set(), {*ids})


def test_a_job_that_cannot_go_on_holds_up_no_other(workshop, monkeypatch):
    workshop.analyzer("it", "return {}")
    ids = many(workshop, 2)
    order = {"analyzer": "it", "select": "all"}
    assert workshop.app.test_client().post("/api/analyses", json=order).status_code == 202
    job_id = ordered(workshop, "tag", ids=ids, tags=["a"])
    monkeypatch.setattr(Selections, "count_states", unavailable)
    with engine(workshop) as bulk:
        run_until(bulk, lambda: job_of(workshop, job_id).ended)
    assert job_of(workshop, job_id).counts["succeeded"] == 2


def test_what_another_process_has_taken_over_in_a_round_is_left_to_it(workshop, monkeypatch):
    """As when the first step of the round takes longer than the lease."""
    workshop.analyzer("it", "return {}")
    ids, leases = many(workshop, 2), workshop.collection.database["leases"]
    order = {"analyzer": "it", "select": "all"}
    assert workshop.app.test_client().post("/api/analyses", json=order).status_code == 202
    job_id = ordered(workshop, "tag", ids=ids, tags=["a"])

    def take_over(*_: Any) -> dict[str, int]:
        later = {"owner": "another", "until": now() + timedelta(hours=1)}
        leases.update_one({"_id": LEASE}, {"$set": later})
        return {}

    with engine(workshop) as bulk:
        monkeypatch.setattr(Selections, "count_states", take_over)
        run_until(bulk, lambda: leases.count_documents({"owner": "another"}))
        monkeypatch.undo()
        assert job_of(workshop, job_id).counts == {}
        leases.delete_one({"_id": LEASE})
        run_until(bulk, lambda: job_of(workshop, job_id).ended)


@pytest.fixture
def three_may_wait(monkeypatch) -> None:
    """So many jobs may wait or run in all."""
    monkeypatch.setattr("clustr.database.jobs.MAX_UNFINISHED", 3)


@pytest.mark.usefixtures("three_may_wait")
def test_more_jobs_than_may_wait_are_refused_until_some_have_ended(workshop):
    workshop.analyzer("it", "return {}")
    unknown = [f"{number:024x}" for number in range(3)]
    ids = [ordered(workshop, "tag", ids=unknown, tags=["a"]) for _ in range(3)]
    client = workshop.app.test_client()
    orders = {
        "/api/uploads/bulk": {"action": "delete", "filter": {}},
        "/api/analyses": {"analyzer": "it", "select": "all"},
    }
    for path, body in orders.items():
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json["type"] == "urn:clustr:problem:too_many_jobs"
        assert answer.json["detail"].startswith("3 jobs wait or run, ")
        assert client.post(path, json={**body, "dry_run": True}).status_code == 200
    assert [job.id for job in workshop.web.database.jobs.unfinished()] == sorted(ids)
    assert client.post(f"/api/jobs/{ids[2]}/cancel").status_code == 202
    with engine(workshop) as bulk:
        run_until(bulk, lambda: not workshop.web.database.jobs.unfinished())
    for path, body in orders.items():
        assert client.post(path, json=body).status_code == 202


@pytest.mark.usefixtures("three_may_wait")
def test_what_a_service_lacks_is_ordered_however_many_jobs_wait(workshop):
    """A back-fill that was refused would hold up the very jobs that are in its way."""
    workshop.analyzer("it", "return {}")
    (upload_id,) = workshop.upload()
    for _ in range(3):
        ordered(workshop, "untag", ids=[upload_id], tags=["a"])
    add_analysis_job(
        workshop.web.database, ReanalysisSelection("it", AnalysisSelection.ALL), "request"
    )
    assert len(workshop.web.database.jobs.unfinished()) == 4
