"""What the reconciler does with uploads of older versions and plugins that are gone, and asks."""

import threading
from datetime import timedelta

import photographs
import pytest
from bson import ObjectId
from failing import fail_once
from running import wait_until
from trash import remove, trash_of, whole

from clustr.components import WebComponents
from clustr.database import Database, now
from clustr.database.leases import Leases
from clustr.database.local_dates import OLD_INDEXES, LocalDates
from clustr.domain.errors import DatabaseUnavailable, QueueUnavailable
from clustr.domain.models import State
from clustr.queue import Queue
from clustr.services.reconciler import GONE_AFTER, Reconciler
from clustr.worker.rq_worker import claim_when_there

GOOD = photographs.photograph("jpg", "cat")


def reconciler_of(parts: WebComponents, queue: Queue) -> Reconciler:
    services = parts.default_services
    return Reconciler(
        parts.database, parts.storage, queue, parts.plugin_manager, parts.removal, services
    )


def test_uploads_of_an_older_version_are_completed(workshop):
    """They lack what they are listed by."""
    workshop.analyzer("base", "return {}")
    parts, queue = (
        workshop.web,
        Queue(workshop.environment["REDIS_URL"], workshop.settings.redis_prefix),
    )
    old, _ = workshop.upload(GOOD, GOOD)
    whole = workshop.collection.find_one({"_id": ObjectId(old)})
    workshop.collection.update_one({"_id": ObjectId(old)}, {"$unset": {"facets": True}})
    reconciler_of(parts, queue).run_once()

    def completed() -> bool:
        return workshop.collection.find_one({"_id": ObjectId(old)}) == whole

    wait_until(completed, 60, "that it has all")


def test_uploads_of_an_older_version_are_completed_though_mongodb_was_away(workshop, monkeypatch):
    monkeypatch.setattr("clustr.services.reconciler.START_EVERY_SECONDS", 0)
    workshop.upload()
    workshop.collection.create_index([("taken_at", -1)], name=OLD_INDEXES[0])
    workshop.renew()
    queue = Queue(workshop.environment["REDIS_URL"], workshop.settings.redis_prefix)
    reconciler, client = reconciler_of(workshop.web, queue), workshop.app.test_client()
    fail_once(monkeypatch, LocalDates, "add_all_missing", DatabaseUnavailable)

    def prepared() -> bool:
        reconciler.run_once()
        return client.get("/api/uploads?sort=-date").status_code == 200

    wait_until(prepared, 60, "that they are listed by date")
    reconciler.stop()


def test_what_is_old_in_the_trash_goes_though_redis_is_away(workshop):
    workshop.analyzer("base", "return {}")
    _queued, old = workshop.upload(GOOD, GOOD)
    assert remove(workshop, old) == 204
    trash_of(workshop).update_one({}, {"$set": {"trash.at": now() - timedelta(days=31)}})
    queue = Queue("redis://127.0.0.1:1/0", workshop.settings.redis_prefix)
    reconciler = reconciler_of(workshop.web, queue)
    with pytest.raises(QueueUnavailable):
        reconciler.run_once()
    reconciler.stop()
    assert whole(workshop, old) == "gone"


def test_after_an_outage_runs_have_the_time_to_renew_their_leases(workshop, monkeypatch):
    workshop.analyzer("base", "return {}", max_attempts=1)
    [upload_id] = workshop.upload(GOOD)
    ended = timedelta(seconds=-1)
    assert workshop.web.database.analyses.claim("base", 1, "run", 1, ended, State.QUEUED)
    queue = Queue(workshop.environment["REDIS_URL"], workshop.settings.redis_prefix)
    reconciler = reconciler_of(workshop.web, queue)
    fail_once(monkeypatch, Leases, "acquire", DatabaseUnavailable)
    with pytest.raises(DatabaseUnavailable):
        reconciler.run_once()
    reconciler.run_once()
    assert workshop.state_of(upload_id, "base") == "running"
    reconciler.stop()
    reconciler = reconciler_of(workshop.web, queue)  # one that was started within the outage
    monkeypatch.setattr("clustr.worker.rq_worker.FIRST_CLAIM_SECONDS", 0)
    assert not claim_when_there(workshop.settings)
    fail_once(monkeypatch, Database, "installation", DatabaseUnavailable)
    assert claim_when_there(workshop.settings)
    reconciler.note_outage()
    reconciler.run_once()
    assert workshop.state_of(upload_id, "base") == "running"
    monkeypatch.setattr("clustr.services.reconciler.RENEWAL_SECONDS", 0)
    reconciler.run_once()
    assert workshop.state_of(upload_id, "base") == "failed"
    reconciler.stop()


def test_what_waits_for_an_analyzer_that_is_gone_has_an_end(workshop):
    workshop.analyzer("base", "return {}")
    workshop.analyzer("top", "return {}", requires=("base",))
    parts = workshop.web
    queue = Queue(workshop.environment["REDIS_URL"], workshop.settings.redis_prefix)
    old, fresh = workshop.upload(GOOD, GOOD)
    assert workshop.state_of(old, "top") == "waiting"
    long_ago = now() - 2 * GONE_AFTER
    workshop.collection.update_one({"_id": ObjectId(old)}, {"$set": {"updated_at": long_ago}})

    def reconcile() -> None:
        reconciler_of(parts, queue).run_once()
        workshop.collection.database["leases"].delete_many({})

    reconcile()  # All that it waits for is there.
    assert workshop.state_of(old, "top") == "waiting"
    assert workshop.get(old).updated_at == long_ago
    parts.plugin_manager.analyzers.clear()
    reconcile()
    assert workshop.analysis(old, "top").error == "requires base"
    assert workshop.state_of(old, "top") == "skipped"
    assert workshop.state_of(fresh, "top") == "waiting"


def test_a_store_that_cannot_be_cleaned_stops_nothing_else(workshop):
    workshop.analyzer("base", "return {}")
    workshop.analyzer("top", "return {}", requires=("base",))
    queue = Queue(workshop.environment["REDIS_URL"], workshop.settings.redis_prefix)
    [old] = workshop.upload(GOOD)
    long_ago = {"$set": {"updated_at": now() - 2 * GONE_AFTER}}
    workshop.collection.update_one({}, long_ago)
    workshop.web.plugin_manager.analyzers.clear()
    incoming = workshop.settings.upload_folder / ".incoming"
    incoming.rmdir()
    incoming.touch()
    try:
        reconciler_of(workshop.web, queue).run_once()
    finally:
        incoming.unlink()
        incoming.mkdir()
    assert workshop.state_of(old, "top") == "skipped"


def test_a_round_without_work_asks_the_same_however_many_analyzers_there_are(workshop):
    database = workshop.collection.database
    beside = ("(_complete_old_records)", "(_search_services)")
    asked = []
    for number in (1, 5):
        for each in range(number):
            workshop.analyzer(f"says{each}", "return {}")
        workshop.renew()
        queue = Queue(workshop.environment["REDIS_URL"], workshop.settings.redis_prefix)
        reconciler = reconciler_of(workshop.web, queue)
        reconciler.run_once()
        wait_until(lambda: not any(t.name.endswith(beside) for t in threading.enumerate()), 60)
        database.command("profile", 2)
        reconciler.run_once()
        database.command("profile", 0)
        of_uploads = {"ns": workshop.collection.full_name}
        asked.append(database["system.profile"].count_documents(of_uploads))
        database["system.profile"].drop()
        reconciler.stop()
    assert asked == [1, 1]
