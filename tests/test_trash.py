"""The trash: what is removed, restored, and removed for good; whoever is killed meanwhile."""

import io
import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import photographs
import pytest
from bson import ObjectId
from running import moment, wait_until
from workshop import Workshop

from clustr.api.schemas.changes import TrashedSchema, TrashPageSchema
from clustr.api.schemas.uploads import ProblemSchema, UploadSchema
from clustr.components import build_fsck
from clustr.database import TrashStep, now
from clustr.domain.errors import DatabaseUnavailable
from clustr.services.removal import Removal
from clustr.services.thumbnails import VERSION

DELETED = """
from clustr.plugins import hookimpl

@hookimpl
def clustr_upload_deleted(upload):
    with open({path!r}, "a") as file:
        file.write(upload.id + "\\n")
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


def call(workshop: Workshop, method: str, path: str, **options: Any) -> Any:
    return workshop.app.test_client().open(path, method=method, **options)


def remove(workshop: Workshop, upload_id: str, query: str = "") -> int:
    return call(workshop, "DELETE", f"/api/uploads/{upload_id}{query}").status_code


def restore(workshop: Workshop, upload_id: str) -> Any:
    return call(workshop, "POST", f"/api/uploads/{upload_id}/restore")


def ids_in(told: Path) -> list[str]:
    """Of which uploads the plugin was told, in this order."""
    return told.read_text().split() if told.exists() else []


def status(workshop: Workshop, path: str) -> int:
    return call(workshop, "GET", path).status_code


def bytes_of(workshop: Workshop, upload_id: str) -> bytes:
    with call(workshop, "GET", f"/uploads/{upload_id}.jpg") as answer:
        return answer.data


def trash_of(workshop: Workshop) -> Any:
    return workshop.collection.database[f"{workshop.collection.name}_trash"]


def file_of(workshop: Workshop, upload_id: str) -> Path:
    return workshop.settings.upload_folder / upload_id[:4] / f"{upload_id}.jpg"


def trashed_file_of(workshop: Workshop, upload_id: str) -> Path:
    return workshop.settings.upload_folder / ".trash" / upload_id[:4] / f"{upload_id}.jpg"


def whole(workshop: Workshop, upload_id: str) -> str:
    """Where an upload is, which is in one place with all that it has, or in none."""
    key = {"_id": ObjectId(upload_id)}
    records = workshop.collection.count_documents(key), trash_of(workshop).count_documents(key)
    files = file_of(workshop, upload_id).exists(), trashed_file_of(workshop, upload_id).exists()
    assert (records, files) in [
        ((1, 0), (True, False)),
        ((0, 1), (False, True)),
        ((0, 0), (False, False)),
    ], (records, files)
    return {1: "there", 0: "gone"}[records[0]] if not records[1] else "trashed"


def go_on(workshop: Workshop, late: bool = True) -> None:
    """What the reconciler does, when what was begun was begun long ago."""
    if late:
        minute = timedelta(minutes=1)
        for document in trash_of(workshop).find({"trash.claimed_at": {"$exists": True}}):
            moment = {"trash.claimed_at": document["trash"]["claimed_at"] - minute}
            trash_of(workshop).update_one({"_id": document["_id"]}, {"$set": moment})
    workshop.web.removal.resume()


def went_on(workshop: Workshop) -> bool:
    """Whether the reconciler could do all of it."""
    try:
        go_on(workshop)
    except DatabaseUnavailable:
        return False
    return not trash_of(workshop).count_documents({"trash.claim": {"$exists": True}})


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What comes of acts that are begun at the same moment."""
    found: list[Any] = [None] * len(acts)
    begin = threading.Barrier(len(acts))

    def run(number: int) -> None:
        begin.wait()
        found[number] = acts[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_what_is_removed_is_gone_and_comes_back_whole(workshop):
    content = photographs.photograph()
    kept, upload_id = workshop.upload(content, photographs.one_pixel())[::-1]
    path = f"/api/uploads/{upload_id}"
    client = workshop.app.test_client()
    assert client.patch(path, json={"caption": "Mimi", "tags": {"add": ["pet"]}}).status_code == 200
    before = call(workshop, "GET", path).json
    assert remove(workshop, upload_id) == 204
    assert whole(workshop, upload_id) == "trashed"
    assert status(workshop, path) == 404
    assert status(workshop, f"{path}/analyses") == 404
    assert status(workshop, f"/uploads/{upload_id}.jpg") == 404
    assert client.patch(path, json={"caption": "a"}).status_code == 404
    assert [one["id"] for one in call(workshop, "GET", "/api/uploads").json["data"]] == [kept]
    known = client.post("/api/uploads/exists", json={"sha256": [before["sha256"]]}).json["data"]
    assert known == {before["sha256"]: None}
    (again,) = workshop.upload(content)
    assert workshop.get(again).duplicate_of is None
    answer = restore(workshop, upload_id)
    assert answer.status_code == 200, answer.text
    assert not UploadSchema().validate(answer.json)
    assert {**answer.json, "updated_at": before["updated_at"]} == before
    assert moment(answer.json["updated_at"]) > moment(before["updated_at"])
    assert answer.headers["ETag"]
    assert whole(workshop, upload_id) == "there"
    assert bytes_of(workshop, upload_id) == content
    assert "restored_by" not in workshop.collection.find_one({"_id": ObjectId(upload_id)})


def test_what_is_not_there_cannot_be_removed_or_restored(workshop):
    (upload_id,) = workshop.upload()
    assert restore(workshop, upload_id).status_code == 404
    assert remove(workshop, upload_id) == 204
    assert remove(workshop, upload_id) == 404
    for query in ("", "?permanently=true"):
        assert remove(workshop, "0" * 24, query) == 404
        assert remove(workshop, "none", query) == 404
    assert remove(workshop, upload_id, "?permanently=perhaps") == 422
    assert restore(workshop, "0" * 24).status_code == 404
    assert restore(workshop, "none").status_code == 404
    assert whole(workshop, upload_id) == "trashed"


@pytest.mark.parametrize("query", ["?permanently=true", "?permanently=1"])
@pytest.mark.parametrize("trashed", [True, False])
def test_what_is_removed_for_good_is_nowhere(workshop, query, trashed):
    told = workshop.folder / "told"
    workshop.write("told", DELETED.format(path=str(told)))
    (upload_id,) = workshop.upload()
    if trashed:
        assert remove(workshop, upload_id) == 204
        assert not told.exists()
    assert remove(workshop, upload_id, query) == 204
    assert whole(workshop, upload_id) == "gone"
    assert restore(workshop, upload_id).status_code == 404
    assert remove(workshop, upload_id, query) == 404
    wait_until(lambda: ids_in(told) == [upload_id], 5, "that the plugin was told")


def test_without_days_there_is_no_trash(tmp_path, servers):
    with Workshop(tmp_path, servers, TRASH_DAYS="0") as workshop:
        (upload_id,) = workshop.upload()
        assert remove(workshop, upload_id) == 204
        assert whole(workshop, upload_id) == "gone"


def test_the_trash_is_emptied_of_what_is_old(workshop):
    told = workshop.folder / "told"
    workshop.write("told", DELETED.format(path=str(told)))
    ids = workshop.upload(*[photographs.one_pixel()] * 3)
    for upload_id in ids:
        assert remove(workshop, upload_id) == 204
    for upload_id, days in zip(ids, (31, 30, 29), strict=True):
        moved = {"$set": {"trash.at": now() - timedelta(days=days)}}
        trash_of(workshop).update_one({"_id": ObjectId(upload_id)}, moved)
    worker = workshop.worker()
    png = workshop.settings.upload_folder / ".trash"
    wait_until(lambda: trash_of(workshop).count_documents({}) == 1, 20, "an emptier trash")
    wait_until(lambda: len([*png.glob("*/*.png")]) == 1, 5, "an emptier folder")
    assert trash_of(workshop).find_one()["_id"] == ObjectId(ids[2])
    wait_until(lambda: ids_in(told) == ids[:2], 5, "that the plugin was told")
    worker.stop()


def test_the_trash_is_listed_newest_first(workshop):
    ids = workshop.upload(*[photographs.one_pixel()] * 5)
    for upload_id in ids:
        assert remove(workshop, upload_id) == 204
    found, query = [], "?limit=2"
    while True:
        page = call(workshop, "GET", f"/api/trash{query}").json
        assert not TrashPageSchema().validate(page)
        found += [one["id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        query = f"?limit=2&cursor={page['next_cursor']}"
    assert found == ids[::-1]
    for wrong in ("cursor=x", "limit=0", f"cursor={'0' * 24}-fffffffffff", "page=1"):
        assert status(workshop, f"/api/trash?{wrong}") in (200, 422)
    assert status(workshop, "/api/trash?cursor=x") == 422
    plan = (
        trash_of(workshop)
        .find({"trash.step": {"$in": ["there"]}})
        .sort([("trash.at", -1), ("_id", -1)])
    )
    stages = str(plan.hint([("trash.at", -1), ("_id", -1)]).explain()["queryPlanner"])
    assert "'SORT'" not in stages


def test_what_is_in_the_trash_can_be_looked_at(workshop):
    content = photographs.photograph()
    upload_id, other = workshop.upload(content, photographs.one_pixel())
    before = call(workshop, "GET", f"/api/uploads/{upload_id}").json
    assert remove(workshop, upload_id) == remove(workshop, other) == 204
    page = call(workshop, "GET", "/api/trash").json
    assert not TrashPageSchema().validate(page)
    assert page["total"] == 2
    listed = next(each for each in page["data"] if each["id"] == upload_id)
    for name in ("url", "thumbnail_url"):
        with call(workshop, "GET", listed[name]) as answer:
            assert answer.status_code == 200, answer.text
            assert answer.content_type == "image/jpeg"
            assert (answer.data == content) == (name == "url")
            assert answer.headers["ETag"]
    with call(workshop, "GET", listed["url"], headers={"Range": "bytes=0-9"}) as answer:
        assert (answer.status_code, answer.data) == (206, content[:10])
    assert (workshop.settings.upload_folder / listed["file_path"]).read_bytes() == content
    one = call(workshop, "GET", f"/api/trash/{upload_id}").json
    assert not TrashedSchema().validate(one)
    changed = {"url", "thumbnail_url", "file_path", "trashed_at", "expires_at"}
    assert {n: v for n, v in one.items() if n not in changed} == {
        n: v for n, v in before.items() if n not in changed
    }
    assert restore(workshop, upload_id).status_code == 200
    for path in (f"/api/trash/{upload_id}", listed["url"], listed["thumbnail_url"]):
        assert status(workshop, path) == 404
    for path in ("", "/file", "/thumbnail"):
        assert status(workshop, f"/api/trash/{'0' * 24}{path}") == 404


def test_a_thumbnail_of_the_trash_is_made_once_and_removed_for_good(own_workshop, capsys):
    workshop = own_workshop
    (upload_id,) = workshop.upload()
    path = f"/api/uploads/{upload_id}"
    kept = workshop.settings.upload_folder / ".thumbnails" / upload_id[:4] / upload_id

    def thumbnail(of: str) -> bytes:
        with call(workshop, "GET", f"/api/{of}/{upload_id}/thumbnail?size=50") as answer:
            assert answer.status_code == 200, answer.text
            return answer.data

    live = thumbnail("uploads")
    assert remove(workshop, upload_id) == 204
    capsys.readouterr()
    assert [thumbnail("trash") for _ in range(3)] == [live] * 3
    assert capsys.readouterr().err.count("thumbnail_made") == 1
    assert [file.name for file in kept.iterdir()] == [f"trashed-50-v{VERSION}.jpg"]
    assert status(workshop, f"{path}/thumbnail?size=50") == 404
    with build_fsck(workshop.settings, timedelta(0), quick=True) as check:
        assert [*check.findings()] == []
    assert restore(workshop, upload_id).status_code == 200
    assert thumbnail("uploads") == live
    assert remove(workshop, upload_id) == 204
    assert not kept.exists()
    assert thumbnail("trash") == live
    assert remove(workshop, upload_id, "?permanently=true") == 204
    assert not kept.exists()


def test_what_is_listed_of_the_trash_can_be_chosen(workshop):
    workshop.analyzer("quick", "return {'n': 1}")
    (upload_id,) = workshop.upload()
    assert workshop.horse("quick", "run").process.wait(30) == 0
    assert remove(workshop, upload_id) == 204

    def asked(fields: str) -> Any:
        page = call(workshop, "GET", f"/api/trash?fields={fields}").json
        assert not TrashPageSchema().validate(page)
        return page["data"][0]

    assert asked("caption,trashed_at").keys() == {"id", "caption", "trashed_at"}
    assert asked("analyses.results")["analyses"]["quick"]["result"] == {"n": 1}
    assert "result" not in asked("analyses")["analyses"]["quick"]
    assert call(workshop, "GET", f"/api/trash/{upload_id}").json["analyses"]["quick"]["result"]
    assert status(workshop, "/api/trash?fields=nothing") == 422


def test_how_many_are_in_the_trash_is_counted_up_to_a_limit(workshop, monkeypatch):
    monkeypatch.setattr("clustr.database.trash.COUNTED_TOTAL", 3)
    assert call(workshop, "GET", "/api/trash").json["total"] == 0
    ids = workshop.upload(*[photographs.one_pixel()] * 4)
    for total, upload_id in zip((1, 2, 3, None), ids, strict=True):
        assert remove(workshop, upload_id) == 204
        page = call(workshop, "GET", "/api/trash?limit=1").json
        assert page["total"] == total
    further = call(workshop, "GET", f"/api/trash?limit=1&cursor={page['next_cursor']}").json
    assert further["total"] is None


def test_what_is_in_the_trash_says_so_wherever_it_is_asked_for(workshop):
    workshop.analyzer("quick", "return {'n': 1}")
    (upload_id,) = workshop.upload()
    path = f"/api/uploads/{upload_id}"
    assert remove(workshop, upload_id) == 204
    trashed_at = call(workshop, "GET", f"/api/trash/{upload_id}").json["trashed_at"]
    for method, below in [
        *(("GET", ""), ("DELETE", ""), ("PATCH", ""), ("GET", "/file"), ("GET", "/thumbnail")),
        *(("GET", "/analyses"), ("GET", "/analyses/quick"), ("POST", "/analyses/quick")),
    ]:
        options = {"json": {"caption": "a cat"}} if method == "PATCH" else {}
        answer = call(workshop, method, path + below, **options)
        assert answer.status_code == 404, (method, below)
        assert answer.json["type"] == "urn:clustr:problem:in_trash", (method, below)
        assert answer.json["trashed_at"] == trashed_at
        assert f"{path}/restore" in answer.json["detail"]
        assert not ProblemSchema().validate(answer.json)
    assert remove(workshop, upload_id, "?permanently=1") == 204
    answer = call(workshop, "GET", path)
    assert answer.json["type"] == "urn:clustr:problem:not_found"
    assert "trashed_at" not in answer.json


def test_what_is_being_moved_into_the_trash_can_be_looked_at(workshop):
    (upload_id,) = workshop.upload()
    workshop.web.database.trash.add(upload_id, TrashStep.MOVING)
    for below in ("", "/file", "/thumbnail"):
        with call(workshop, "GET", f"/api/trash/{upload_id}{below}") as answer:
            assert answer.status_code == 200, below


def test_in_the_trash_nothing_is_a_duplicate(workshop):
    ids = workshop.upload(*[photographs.one_pixel()] * 2)
    for upload_id in ids[::-1]:
        assert remove(workshop, upload_id) == 204
        assert call(workshop, "GET", f"/api/trash/{upload_id}").json["duplicate_of"] is None
    listed = call(workshop, "GET", "/api/trash").json["data"]
    assert [each["duplicate_of"] for each in listed] == [None, None]


def test_twice_at_once_is_once(workshop):
    for upload_id in workshop.upload(*[photographs.photograph()] * 5):
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
    wait_until(lambda: last in ids_in(told), 5, "that the plugin was told of a later one")
    assert ids_in(told) == [upload_id, last]


def test_a_plugin_that_takes_its_time_holds_up_no_removal(workshop):
    go, told = workshop.folder / "go", workshop.folder / "told"
    workshop.write("told", SLOWLY_DELETED.format(go=str(go), path=str(told)))
    for upload_id in (ids := workshop.upload(*[photographs.one_pixel()] * 2)):
        assert remove(workshop, upload_id, "?permanently=1") == 204
        assert whole(workshop, upload_id) == "gone"
    assert ids_in(told) == []
    go.touch()
    wait_until(lambda: ids_in(told) == ids, 5, "that the plugin was told")


def test_removed_and_restored_and_removed_for_good_at_once(workshop):
    told = workshop.folder / "told"
    workshop.write("told", DELETED.format(path=str(told)))
    gone = []
    for upload_id in workshop.upload(*[photographs.photograph()] * 8):
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
    wait_until(lambda: last in ids_in(told), 5, "that the plugin was told of a later one")
    assert ids_in(told) == [*gone, last]


def test_the_same_bytes_that_arrive_meanwhile_are_an_upload_of_their_own(workshop):
    content = photographs.photograph()
    for _ in range(5):
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
    wait_until(gate.with_suffix(".begun").exists, 20, "the analysis")
    assert remove(workshop, upload_id, "?permanently=1" if "good" in meanwhile else "") == 204
    if meanwhile == "restored":
        assert restore(workshop, upload_id).status_code == 200
        assert workshop.state_of(upload_id, "slow") == "queued"
    gate.touch()
    assert horse.process.wait(30) == 0
    if meanwhile == "removed":
        assert whole(workshop, upload_id) == "trashed"
        assert restore(workshop, upload_id).json["analyses"]["slow"]["status"] == "queued"
    if meanwhile == "removed for good":
        assert whole(workshop, upload_id) == "gone"
        return
    if workshop.state_of(upload_id, "slow") != "succeeded":  # The same horse may have gone on.
        assert workshop.horse("slow", "run2").process.wait(30) == 0
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


def test_a_process_that_is_killed_anywhere_leaves_it_whole(workshop):
    """Beside another that does the same, and once more for each kill."""
    (upload_id,) = workshop.upload()
    seen = set()
    for number in range(6):
        running = [workshop.run("-c", TO_AND_FRO, upload_id) for _ in range(2)]
        for one in running:
            wait_until(lambda one=one: "ready" in one.output(), 20, "a start")
        began = file_of(workshop, upload_id).exists()
        wait_until(lambda b=began: file_of(workshop, upload_id).exists() != b, 20, "a move")
        os.kill(running[number % 2].pid, signal.SIGKILL)
        os.kill(running[1 - number % 2].pid, signal.SIGKILL)
        for one in running:
            one.process.wait()
        # A transaction that was left open is in the way until MongoDB ends it.
        wait_until(lambda: went_on(workshop), 30, "that it is finished")
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
    wait_until(lambda: trashed_file_of(workshop, upload_id).exists(), 20, "the file to be moved")
    wait_until(lambda: trash_of(workshop).find_one()["trash"]["step"] == "there", 5, "the end")
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
