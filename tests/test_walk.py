"""Walking past many uploads over HTTP, while others come and go."""

import random
import threading
from dataclasses import replace
from datetime import timedelta

import photographs
import pytest
from running import wait_until
from workshop import Workshop

from clustr.database import new_id
from clustr.database.documents import to_document

COUNT = 10_000


def multiplied(workshop: Workshop) -> list[str]:
    """The ids of so many uploads, some of which came in the same moment."""
    [first] = map(workshop.get, workshop.upload(photographs.one_pixel()))
    others = []
    for number in range(1, COUNT):
        upload_id, moment = new_id(), first.upload_time - timedelta(seconds=number // 3)
        filename = f"{upload_id}.png"
        own = {"filename": filename, "upload_time": moment, "sha256": f"{number:064x}"}
        others.append(replace(first, id=upload_id, **own))
    workshop.collection.insert_many(map(to_document, others))
    return [first.id, *(other.id for other in others)]


class Changes(threading.Thread):
    """Adds and removes uploads, one of each after the other, until it is stopped.

    Attributes:
        removed: the ids of those that are removed by now.
    """

    def __init__(self, workshop: Workshop, ids: list[str]):
        super().__init__()
        self.removed: list[str] = []
        self._workshop = workshop
        self._ids = random.Random(1).sample(ids, len(ids))
        self._stopped = threading.Event()

    def run(self) -> None:
        client = self._workshop.app.test_client()
        while not self._stopped.is_set():
            self._workshop.upload(photographs.one_pixel())
            upload_id = self._ids[len(self.removed)]
            assert client.delete(f"/api/uploads/{upload_id}").status_code == 204
            self.removed.append(upload_id)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def test_F7c_a_walk_past_10000_sees_each_that_stays_once(own_workshop):
    workshop = own_workshop
    ids = multiplied(workshop)
    client = workshop.app.test_client()
    changes = Changes(workshop, ids)
    changes.start()
    try:
        seen: list[str] = []
        cursor = ""
        while True:
            goal = len(seen) // 500  # At the pace of the changes it would take half a minute.
            wait_until(lambda goal=goal: len(changes.removed) > goal, 60, "changes")
            gone = {*changes.removed}
            page = client.get(f"/api/uploads?limit=100{cursor}").json
            found = [one["id"] for one in page["data"]]
            assert gone.isdisjoint(found)
            seen += found
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
    finally:
        changes.stop()
    assert len(seen) == len(set(seen))
    assert {*ids} - {*changes.removed} <= {*seen}
    assert len(changes.removed) >= 20


@pytest.mark.parametrize("sort", ["name", "-name", "taken_at", "-taken_at"])
def test_a_walk_sees_each_that_keeps_its_place_once_while_others_are_moved(workshop, sort):
    """Those that are moved can come twice, or not at all."""
    client = workshop.app.test_client()
    ids = [workshop.upload(photographs.unique(number=number))[0] for number in range(8)]

    def move(upload_id: str, place: int) -> None:
        said = {"original_name": f"{place:02}.jpg", "taken_at": f"2026-01-{place:02}T00:00:00Z"}
        assert client.patch(f"/api/uploads/{upload_id}", json=said).status_code == 200

    for number, upload_id in enumerate(ids):
        move(upload_id, 10 + number)
    ahead, behind = (1, 28) if sort.startswith("-") else (28, 1)
    seen: list[str] = []
    cursor = ""
    while True:
        page = client.get(f"/api/uploads?sort={sort}&limit=2{cursor}").json
        seen += [one["id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        if len(seen) == 2:
            twice, never = seen[0], ids[0] if sort.startswith("-") else ids[-1]
            move(twice, ahead)
            move(never, behind)
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(seen) == sorted([*({*ids} - {never}), twice])
