"""Records that others have written, or altered: nobody is answered by their word."""

import io
from collections.abc import Iterator
from typing import Any

import photographs
import pytest
from bson import ObjectId
from werkzeug.test import TestResponse
from workshop import Workshop

from clustr.upload import State


@pytest.fixture
def workshop(tmp_path, servers) -> Iterator[Workshop]:
    with Workshop(tmp_path, servers) as opened:
        (tmp_path / "secret.jpg").write_bytes(b"secret")
        yield opened


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
    workshop.web.storage.forget_thumbnails(f"{upload_id}.jpg")
    assert {path.name for path in outside.iterdir()} == before
