"""What becomes of thumbnails that are kept."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import photographs
import pytest
from bson import ObjectId
from running import wait_until
from thumbnail_checks import UNKNOWN_ID, kept
from workshop import Workshop

from clustr.components import build_fsck
from clustr.domain.errors import NotFound
from clustr.services.fsck import FindingKind


@pytest.fixture
def workshop(tmp_path, servers):
    with Workshop(tmp_path, servers, PLUGINS_ENABLED="") as opened:
        yield opened


def ask(workshop: Workshop, upload_id: str, accept: str = "*/*") -> tuple[int, bytes]:
    client = workshop.app.test_client()
    answer = client.get(f"/api/uploads/{upload_id}/thumbnail", headers={"Accept": accept})
    with answer:
        return answer.status_code, answer.data


def test_the_database_is_not_asked_while_the_original_is_in_its_place(workshop):
    [upload_id] = workshop.upload(photographs.photograph())
    workshop.collection.delete_one({"_id": ObjectId(upload_id)})
    status, content = ask(workshop, upload_id)
    assert ask(workshop, upload_id) == (status, content) == (200, content)
    workshop.web.storage.remove(f"{upload_id}.jpg")
    assert ask(workshop, upload_id, "image/webp")[0] == 404


def test_forgetting_removes_all_thumbnails_of_an_upload_and_no_others(workshop):
    one, other = workshop.upload(photographs.photograph(), photographs.photograph("png"))
    for upload_id in (one, other):
        for accept in ("*/*", "image/webp"):
            assert ask(workshop, upload_id, accept)[0] == 200
    storage = workshop.web.storage
    assert storage.thumbnails.remove(f"{one}.jpg")
    assert {path.parent.name for path in kept(workshop)} == {other}
    assert len(kept(workshop)) == 2
    assert not storage.thumbnails.remove(f"{one}.jpg")


def test_none_outlives_its_original_whatever_happens_at_once(workshop):
    """The original goes while thumbnails are made: what is kept in the end is nothing."""
    storage = workshop.web.storage
    outcomes: Counter[int] = Counter()
    for number in range(6):
        [upload_id] = workshop.upload(photographs.unique(number=number, width=900, height=700))
        with ThreadPoolExecutor(4) as threads:
            accepts = ("*/*", "image/webp", "image/avif", "*/*")
            asked = [threads.submit(ask, workshop, upload_id, accept) for accept in accepts]
            if number % 2:
                wait_until(lambda: kept(workshop), 60, "the first of them")
            storage.remove(f"{upload_id}.jpg")
            storage.thumbnails.remove(f"{upload_id}.jpg")
            outcomes.update(each.result()[0] for each in asked)
        assert kept(workshop) == []
        assert ask(workshop, upload_id)[0] == 404
    assert outcomes.keys() <= {200, 404}


def test_fsck_removes_those_of_no_upload(workshop):
    one, other = workshop.upload(photographs.photograph(), photographs.photograph("png"))
    for upload_id in (one, other):
        assert ask(workshop, upload_id)[0] == 200
    workshop.collection.delete_one({"_id": ObjectId(one)})
    workshop.web.storage.remove(f"{one}.jpg")
    with build_fsck(workshop.settings, timedelta(hours=1), quick=True) as check:
        assert list(check.findings()) == []
    with build_fsck(workshop.settings, timedelta(), quick=True) as check:
        [found] = check.findings()
        assert (found.kind, found.id) == (FindingKind.THUMBNAILS, one)
        assert check.repair(found)
        assert not check.repair(found)
        assert list(check.findings()) == []
    assert {path.parent.name for path in kept(workshop)} == {other}


def test_a_store_that_cannot_be_written_still_answers(workshop):
    """A file stands where a folder should be: nothing can be kept, whoever runs the test."""
    before, after = workshop.upload(photographs.photograph(), photographs.photograph("png"))
    status, content = ask(workshop, before)
    assert status == 200
    folder = workshop.settings.upload_folder
    aside = (folder / ".incoming").rename(folder.parent / "aside")
    (folder / ".incoming").touch()
    assert ask(workshop, before) == (200, content)
    assert ask(workshop, before, "image/webp")[0] == 200
    assert ask(workshop, after)[0] == 200
    assert len(kept(workshop)) == 1
    (folder / ".incoming").unlink()
    aside.rename(folder / ".incoming")
    assert ask(workshop, after)[0] == 200
    assert len(kept(workshop)) == 2


def test_a_store_that_went_away_is_503_and_nothing_is_written_there(workshop):
    [upload_id] = workshop.upload(photographs.photograph())
    folder = workshop.settings.upload_folder
    assert workshop.app.test_client().get("/").status_code == 200
    aside = folder.rename(folder.with_name("unmounted"))
    folder.mkdir()
    assert ask(workshop, upload_id)[0] == 503
    assert list(folder.iterdir()) == []
    folder.rmdir()
    aside.rename(folder)
    assert ask(workshop, upload_id)[0] == 200


def test_what_is_not_there_is_not_found(workshop):
    with pytest.raises(NotFound):
        workshop.web.thumbnails.get(UNKNOWN_ID, 300, "jpg")
    assert kept(workshop) == []
