"""Records that others have written, or altered: nobody is answered by their word."""

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import photographs
import pytest
from bson import Binary, Decimal128, MinKey, ObjectId, Regex
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from werkzeug.test import TestResponse
from workshop import Workshop

from clustr.components import build_fsck
from clustr.domain.models import State
from clustr.services.fsck import FindingKind
from clustr.supervisor import servers


@pytest.fixture
def workshop(workshop: Workshop) -> Workshop:
    (workshop.folder / "secret.jpg").write_bytes(b"secret")
    return workshop


def alter(workshop: Workshop, upload_id: str, **values: Any) -> None:
    workshop.collection.update_one({"_id": ObjectId(upload_id)}, {"$set": values})


def get(workshop: Workshop, path: str) -> TestResponse:
    return workshop.app.test_client().get(path, buffered=True)


@pytest.mark.parametrize(
    "filename",
    [
        "../../secret.jpg",
        "../secret.jpg",
        "/etc/passwd",
        "{id}.html",
        "{id}.jpg\n",
        "{other}.jpg",
        5,
    ],
)
def test_a_file_name_that_is_none_of_ours_becomes_no_path(workshop, filename):
    upload_id, other = workshop.upload(), workshop.upload(photographs.unique(number=1))
    if isinstance(filename, str):
        filename = filename.format(id=upload_id[0], other=other[0])
    alter(workshop, upload_id[0], filename=filename)
    path = f"/api/uploads/{upload_id[0]}"
    answers = [get(workshop, f"{path}/{below}") for below in ("file", "analyses")]
    answers.append(workshop.app.test_client().delete(f"{path}?permanently=true"))
    for answer in answers:
        assert answer.status_code == 404
        assert answer.get_json()["title"] == "Foreign record"
        assert "clustr fsck names it" in answer.get_json()["detail"]
    assert (workshop.folder / "secret.jpg").read_bytes() == b"secret"


@pytest.mark.parametrize("content_type", ["image/jpeg\r\nX-Evil: yes", "text/html", "é" * 3])
def test_the_type_is_that_of_the_file_name(workshop, content_type):
    (upload_id,) = workshop.upload()
    alter(workshop, upload_id, content_type=content_type)
    answer = get(workshop, f"/api/uploads/{upload_id}/file")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert "X-Evil" not in answer.headers


@pytest.mark.parametrize("name", ["a\r\nX-Evil: yes.jpg", "../../etc/passwd", "x\x00\u202ey.jpg"])
def test_a_name_in_a_header_is_one_that_an_upload_can_have(workshop, name):
    (upload_id,) = workshop.upload()
    alter(workshop, upload_id, original_name=name)
    answer = get(workshop, f"/api/uploads/{upload_id}/file?download=1")
    assert answer.status_code == 200
    assert "X-Evil" not in answer.headers
    assert not set(answer.headers["Content-Disposition"]) & {"/", "\x00", "\r", "\n"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "x\r\nX-Evil: yes"),
        ("sha256", 5),
        ("original_name", None),
        ("upload_time", "today"),
        ("size", "big"),
        ("dimensions", 7),
        ("analyses", [{"name": "x"}]),
        ("status", "fine"),
    ],
)
def test_what_no_upload_has_makes_it_none(workshop, field, value):
    (upload_id,) = workshop.upload()
    alter(workshop, upload_id, **{field: value})
    answer = get(workshop, f"/api/uploads/{upload_id}/file")
    assert (answer.status_code, answer.get_json()["title"]) == (404, "Foreign record")


def test_a_link_in_the_upload_folder_is_not_followed(workshop):
    """Neither by who serves files nor by who makes thumbnails of them or analyzes them."""
    workshop.analyzer("size", "return {'bytes': image.path.stat().st_size}")
    outside = workshop.folder / "outside"
    outside.mkdir()
    (upload_id,) = workshop.upload()
    folder = workshop.settings.upload_folder / upload_id[:4]
    name = f"{upload_id}.jpg"
    for whole_folder in (False, True):
        (folder / name).rename(outside / name)
        if whole_folder:
            folder.rmdir()
            folder.symlink_to(outside)
        else:
            (folder / name).symlink_to(outside / name)
        for path in (
            f"/uploads/{name}",
            *(f"/api/uploads/{upload_id}/{p}" for p in ("file", "thumbnail")),
        ):
            assert get(workshop, path).status_code == 404, path
        if not whole_folder:
            (folder / name).unlink()
            (outside / name).rename(folder / name)
    worker = workshop.worker()
    ended = workshop.end_of(upload_id, "size")
    assert (ended.state, ended.error) == (State.FAILED, f"There is no file {name}.")
    assert worker.alive()


def test_nothing_is_stored_or_removed_through_a_link(workshop):
    (upload_id,) = workshop.upload()
    store = workshop.settings.upload_folder
    outside = workshop.folder / "outside"
    (store / upload_id[:4]).rename(outside)
    (store / upload_id[:4]).symlink_to(outside)
    before = {path.name for path in outside.iterdir()}
    data = {"files": [(io.BytesIO(photographs.photograph()), "photograph.jpg")]}
    answer = workshop.app.test_client().post("/api/upload", data=data)
    assert answer.status_code == 507
    assert {path.name for path in outside.iterdir()} == before
    thumbnails = store / ".thumbnails" / upload_id[:4]
    thumbnails.mkdir(parents=True)
    (thumbnails / upload_id).symlink_to(outside)
    workshop.web.storage.thumbnails.remove(f"{upload_id}.jpg")
    assert {path.name for path in outside.iterdir()} == before


OTHERS: dict[str, Any] = {
    "nothing but an id": {},
    "another id": {"_id": "7d5c2a2e-7a1b-4c55-9b0c-3a5e0a6d1c11", "caption": "an old cat"},
    "the fields of another program": {
        "filename": "cat.jpg",
        "original_name": "cat.jpg",
        "upload_time": "2024-05-01T12:00:00",
        "caption": "an old cat",
        "tags": "cat",
        "status": "completed",
    },
    "numbers": {"caption": 5, "tags": [1, {}], "upload_time": 7, "analyses": 3, "facets": ["any"]},
    "a far time": {"upload_time": DatetimeMS(10**15), "taken_at": DatetimeMS(10**15)},
    "what is no JSON": {"original_name": Decimal128("1"), "caption": Binary(b"\xff"), "sha256": 5},
    "odd types": {"caption": Regex("cat"), "size": MinKey()},
}


@pytest.fixture
def among_others(workshop: Workshop) -> tuple[Workshop, list[str]]:
    """Uploads of ours with records of others between them."""
    ids = [workshop.upload(photographs.unique(number=number))[0] for number in range(3)]
    alter(workshop, ids[1], caption="a new cat")
    whole = workshop.collection.find_one({"_id": ObjectId(ids[0])})
    del whole["_id"], whole["original_sha256"], whole["sha256"]
    for other in OTHERS.values():
        workshop.collection.insert_one({"_id": ObjectId()} | other)
        workshop.collection.insert_one({**whole, "sha256": "0" * 64, **other, "_id": ObjectId()})
    return workshop, ids


@pytest.mark.parametrize(
    "query",
    [
        "",
        "page=1",
        "page=2&limit=1",
        "sort=taken_at",
        "sort=-size",
        "sort=name",
        "sort=upload_time",
        "fields=id,original_name,caption,analyses.results",
        "tag=cat",
        "status=pending",
        "min_width=1",
        "q=cat",
        'q="a new cat"',
        "q=cat -dog&page=2",
    ],
)
def test_a_listing_leaves_out_what_others_have_written(among_others, query):
    workshop, ids = among_others
    answer = get(workshop, f"/api/uploads?{query}")
    assert answer.status_code == 200, answer.text
    assert {one["id"] for one in answer.get_json()["data"]} <= {*ids}


@pytest.mark.parametrize("query", ["sort=-upload_time", "sort=upload_time", "sort=size"])
@pytest.mark.parametrize("limit", [3, 20])
def test_a_walk_among_records_of_others_finds_each_of_ours_once(among_others, query, limit):
    workshop, ids = among_others
    found: list[str] = []
    cursor, pages = "", 0
    while cursor is not None and pages < 20:
        page = get(workshop, f"/api/uploads?{query}&limit={limit}{cursor}").get_json()
        found += [one["id"] for one in page["data"]]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
        pages += 1
    assert sorted(found) == sorted(ids)


def test_everything_else_goes_on_beside_records_of_others(among_others):
    workshop, ids = among_others
    client = workshop.app.test_client()
    for path in ("/api/stats", "/api/tags", "/api/trash", "/api/health"):
        assert get(workshop, path).status_code == 200, path
    for document in workshop.collection.find({}, {"_id": 1}):
        one = str(document["_id"])
        if len(one) != 24 or one in ids:
            continue
        for path in ("", "/file", "/thumbnail", "/analyses"):
            assert get(workshop, f"/api/uploads/{one}{path}").status_code == 404, (document, path)
        for path in ("", "?permanently=true"):
            assert client.delete(f"/api/uploads/{one}{path}").status_code == 404
    whole = workshop.collection.find_one({"_id": ObjectId(ids[0])})
    trash = workshop.web.database.trash.collection
    trash.insert_one({"_id": ObjectId(), "trash": {"at": whole["upload_time"], "step": "there"}})
    assert client.delete(f"/api/uploads/{ids[0]}").status_code == 204
    assert [one["id"] for one in get(workshop, "/api/trash").get_json()["data"]] == [ids[0]]
    assert client.post(f"/api/uploads/{ids[0]}/restore").status_code == 200


def test_a_record_of_others_is_logged_once(own_workshop, capsys):
    workshop = own_workshop
    workshop.upload()
    other = workshop.collection.insert_one({"filename": "cat.jpg"}).inserted_id
    for _ in range(3):
        assert get(workshop, "/api/uploads").status_code == 200
    lines = [line for line in capsys.readouterr().err.splitlines() if "foreign_record" in line]
    assert [json.loads(line)["id"] for line in lines] == [str(other)]


def test_fsck_names_records_of_others_and_leaves_them_alone(among_others):
    workshop, ids = among_others
    auto = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
    records = workshop.collection.with_options(codec_options=auto)
    before = [*records.find()]
    with build_fsck(workshop.settings, timedelta(0), quick=False) as check:
        findings = [*check.findings()]
        assert not any(map(check.repair, findings))
    assert {one.kind for one in findings} == {FindingKind.FOREIGN}
    named = [one.id for one in findings]
    assert sorted(named) == sorted(str(one["_id"]) for one in before if str(one["_id"]) not in ids)
    assert all("not one that Clustr has written: " in one.detail for one in findings)
    assert [*records.find()] == before


def test_the_file_of_a_record_that_was_altered_is_no_orphan(workshop):
    ids = workshop.upload(), workshop.upload(photographs.unique(number=1))
    alter(workshop, ids[0][0], filename="../../secret.jpg")
    with build_fsck(workshop.settings, timedelta(0), quick=False) as check:
        assert [one.kind for one in check.findings()] == [FindingKind.FOREIGN]


PREDECESSORS = {
    "filename": "cat.jpg",
    "original_name": "cat.jpg",
    "upload_time": datetime(2024, 5, 1, tzinfo=UTC),
    "size": 5,
    "content_type": "image/jpeg",
    "caption": "an old cat",
    "status": "completed",
}


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("program", ["gunicorn", "clustr"])
def test_a_foreign_database_is_refused_at_the_start_and_left_as_it_was(
    own_workshop, program, marked
):
    workshop = own_workshop
    workshop.collection.insert_many(dict(PREDECESSORS) for _ in range(3))
    if marked:
        folder = workshop.settings.upload_folder
        folder.mkdir(parents=True)
        (folder / ".clustr-store").touch()
    arguments = {
        "gunicorn": ("-c", "python:clustr.supervisor.gunicorn_settings", "clustr.app:create_app()"),
        "clustr": ("worker",),
    }[program]
    port = str(servers.free_port())
    ended = workshop.run("-m", program, *arguments, PORT=port, WEB_WORKERS="1")
    assert ended.process.wait(60) != 0
    [said] = [line for line in ended.output().splitlines() if line.startswith("clustr: ")]
    assert re.match(
        r"clustr: MONGODB_DATABASE=workshop\d+ is not a database of Clustr's: its collection "
        r"uploads has records that others have written \([0-9a-f]{24}: .+\) and none of Clustr's; "
        r"choose another with MONGODB_DATABASE or MONGODB_UPLOADS_COLLECTION$",
        said,
    )
    assert "Traceback" not in ended.output()
    assert [*workshop.collection.index_information()] == ["_id_"]
    assert workshop.collection.database.list_collection_names() == ["uploads"]


def test_a_store_that_is_not_mounted_is_told_from_a_foreign_database(own_workshop):
    workshop = own_workshop
    workshop.upload()
    (workshop.settings.upload_folder / ".clustr-store").unlink()
    ended = workshop.run("-m", "clustr", "worker")
    assert ended.process.wait(60) != 0
    assert "the database has uploads: it looks as if it is not mounted" in ended.output()
