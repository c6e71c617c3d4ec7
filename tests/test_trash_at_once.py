"""Removing and restoring at the same time, and when a process is killed at any point of it."""

import io
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import photographs
import pytest
from bson import ObjectId
from failing import fail_once
from running import wait_until
from trash import (
    DELETED,
    at_once,
    bytes_of,
    call,
    file_of,
    go_on,
    ids_in,
    remove,
    restore,
    trash_of,
    trashed_file_of,
    went_on,
    whole,
)
from workshop import Workshop

from clustr.components import build_fsck
from clustr.database import TrashStep, now
from clustr.database.trash import Trash
from clustr.domain.errors import DatabaseUnavailable
from clustr.services.removal import Removal

# Removes and restores one upload for ever, in a process of its own, to be killed at any point.
TO_AND_FRO = """
import sys
from clustr import components
from clustr.domain.errors import ClustrError
from clustr.settings import read_settings
settings = read_settings()
manager = components.build_plugin_manager(settings)
removal = components.build_worker(settings, manager).reconciler._removal
print("ready", flush=True)
while True:
    for act in (removal.remove, removal.restore):
        try:
            act(sys.argv[1])
        except ClustrError:
            pass
"""

SLOWLY_DELETED = """
import time
from pathlib import Path
from clustr.plugins import hookimpl

@hookimpl
def clustr_upload_deleted(upload):
    while not Path({go!r}).exists():
        time.sleep(0.01)
    with open({path!r}, "a") as file:
        file.write(upload.id + "\\n")
"""


def test_twice_at_once_is_once(workshop):
    for upload_id in workshop.upload(*[photographs.photograph()] * 3):
        statuses = at_once(*[lambda id=upload_id: remove(workshop, id)] * 3)
        assert sorted(statuses) == [204, 404, 404]
        assert whole(workshop, upload_id) == "trashed"
        answers = at_once(*[lambda id=upload_id: restore(workshop, id)] * 3)
        assert [a.status_code for a in answers].count(200) >= 1
        assert {a.status_code for a in answers} <= {200, 404, 409}
        assert whole(workshop, upload_id) == "there"


def test_removed_for_good_twice_at_once_is_told_once(workshop):
    told = workshop.folder / "told"
    workshop.write("told", DELETED.format(path=str(told)))
    (upload_id,) = workshop.upload()
    statuses = at_once(*[lambda: remove(workshop, upload_id, "?permanently=1")] * 4)
    assert 204 in statuses
    assert set(statuses) <= {204, 404}
    assert whole(workshop, upload_id) == "gone"
    (last,) = workshop.upload()
    assert remove(workshop, last, "?permanently=1") == 204
    wait_until(lambda: last in ids_in(told), 60, "that the plugin was told of a later one")
    assert ids_in(told) == [upload_id, last]


def test_a_plugin_that_takes_its_time_holds_up_no_removal(workshop):
    go, told = workshop.folder / "go", workshop.folder / "told"
    workshop.write("told", SLOWLY_DELETED.format(go=str(go), path=str(told)))
    for upload_id in (ids := workshop.upload(*[photographs.one_pixel()] * 2)):
        assert remove(workshop, upload_id, "?permanently=1") == 204
        assert whole(workshop, upload_id) == "gone"
    assert ids_in(told) == []
    go.touch()
    wait_until(lambda: ids_in(told) == ids, 60, "that the plugin was told")


def test_removed_and_restored_and_removed_for_good_at_once(workshop):
    told = workshop.folder / "told"
    workshop.write("told", DELETED.format(path=str(told)))
    gone = []
    for upload_id in workshop.upload(*[photographs.photograph()] * 5):
        at_once(
            lambda id=upload_id: remove(workshop, id),
            lambda id=upload_id: restore(workshop, id).status_code,
            lambda id=upload_id: remove(workshop, id, "?permanently=1"),
            lambda id=upload_id: restore(workshop, id).status_code,
        )
        if whole(workshop, upload_id) == "gone":
            gone.append(upload_id)
    (last,) = workshop.upload()
    assert remove(workshop, last, "?permanently=1") == 204
    wait_until(lambda: last in ids_in(told), 60, "that the plugin was told of a later one")
    assert ids_in(told) == [*gone, last]


def test_the_same_bytes_that_arrive_meanwhile_are_an_upload_of_their_own(workshop):
    content = photographs.photograph()
    for _ in range(3):
        (upload_id,) = workshop.upload(content)
        _, (other,) = at_once(
            lambda id=upload_id: remove(workshop, id, "?permanently=1"),
            lambda: workshop.upload(content),
        )
        assert whole(workshop, upload_id) == "gone"
        assert whole(workshop, other) == "there"
        assert bytes_of(workshop, other) == content
        assert workshop.get(other).duplicate_of in (None, upload_id)
        assert remove(workshop, other) == 204


def test_a_request_that_is_sent_again_after_a_removal(workshop):
    def upload() -> str:
        files = [(io.BytesIO(photographs.photograph()), "a.jpg")]
        headers = {"Idempotency-Key": "key"}
        answer = call(workshop, "POST", "/api/upload", data={"files": files}, headers=headers)
        return answer.json["data"][0]["id"]

    first = upload()
    assert remove(workshop, first) == 204
    second = upload()
    assert second != first
    assert restore(workshop, first).status_code == 200
    assert upload() == second
    assert whole(workshop, first) == whole(workshop, second) == "there"


SLOW = """
gate = Path({gate!r})
gate.with_suffix(".begun").touch()
while not gate.exists(): time.sleep(0.01)
return {{"n": 1}}
"""


@pytest.mark.parametrize("meanwhile", ["removed", "removed for good", "restored"])
def test_a_result_that_comes_late_changes_nothing(workshop, meanwhile):
    gate = workshop.folder / "gate"
    workshop.analyzer("slow", SLOW.format(gate=str(gate)))
    (upload_id,) = workshop.upload()
    horse = workshop.horse("slow", "run")
    wait_until(gate.with_suffix(".begun").exists, 60, "the analysis")
    assert remove(workshop, upload_id, "?permanently=1" if "good" in meanwhile else "") == 204
    if meanwhile == "restored":
        assert restore(workshop, upload_id).status_code == 200
        assert workshop.state_of(upload_id, "slow") == "queued"
    gate.touch()
    assert horse.process.wait(60) == 0
    if meanwhile == "removed":
        assert whole(workshop, upload_id) == "trashed"
        assert restore(workshop, upload_id).json["analyses"]["slow"]["status"] == "queued"
    if meanwhile == "removed for good":
        assert whole(workshop, upload_id) == "gone"
        return
    if workshop.state_of(upload_id, "slow") != "succeeded":  # The same horse may have gone on.
        assert workshop.horse("slow", "run2").process.wait(60) == 0
    assert workshop.end_of(upload_id, "slow").result == {"n": 1}
    assert whole(workshop, upload_id) == "there"


class Killed(BaseException):
    """Stands for the end of a process at one point."""


@pytest.mark.parametrize("act", ["remove", "restore", "remove for good"])
def test_what_is_left_at_any_point_is_finished(workshop, act):
    """Each thing that is done with files or records is the last, before it or after it."""
    point = 0
    while True:
        (upload_id,) = workshop.upload()
        if act == "restore":
            assert remove(workshop, upload_id) == 204
        if not left_at(workshop, upload_id, act, point):
            break
        place = {"remove": "trashed", "restore": "there", "remove for good": "gone"}[act]
        before = "trashed" if act == "restore" else "there"
        go_on(workshop)
        assert whole(workshop, upload_id) in (place, before), point
        assert trash_of(workshop).count_documents({"trash.claim": {"$exists": True}}) == 0
        assert remove(workshop, upload_id, "?permanently=1") in (204, 404)
        assert whole(workshop, upload_id) == "gone"
        point += 1
    assert point >= 4, point


def left_at(workshop: Workshop, upload_id: str, act: str, point: int) -> bool:
    """Do something up to a point; whether it was left there and not done before."""
    web = workshop.web
    removal = Removal(web.database, web.storage, lambda _: None, 30)
    removal._trash = Stopping(web.database.trash, point)
    removal._storage = Stopping(web.storage, 0, removal._trash)
    try:
        if act == "restore":
            removal.restore(upload_id)
        else:
            removal.remove(upload_id, permanently=act != "remove")
    except Killed:
        return True
    return False


class Stopping:
    """Does what another does, and stops before or after one of its acts."""

    def __init__(self, other: Any, point: int, counting: "Stopping | None" = None):
        self._other = other
        self._point = point
        self._counting = counting or self

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._other, name)
        if name == "trash":
            return Stopping(found, 0, self._counting)
        return self._stopping(found) if callable(found) and name != "is_there" else found

    def _stopping(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def stopping(*arguments: Any) -> Any:
            self._counting.pass_point()
            done = act(*arguments)
            self._counting.pass_point()
            return done

        return stopping

    def pass_point(self) -> None:
        if self._point == 0:
            raise Killed
        self._point -= 1


@pytest.mark.parametrize(
    ("last_act", "query", "place"),
    [("mark_moved", "", "trashed"), ("delete", "?permanently=1", "gone")],
)
def test_a_removal_that_is_done_is_answered_so_and_noted_later(
    workshop, monkeypatch, last_act, query, place
):
    (upload_id,) = workshop.upload()
    fail_once(monkeypatch, Trash, last_act, DatabaseUnavailable)
    assert remove(workshop, upload_id, query) == 204
    assert not file_of(workshop, upload_id).exists()
    assert remove(workshop, upload_id) == 404
    go_on(workshop)
    assert whole(workshop, upload_id) == place
    assert not trash_of(workshop).count_documents({"trash.claim": {"$exists": True}})


def test_a_process_that_is_killed_anywhere_leaves_it_whole(workshop):
    """Beside another that does the same, and once more for each kill."""
    (upload_id,) = workshop.upload()
    seen = set()
    for number in range(4):
        running = [workshop.run("-c", TO_AND_FRO, upload_id) for _ in range(2)]
        for one in running:
            wait_until(lambda one=one: "ready" in one.output(), 60, "a start")
        began = file_of(workshop, upload_id).exists()
        wait_until(lambda b=began: file_of(workshop, upload_id).exists() != b, 60, "a move")
        os.kill(running[number % 2].pid, signal.SIGKILL)
        os.kill(running[1 - number % 2].pid, signal.SIGKILL)
        for one in running:
            one.process.wait()
        # A transaction that was left open is in the way until MongoDB ends it, after a minute.
        wait_until(lambda: went_on(workshop), 180, "that it is finished")
        seen.add(whole(workshop, upload_id))
    assert "gone" not in seen
    assert seen


def test_the_reconciler_finishes_what_was_begun(workshop):
    (upload_id,) = workshop.upload()
    workshop.web.database.trash.add(upload_id, TrashStep.MOVING)  # and then its process died
    assert file_of(workshop, upload_id).exists()
    moment = {"trash.claimed_at": now() - timedelta(minutes=1)}
    trash_of(workshop).update_one({}, {"$set": moment})
    worker = workshop.worker()
    wait_until(lambda: trashed_file_of(workshop, upload_id).exists(), 60, "the file to be moved")
    wait_until(lambda: trash_of(workshop).find_one()["trash"]["step"] == "there", 60, "the end")
    assert whole(workshop, upload_id) == "trashed"
    worker.stop()


def test_what_another_does_is_left_to_him_for_a_while(workshop):
    (upload_id,) = workshop.upload()
    claim = workshop.web.database.trash.add(upload_id, TrashStep.MOVING)
    go_on(workshop, late=False)
    assert file_of(workshop, upload_id).exists()
    assert restore(workshop, upload_id).status_code == 409
    go_on(workshop)
    assert restore(workshop, upload_id).status_code == 200
    workshop.web.removal._move_to_trash(claim)  # He was not dead.
    assert whole(workshop, upload_id) == "there"


def test_without_the_store_nothing_is_removed(workshop):
    (upload_id,) = workshop.upload()
    folder = workshop.settings.upload_folder
    folder.rename(folder.with_name("away"))
    folder.mkdir()
    assert remove(workshop, upload_id) == 507
    assert remove(workshop, upload_id, "?permanently=1") == 507
    folder.rmdir()
    folder.with_name("away").rename(folder)
    assert whole(workshop, upload_id) == "there"


def test_fsck_finds_what_is_out_of_place_in_the_trash(workshop):
    ids = workshop.upload(*[photographs.photograph()] * 6)
    _live, live_moved, _fine, moved, missing, orphaned = ids
    for upload_id in ids[2:]:
        assert remove(workshop, upload_id) == 204
    storage = workshop.web.storage.trash
    storage.put(f"{live_moved}.jpg")
    storage.put_back(f"{moved}.jpg")
    trashed_file_of(workshop, missing).unlink()
    trash_of(workshop).delete_one({"_id": ObjectId(orphaned)})
    with build_fsck(workshop.settings, timedelta(0), quick=False) as check:
        findings = [*check.findings()]
        assert {(str(f.kind), f.id) for f in findings} == {
            ("misplaced", live_moved),
            ("misplaced", moved),
            ("missing", missing),
            ("orphaned", orphaned),
        }
        assert len(findings) == 4
        assert all(check.repair(finding) for finding in findings)
        assert [*check.findings()] == []
        assert not any(check.repair(finding) for finding in findings)
    assert [whole(workshop, upload_id) for upload_id in ids] == [
        *("there", "there", "trashed", "trashed", "gone", "gone")
    ]
