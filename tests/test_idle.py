"""A service that nothing is asked of writes next to nothing."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import photographs
import pytest
import requests
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from calling import uploaded
from jobs import engine
from pymongo import MongoClient
from running import Up, wait_until
from workshop import Workshop, another

from clustr import components
from clustr.database import change_watch
from clustr.database.change_watch import ChangeWatch
from clustr.database.finished_counts import FinishedCounts
from clustr.services import job_runner
from clustr.services.job_runner import UPLOAD_TOTALS, JobRunner


@pytest.fixture
def workshop(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """One whose MongoDB may take its time to say that nothing has changed."""
    monkeypatch.setattr(change_watch, "LOOK_SECONDS", 60)
    workshop.analyzer("says", "return {}")
    return workshop


@pytest.fixture
def at_once(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobRunner]:
    """What counts, which does so again as soon as it has done it."""
    monkeypatch.setattr(job_runner, "STATISTICS_EVERY_SECONDS", 0)
    monkeypatch.setattr(job_runner, "STATISTICS_PAUSES", 0)
    with engine(workshop) as made:
        yield made


def edit(workshop: Workshop, upload_id: str, change: dict[str, Any]) -> None:
    answer = workshop.app.test_client().patch(f"/api/uploads/{upload_id}", json=change)
    assert answer.status_code == 200, answer.text


def counted(workshop: Workshop) -> dict[str, Any]:
    """All that was counted, as it is in MongoDB."""
    database = workshop.collection.database
    names = ("tags", "tag_spellings", "tallies", "statistics")
    return {name: list(database[name].find()) for name in names}


def test_whatever_changes_an_upload_is_noticed_once(workshop):
    watch = ChangeWatch(workshop.collection)
    assert watch.has_changed()  # before it began to watch
    assert not watch.has_changed()
    (upload_id,) = workshop.upload()
    assert watch.has_changed()
    client = workshop.app.test_client()
    for change in (
        lambda: edit(workshop, upload_id, {"tags": {"set": ["cat"]}}),
        lambda: client.delete(f"/api/uploads/{upload_id}"),
        lambda: client.post(f"/api/uploads/{upload_id}/restore"),
        lambda: workshop.collection.update_one({}, {"$set": {"analyses.0.state": "failed"}}),
    ):
        assert not watch.has_changed()
        change()
        assert watch.has_changed()
    for same in ({"$set": {"analyses.0.state": "failed"}}, {"$unset": {"nothing": 1}}):
        workshop.collection.update_many({}, same)
    workshop.collection.database["another"].insert_one({})
    assert not watch.has_changed()


def test_when_mongodb_cannot_say_it_something_may_have_changed(workshop):
    watch = ChangeWatch(workshop.collection)
    watch.has_changed()
    watch._position = {"_data": "no token of MongoDB's"}
    assert watch.has_changed()
    assert not watch.has_changed()


def test_when_a_look_would_take_long_something_may_have_changed(workshop, monkeypatch):
    watch = ChangeWatch(workshop.collection)
    position = watch.position()
    assert watch.unchanged_until(position)
    monkeypatch.setattr(change_watch, "LOOK_SECONDS", 1e-6)
    assert watch.unchanged_until(position) is None


def test_what_nobody_has_changed_is_not_counted_again(workshop, at_once):
    (upload_id,) = workshop.upload()
    edit(workshop, upload_id, {"tags": {"set": ["cat", "Dog"]}})
    for _ in range(10):
        at_once.run_once()
    before = counted(workshop)
    assert {tag["name"]: tag["count"] for tag in before["tags"]} == {"cat": 1, "Dog": 1}
    for _ in range(10):
        assert not at_once.run_once()
    assert counted(workshop) == before
    edit(workshop, upload_id, {"tags": {"set": ["cat"]}})
    for _ in range(10):
        at_once.run_once()
    assert [tag["name"] for tag in counted(workshop)["tags"]] == ["cat"]


def test_what_another_process_has_counted_is_not_counted_again(workshop, at_once):
    (upload_id,) = workshop.upload()
    for _ in range(10):
        at_once.run_once()
    before = counted(workshop)
    at_once.stop()
    with engine(workshop) as another_runner:
        assert not any(another_runner.run_once() for _ in range(10))
        assert counted(workshop) == before
        edit(workshop, upload_id, {"tags": {"set": ["cat"]}})
        assert another_runner.run_once()
        for _ in range(10):
            another_runner.run_once()
    assert [tag["name"] for tag in counted(workshop)["tags"]] == ["cat"]


def test_what_changes_all_the_time_is_counted_in_turn(workshop, at_once):
    (upload_id,) = workshop.upload()
    analyzers = components.build_plugin_manager(workshop.settings).analyzers
    for number in range(len(analyzers) + 1):
        edit(workshop, upload_id, {"tags": {"set": [f"tag{number}"]}})
        at_once.run_once()
    found = counted(workshop)
    assert {count["_id"] for count in found["statistics"]} == {*analyzers}
    assert len(found["tallies"]) == 1


def test_another_version_of_an_analyzer_is_counted_again(workshop, at_once):
    workshop.upload()
    for _ in range(10):
        at_once.run_once()
    at_once.stop()
    workshop.analyzer("says", "return {}", version=2)
    with engine(workshop) as upgraded:
        for _ in range(10):
            upgraded.run_once()
        assert not upgraded.run_once()
    counts = {d["_id"]: d for d in counted(workshop)["statistics"]}
    assert counts["says"]["stale"] == 0


def test_a_change_by_a_job_in_the_round_of_a_count_is_counted_once(workshop, at_once):
    (upload_id,) = workshop.upload()
    settings = workshop.settings
    analyzers = components.build_plugin_manager(settings).analyzers
    for _ in range(len(analyzers) - 1):
        at_once.run_once()
    job = {"action": "tag", "ids": [upload_id], "tags": ["fox"]}
    answer = workshop.app.test_client().post("/api/uploads/bulk", json=job)
    assert answer.status_code == 202, answer.text
    while not counted(workshop)["tags"]:
        at_once.run_once()
    totals = counted(workshop)["tallies"]
    for _ in range(10):
        at_once.run_once()
    assert counted(workshop)["tallies"] == totals


TAGS = 1_000
# In each of them the one lease that is held is prolonged once, or once more at its edges.
WINDOW_SECONDS = 15
DOCUMENTS_A_MINUTE = 10
OPLOG_BYTES_A_DAY = 50_000_000
RAW = CodecOptions(document_class=RawBSONDocument)


def test_an_idle_service_writes_at_most_ten_documents_a_minute(up: Callable[..., Up]):
    running = up("--workers", "2").wait_until_started()
    contents = [photographs.photograph(width=40 + number) for number in range(5)]
    ids = [one["id"] for one in uploaded(running, *contents)]
    with running.mongodb() as client:
        uploads = client["clustr"]["uploads"]
        wait_until(lambda: uploads.count_documents({"status": "processed"}) == 5, 60, "their ends")
        document = uploads.find_one()
        tags = [[f"tag {number + n}" for n in range(50)] for number in range(0, TAGS, 50)]
        uploads.insert_many(another(document, tags=each, tag_keys=each) for each in tags)
        change = {"tags": {"add": ["one more"]}}
        assert requests.patch(f"{running.url}/api/uploads/{ids[0]}", json=change, timeout=10).ok
        plugins = requests.get(f"{running.url}/api/plugins", timeout=10).json()["data"]
        names = {each["name"] for plugin in plugins for each in plugin["analyzers"]}
        wait_until(lambda: is_all_counted(client, names | {UPLOAD_TOTALS}), 60)
        assert client["clustr"]["tags"].count_documents({}) == TAGS + 1
        # Once in a minute, the reconciler may find something to put right.
        wait_until(
            lambda: is_idle(client, running), 120, "a window in which next to nothing is written"
        )


def is_all_counted(client: MongoClient[dict[str, Any]], names: set[str]) -> bool:
    """Whether the uploads, and the analyses of each analyzer, are counted as they are now."""
    collection = client["clustr"]["finished_counts"]
    counts = FinishedCounts(client["clustr"]["uploads"], collection)
    made = list(collection.find())
    return {one["_id"] for one in made} == names and not any(
        counts.is_outdated(one["_id"], one["form"]) for one in made
    )


def is_idle(client: MongoClient[dict[str, Any]], running: Up) -> bool:
    """By mongod's own counters and log of operations, while the service is asked how it is."""

    def written() -> int:
        """How many documents were, by anybody."""
        counts = client.admin.command("serverStatus")["metrics"]["document"]
        return counts["inserted"] + counts["updated"] + counts["deleted"]

    oplog = client.local.get_collection("oplog.rs", RAW)
    last = oplog.find_one(sort={"$natural": -1})["ts"]
    before, began = written(), time.monotonic()
    while time.monotonic() < began + WINDOW_SECONDS:
        assert requests.get(f"{running.url}/api/health", timeout=10).ok
        time.sleep(1)
    count, minutes = written() - before, (time.monotonic() - began) / 60
    size = sum(len(operation.raw) for operation in oplog.find({"ts": {"$gt": last}}))
    is_small = size / minutes * 24 * 60 <= OPLOG_BYTES_A_DAY
    return is_small and count / minutes <= DOCUMENTS_A_MINUTE
