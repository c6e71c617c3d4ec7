"""The trash: what is removed is gone, can be looked at, and comes back whole."""

from datetime import timedelta
from typing import Any

import photographs
import pytest
from bson import ObjectId
from running import moment, wait_until
from trash import DELETED, bytes_of, call, ids_in, remove, restore, status, trash_of, whole
from workshop import Workshop

from clustr.api.http.problem_schema import ProblemSchema
from clustr.api.schemas.changes import TrashedSchema, TrashPageSchema
from clustr.api.schemas.uploads import UploadSchema
from clustr.components import build_fsck
from clustr.database import TrashStep, now
from clustr.services.thumbnails import VERSION


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


@pytest.mark.parametrize(
    ("query", "trashed"), [("?permanently=true", True), ("?permanently=1", False)]
)
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
    wait_until(lambda: ids_in(told) == [upload_id], 60, "that the plugin was told")


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
    wait_until(lambda: trash_of(workshop).count_documents({}) == 1, 60, "an emptier trash")
    wait_until(lambda: len([*png.glob("*/*.png")]) == 1, 60, "an emptier folder")
    assert trash_of(workshop).find_one()["_id"] == ObjectId(ids[2])
    wait_until(lambda: ids_in(told) == ids[:2], 60, "that the plugin was told")
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
    assert workshop.horse("quick", "run").process.wait(60) == 0
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
