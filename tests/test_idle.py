"""A service that nothing is asked of writes next to nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Servers
from workshop import Workshop

from clustr import bulk, parts
from clustr.bulk import Bulk
from clustr.catalog.change_watch import ChangeWatch


@pytest.fixture
def workshop(tmp_path: Path, servers: Servers) -> Iterator[Workshop]:
    with Workshop(tmp_path, servers) as workshop:
        workshop.analyzer("says", "return {}")
        yield workshop


@pytest.fixture
def at_once(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bulk]:
    """What counts, which does so again as soon as it has done it."""
    monkeypatch.setattr(bulk, "STATISTICS_EVERY_SECONDS", 0)
    monkeypatch.setattr(bulk, "STATISTICS_PAUSES", 0)
    monkeypatch.setattr(bulk, "COUNTED_AFTER_SECONDS", 0)
    settings = workshop.settings
    made = parts.build_worker(settings, parts.build_host(settings))
    yield made.bulk
    made.bulk.stop()
    made.catalog.close()


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
    assert watch.changed()  # before it began to watch
    assert not watch.changed()
    (upload_id,) = workshop.upload()
    assert watch.changed()
    client = workshop.app.test_client()
    for change in (
        lambda: edit(workshop, upload_id, {"tags": {"set": ["cat"]}}),
        lambda: client.delete(f"/api/uploads/{upload_id}"),
        lambda: client.post(f"/api/uploads/{upload_id}/restore"),
        lambda: workshop.collection.update_one({}, {"$set": {"analyses.0.state": "failed"}}),
    ):
        assert not watch.changed()
        change()
        assert watch.changed()
    for same in ({"$set": {"analyses.0.state": "failed"}}, {"$unset": {"nothing": 1}}):
        workshop.collection.update_many({}, same)
    workshop.collection.database["another"].insert_one({})
    assert not watch.changed()


def test_when_mongodb_cannot_say_it_something_may_have_changed(workshop):
    watch = ChangeWatch(workshop.collection)
    watch.changed()
    watch._token = {"_data": "no token of MongoDB's"}
    assert watch.changed()
    assert watch.changed()
    assert not watch.changed()


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
