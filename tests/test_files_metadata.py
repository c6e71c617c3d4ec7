"""`FILES_METADATA`: what originals say of themselves when they leave the service."""

from collections.abc import Iterator

import odd_images
import places
import pytest
from running import Servers
from thumbnail_checks import kept
from werkzeug.test import TestResponse
from workshop import Workshop

from clustr.domain.models import FilesMetadata
from clustr.storage.incoming import INCOMING


@pytest.fixture(scope="module")
def stripping(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Workshop]:
    """Sends originals without metadata."""
    folder = tmp_path_factory.mktemp("stripping")
    settings = {"FILES_METADATA": "strip", "PLUGINS_ENABLED": ""}
    with Workshop(folder, servers, **settings) as workshop:
        yield workshop


def ask(workshop: Workshop, path: str, **headers: str) -> TestResponse:
    return workshop.app.test_client().get(path, headers=headers, buffered=True)


@pytest.mark.parametrize("extension", places.PICTURES)
def test_originals_leave_without_metadata_by_every_address(stripping, extension):
    content = places.PICTURES[extension]()
    [upload_id] = stripping.upload(content)
    paths = [f"/uploads/{upload_id}.{extension}", f"/api/uploads/{upload_id}/file"]
    answers = [ask(stripping, path) for path in paths]
    stripping.web.removal.remove(upload_id)
    answers.append(ask(stripping, f"/api/trash/{upload_id}/file"))
    for answer in answers:
        assert answer.status_code == 200
        assert answer.content_type == answers[0].content_type
        assert not places.says_place(answer.data)
    assert len({answer.data for answer in answers}) == 1
    stripping.web.removal.restore(upload_id)
    with stripping.web.storage.open(f"{upload_id}.{extension}") as original:
        assert original.read() == content


def test_a_copy_is_made_once_and_again_when_it_is_lost(stripping):
    [upload_id] = stripping.upload(places.jpeg())
    path = f"/uploads/{upload_id}.jpg"
    first = ask(stripping, path)
    [copy] = [file for file in kept(stripping) if file.parent.name == upload_id]
    assert copy.read_bytes() == first.data
    written = copy.stat().st_mtime_ns
    assert ask(stripping, path).data == first.data
    assert copy.stat().st_mtime_ns == written
    copy.unlink()
    assert ask(stripping, path).data == first.data
    assert copy.read_bytes() == first.data


def test_a_copy_goes_with_its_upload(stripping):
    [upload_id] = stripping.upload(places.jpeg())
    path = f"/uploads/{upload_id}.jpg"
    assert ask(stripping, path).status_code == 200
    stripping.web.removal.remove(upload_id)
    assert ask(stripping, path).status_code == 404
    assert ask(stripping, f"/api/trash/{upload_id}/file").status_code == 200
    stripping.web.removal.remove(upload_id, permanently=True)
    assert not [file for file in kept(stripping) if file.parent.name == upload_id]
    for gone in (path, f"/api/uploads/{upload_id}/file", f"/api/trash/{upload_id}/file"):
        assert ask(stripping, gone).status_code == 404


def test_a_copy_has_a_tag_of_its_own(stripping):
    [upload_id] = stripping.upload(places.jpeg())
    for path in (f"/uploads/{upload_id}.jpg", f"/api/uploads/{upload_id}/file"):
        answer = ask(stripping, path)
        assert answer.headers["ETag"].endswith('-strip-v1"')
        assert "immutable" not in answer.headers["Cache-Control"]
        again = ask(stripping, path, **{"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
        part = ask(stripping, path, Range="bytes=10-19")
        assert (part.status_code, part.data) == (206, answer.data[10:20])


def test_an_original_whose_metadata_cannot_be_told_from_its_picture_is_refused(stripping):
    tiff = odd_images.tiff((519, 4, 1, 8))
    [upload_id] = stripping.upload(tiff)
    for path in (f"/uploads/{upload_id}.tif", f"/api/uploads/{upload_id}/file"):
        answer = ask(stripping, path)
        assert answer.status_code == 422
        assert answer.json["type"].endswith("metadata_not_removable")
        assert "thumbnail" in answer.json["detail"]
    assert ask(stripping, f"/api/uploads/{upload_id}/thumbnail").status_code == 200


def test_a_store_that_cannot_be_written_sends_copies_all_the_same(stripping):
    [upload_id] = stripping.upload(places.jpeg())
    incoming = stripping.settings.upload_folder / INCOMING
    moved = incoming.rename(incoming.with_name("moved"))
    try:
        answer = ask(stripping, f"/uploads/{upload_id}.jpg")
    finally:
        moved.rename(incoming)
    assert answer.status_code == 200
    assert not places.says_place(answer.data)


def test_metadata_are_sent_by_default(workshop):
    content = places.jpeg()
    [upload_id] = workshop.upload(content)
    assert workshop.settings.files_metadata == FilesMetadata.KEEP
    for path in (f"/uploads/{upload_id}.jpg", f"/api/uploads/{upload_id}/file"):
        assert ask(workshop, path).data == content
    assert not kept(workshop)
