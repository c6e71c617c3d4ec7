"""Copies: of uploads with the same bytes the oldest is the original, also when it is removed."""

import hashlib
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import photographs
import pytest
import requests
from bson import ObjectId
from calling import get, uploaded
from failing import unavailable
from running import wait_until
from test_bulk_uploads import done, places
from trash import at_once, remove, restore
from web_side import WebSide
from workshop import Workshop

from clustr.components import build_fsck
from clustr.database import TrashStep
from clustr.database.duplicates import Duplicates
from clustr.database.search_terms import SearchTerms
from clustr.domain.errors import DatabaseUnavailable
from clustr.services.job_kinds import MoveUploads

numbers = itertools.count(700_000)


def new_photograph() -> bytes:
    return photographs.unique("jpg", next(numbers))


def copies_of(workshop: Workshop, content: bytes, count: int) -> list[str]:
    """So many uploads of the same bytes, each in a request of its own."""
    return [workshop.upload(content)[0] for _ in range(count)]


def names(workshop: Workshop, ids: list[str]) -> list[str | None]:
    """What the uploads that there are of these say that they are duplicates of."""
    there = (workshop.collection.find_one({"_id": ObjectId(each)}) for each in ids)
    return [d["duplicate_of"] and str(d["duplicate_of"]) for d in there if d]


def problems(uploads: list[dict[str, Any]]) -> list[str]:
    """What is wrong in what all uploads there are, on the wire, say of their copies."""
    groups = defaultdict(list)
    for each in sorted(uploads, key=lambda each: (each["upload_time"], each["id"])):
        groups[each["sha256"]].append(each)
    return [
        f"{each['id']} names {each['duplicate_of']}, not {meant}"
        for original, *others in groups.values()
        for each, meant in [(original, None), *((other, original["id"]) for other in others)]
        if each["duplicate_of"] != meant
    ]


def walked(ask: Callable[[str], Any], query: str = "") -> list[dict[str, Any]]:
    """All uploads of a listing."""
    found, cursor = [], ""
    while True:
        page = ask(f"/api/uploads?limit=100{query}{cursor}")
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def listed(workshop: Workshop, query: str = "") -> list[dict[str, Any]]:
    client = workshop.app.test_client()
    return walked(lambda path: client.get(path).json, query)


def ids_of(uploads: list[dict[str, Any]]) -> set[str]:
    return {each["id"] for each in uploads}


def assert_right(workshop: Workshop) -> None:
    """All uploads name their originals, and the filter knows it."""
    everything = listed(workshop)
    assert problems(everything) == []
    duplicates = ids_of([each for each in everything if each["duplicate_of"]])
    assert ids_of(listed(workshop, "&duplicate=true")) == duplicates
    assert ids_of(listed(workshop, "&duplicate=false")) == ids_of(everything) - duplicates


def test_what_is_left_of_copies_is_never_nothing(workshop):
    first, *others = copies_of(workshop, photographs.photograph(), 5)
    assert remove(workshop, first) == 204
    said = done(workshop, "delete", filter={"duplicate": True})
    assert said["counts"]["succeeded"] == 3
    assert places(workshop) == ({others[0]}, {first, *others[1:]})
    assert done(workshop, "delete", filter={"duplicate": True})["counts"]["succeeded"] == 0


def test_duplicates_name_the_oldest_that_there_is(workshop):
    a, b, c, d = copies_of(workshop, photographs.photograph(), 4)
    (other,) = workshop.upload(photographs.one_pixel())
    ids = [a, b, c, d, other]
    assert names(workshop, ids) == [None, a, a, a, None]
    before = workshop.get(b).updated_at
    assert remove(workshop, a) == 204
    assert names(workshop, ids) == [None, b, b, None]
    assert workshop.get(b).updated_at > before
    assert remove(workshop, c) == 204
    assert names(workshop, ids) == [None, b, None]
    assert restore(workshop, a).json["duplicate_of"] is None
    assert names(workshop, ids) == [None, a, a, None]
    assert remove(workshop, a, "?permanently=1") == 204
    assert restore(workshop, c).json["duplicate_of"] == b
    (e,) = workshop.upload(photographs.photograph())
    assert names(workshop, [*ids, e]) == [None, b, b, None, b]
    assert_right(workshop)


def test_all_copies_are_listed_by_their_hash(workshop):
    content = photographs.photograph()
    ids = copies_of(workshop, content, 3)
    workshop.upload(photographs.one_pixel())
    query = f"&sha256={hashlib.sha256(content).hexdigest()}"
    assert [each["id"] for each in listed(workshop, query)] == ids[::-1]
    assert [each["id"] for each in listed(workshop, f"{query}&sort=name&duplicate=true")] == ids[1:]
    client = workshop.app.test_client()
    page = client.get(f"/api/uploads?limit=2{query}").json
    assert page["total"] == 3
    rest = client.get(f"/api/uploads?limit=2{query}&cursor={page['next_cursor']}").json
    assert ids_of(rest["data"]) == {ids[0]}
    assert client.get("/api/uploads?sha256=x").status_code == 422


def test_those_who_remove_different_duplicates_at_once_leave_one(workshop):
    removal = workshop.web.removal
    for _ in range(3):
        ids = copies_of(workshop, new_photograph(), 4)
        assert remove(workshop, ids[0]) == 204
        remove_duplicate = partial(removal.remove, filter={"duplicate": True})
        removed = at_once(*[partial(remove_duplicate, each) for each in ids[1:]])
        assert removed.count(True) == 2
        left = names(workshop, ids)
        assert left.count(None) == 1
        assert_right(workshop)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("query", ["", "?permanently=1"])
def test_a_duplicate_that_arrives_while_its_original_is_removed(workshop, count, query):
    for _ in range(3):
        content = new_photograph()
        first, *others = copies_of(workshop, content, count)
        add = partial(workshop.upload, content)
        at_once(partial(remove, workshop, first, query), add, partial(add, content))
        there = ids_of(listed(workshop))
        assert first not in there
        assert {*others} <= there
        assert_right(workshop)


def test_the_same_new_bytes_at_once_have_one_original(workshop):
    for _ in range(3):
        content, other = new_photograph(), new_photograph()
        one = partial(workshop.upload, content)
        several = partial(workshop.upload, content, other, other)
        at_once(one, one, one, several, several)
        assert_right(workshop)


def test_a_transaction_that_mongodb_aborts_as_too_old_can_be_tried_again(workshop):
    uploads, limit = workshop.collection, "transactionLifetimeLimitSeconds"
    workshop.upload(new_photograph())
    admin = uploads.database.client.admin
    before = admin.command("setParameter", 1, **{limit: 1})["was"]
    slow = {"$where": "sleep(4000) || true"}
    try:
        with pytest.raises(DatabaseUnavailable):
            Duplicates(uploads).in_transaction(
                lambda session: uploads.find_one(slow, session=session)
            )
    finally:
        admin.command("setParameter", 1, **{limit: before})


def test_those_restored_and_removed_at_once_agree(workshop):
    ids = copies_of(workshop, photographs.photograph(), 6)
    for number in range(4):
        gone = ids[number % 2 : 4 : 2]
        for upload_id in gone:
            remove(workshop, upload_id)
        at_once(
            *[lambda id=id: restore(workshop, id) for id in gone],
            *[lambda id=id: remove(workshop, id) for id in ids[4:]],
        )
        assert_right(workshop)
        for upload_id in ids:
            restore(workshop, upload_id)
        assert places(workshop) == ({*ids}, set())
        assert_right(workshop)


def test_a_job_that_removes_originals_leaves_what_they_left(workshop, monkeypatch):
    monkeypatch.setattr(MoveUploads, "batch_size", 1)
    ids = copies_of(workshop, photographs.photograph(), 4)
    said = done(workshop, "delete", filter={"duplicate": False})
    assert said["counts"]["succeeded"] == said["counts"]["selected"] == 1
    assert places(workshop) == ({*ids[1:]}, {ids[0]})
    done(workshop, "delete", filter={"duplicate": False})
    assert places(workshop) == ({*ids[2:]}, {*ids[:2]})


def test_a_filter_is_asked_once_more_at_the_removal(workshop):
    first, second = workshop.upload(photographs.one_pixel(), photographs.photograph())
    workshop.app.test_client().patch(f"/api/uploads/{first}", json={"tags": {"add": ["a"]}})
    removal = workshop.web.removal
    assert removal.remove(first, filter={"tag": ["a"]})
    assert not removal.remove(second, filter={"tag": ["a"]})
    assert places(workshop) == ({second}, {first})


def test_of_very_many_copies_some_are_told_at_a_time(workshop, monkeypatch):
    monkeypatch.setattr("clustr.database.duplicates.MAX_RELINKED", 2)
    monkeypatch.setattr("clustr.database.duplicates.RELINK_BATCH", 2)
    ids = copies_of(workshop, photographs.photograph(), 12)
    for upload_id in ids[:2]:
        assert remove(workshop, upload_id) == 204
        assert_right(workshop)
    assert restore(workshop, ids[0]).status_code == 200
    assert_right(workshop)


def test_very_many_copies_are_read_once_to_link_them(workshop, monkeypatch):
    monkeypatch.setattr("clustr.database.duplicates.MAX_RELINKED", 2)
    monkeypatch.setattr("clustr.database.duplicates.RELINK_BATCH", 2)
    content = photographs.photograph()
    first, *others = workshop.upload(*[content] * 40)
    database = workshop.collection.database
    database.command("profile", 2)
    assert remove(workshop, first) == 204
    database.command("profile", 0)
    profile = [*database["system.profile"].find({"ns": workshop.collection.full_name})]
    database["system.profile"].drop()
    assert sum(each.get("docsExamined", 0) for each in profile) < 10 * len(others)
    assert_right(workshop)


def test_a_move_that_is_done_is_answered_so_whatever_becomes_of_its_copies(workshop, monkeypatch):
    first, *others = copies_of(workshop, photographs.photograph(), 3)
    monkeypatch.setattr(Duplicates, "repair", unavailable)
    assert remove(workshop, first) == 204
    assert places(workshop) == ({*others}, {first})
    assert restore(workshop, first).status_code == 200
    monkeypatch.setattr(SearchTerms, "update", unavailable)
    assert remove(workshop, first) == 204
    assert restore(workshop, first).status_code == 200
    assert places(workshop) == ({first, *others}, set())
    monkeypatch.undo()
    assert workshop.web.database.search_terms.update_due() == 1
    assert_right(workshop)


def test_other_copies_are_not_read_when_a_duplicate_goes_or_comes_back(workshop, monkeypatch):
    first, second, _ = copies_of(workshop, photographs.photograph(), 3)
    monkeypatch.setattr(Duplicates, "_find_wrong", lambda *_: pytest.fail("they were read"))
    assert remove(workshop, second) == 204
    assert restore(workshop, second).json["duplicate_of"] == first
    assert_right(workshop)


def test_an_original_is_removed_while_others_write_to_its_copies(workshop):
    """As workers do when they have many copies to analyze: a transaction that writes to all of them
    would meet one of these writes again and again."""
    content = photographs.photograph()
    ids = [each for _ in range(2) for each in workshop.upload(*[content] * 50)]
    ended = threading.Event()

    def write_on() -> None:
        for number, upload_id in enumerate(itertools.cycle(ids[1:])):
            if ended.is_set():
                return
            here = {"_id": ObjectId(upload_id)}
            workshop.collection.update_one(here, {"$set": {"request_id": f"{number}"}})

    writers = [threading.Thread(target=write_on) for _ in range(2)]
    for each in writers:
        each.start()
    # On a busy machine one of them may be answered with 503 after all; 404 says that it was done.
    try:
        wait_until(lambda: remove(workshop, ids[0]) in (204, 404), 60, "the removal")
        assert places(workshop) == ({*ids[1:]}, {ids[0]})
        wait_until(lambda: restore(workshop, ids[0]).status_code in (200, 404), 60, "its return")
    finally:
        ended.set()
        for each in writers:
            each.join()
    assert places(workshop) == ({*ids}, set())
    assert_right(workshop)


def test_what_died_before_it_looked_again_is_made_good(workshop):
    """A duplicate came while its original was removed, and both processes ended just then."""
    content = photographs.photograph()
    first, second = copies_of(workshop, content, 2)
    trash = workshop.web.database.trash
    trash.add(first, TrashStep.MOVING)
    here = {"_id": ObjectId(second)}
    unseen = {"duplicate_of": ObjectId(first), "facets": ["any", "image/jpeg", "duplicate"]}
    workshop.collection.update_one(here, {"$set": unseen, "$unset": {"original_sha256": ""}})
    assert not workshop.web.removal.remove(second, filter={"duplicate": True})
    minute = timedelta(minutes=1)
    claimed_at = trash.collection.find_one()["trash"]["claimed_at"] - minute
    trash.collection.update_one({}, {"$set": {"trash.claimed_at": claimed_at}})
    workshop.web.removal.resume()
    assert names(workshop, [second]) == [None]


def test_what_goes_between_two_looks_at_it_meets_no_filter(workshop, monkeypatch):
    """Without transactions another can remove an upload that was just seen to meet a filter."""
    [upload_id] = copies_of(workshop, new_photograph(), 1)
    trash = workshop.web.database.trash
    monkeypatch.setattr(trash._duplicates, "find_original", lambda *_: None)
    assert trash.add(upload_id, TrashStep.MOVING, filter={"duplicate": False}) is None


def of_an_older_version(workshop: Workshop) -> list[list[str]]:
    """Groups of copies as older versions have left them; of each some are in the trash."""
    groups = [copies_of(workshop, new_photograph(), 4) for _ in range(6)]
    for first, *_ in groups:
        assert remove(workshop, first) == 204
    workshop.collection.update_many({}, {"$unset": {"original_sha256": "", "copies_changed": ""}})
    for first, *others in groups[:3]:  # They name what is gone.
        here = {"_id": {"$in": [ObjectId(each) for each in others]}}
        named = {"duplicate_of": ObjectId(first), "facets": ["any", "image/jpeg", "duplicate"]}
        workshop.collection.update_many(here, {"$set": named})
    for _, *others in groups[3:5]:  # All of them came at the same moment.
        here = {"_id": {"$in": [ObjectId(each) for each in others]}}
        named = {"duplicate_of": None, "facets": ["any", "image/jpeg", "original"]}
        workshop.collection.update_many(here, {"$set": named})
    return groups


def test_what_an_older_version_says_is_put_right(workshop, monkeypatch):
    monkeypatch.setattr("clustr.database.duplicates.BATCH", 5)
    monkeypatch.setattr("clustr.database.duplicates.MAX_REPAIRED", 1)
    of_an_older_version(workshop)
    assert problems(listed(workshop))
    steps = [*workshop.web.database.duplicates.repair_all()]
    assert sum(steps) == 5
    assert max(steps) == 1
    assert sum(workshop.web.database.duplicates.repair_all()) == 0
    assert_right(workshop)


def test_a_worker_puts_right_what_an_older_version_says(workshop):
    of_an_older_version(workshop)
    worker = workshop.worker()
    wait_until(lambda: not problems(listed(workshop)), 60, "that all name their originals")
    assert_right(workshop)
    worker.stop()


def test_what_an_older_version_says_removes_no_last_copy(workshop):
    groups = of_an_older_version(workshop)
    done(workshop, "delete", filter={"duplicate": True})
    live, _ = places(workshop)
    assert all(live & {*group} for group in groups)
    assert sum(workshop.web.database.duplicates.repair_all())
    assert_right(workshop)


def test_a_record_that_fsck_puts_aside_is_no_original_any_more(workshop):
    first, second, third = copies_of(workshop, photographs.photograph(), 3)
    (workshop.settings.upload_folder / first[:4] / f"{first}.jpg").unlink()
    with build_fsck(workshop.settings, timedelta(0), quick=True) as check:
        assert [check.repair(finding) for finding in check.findings()] == [True]
    assert names(workshop, [first, second, third]) == [None, second]
    assert_right(workshop)


class Beside(threading.Thread):
    """Does something twenty times a second, until it is left or goes wrong."""

    def __init__(self, act: Callable[[], object]):
        super().__init__()
        self._act = act
        self._left = threading.Event()
        self.problem: Exception | None = None
        self.count = 0

    def run(self) -> None:
        while not self._left.wait(0.05):
            try:
                self._act()
                self.count += 1
            except Exception as error:
                self.problem = error
                return

    def __enter__(self) -> "Beside":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self.join()


def test_one_of_the_same_bytes_stays_whatever_is_done_at_once(workshop):
    """Jobs that delete duplicates, two at a time, beside uploads, restores and a purge."""
    service = WebSide(workshop, processes=2)
    workshop.worker()
    contents = [new_photograph() for _ in range(4)]
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]

    def add() -> None:
        for content in contents:
            uploaded(service, content, content)

    def post(path: str, **options: Any) -> requests.Response:
        return requests.post(service.url + path, timeout=30, **options)

    def look() -> None:
        for sha256 in hashes:
            found = get(service, f"/api/uploads?sha256={sha256}&fields=id,duplicate_of").json()
            assert found["total"] >= 1
            known = post("/api/uploads/exists", json={"sha256": [sha256]}).json()["data"]
            assert known[sha256]

    def trashed(is_odd: bool) -> list[str]:
        """Half of what is in the trash: what is purged is never restored."""
        page = get(service, "/api/trash?limit=100").json()["data"]
        return [each["id"] for each in page if int(each["id"][-1], 16) % 2 == is_odd]

    def restore_some() -> None:
        for upload_id in trashed(is_odd=False):
            answer = post(f"/api/uploads/{upload_id}/restore")
            assert answer.status_code in (200, 404, 409), answer.text

    def purge_some() -> None:
        for upload_id in trashed(is_odd=True):
            path = f"{service.url}/api/uploads/{upload_id}?permanently=1"
            assert requests.delete(path, timeout=30).status_code == 204

    def ended(job_id: str) -> Any:
        job = get(service, f"/api/jobs/{job_id}").json()
        return job["state"] not in ("queued", "running") and job

    def delete_duplicates() -> dict[str, Any]:
        order = {"action": "delete", "filter": {"duplicate": True}}
        job = post("/api/uploads/bulk", json=order).json()
        return wait_until(lambda: ended(job["id"]), 60, "the end of the job")

    add()
    jobs = []
    with Beside(look) as looking:
        for _ in range(2):
            acts = (delete_duplicates, delete_duplicates, restore_some, purge_some, add)
            jobs += at_once(*acts)[:2]
    assert looking.problem is None
    assert looking.count
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert [job["failures"] for job in jobs if job["failures"]] == []
    delete_duplicates()
    left = walked(lambda path: get(service, path).json())
    assert sorted(each["sha256"] for each in left) == sorted(hashes)
    assert problems(left) == []
    for each in left:
        content = get(service, f"/uploads/{each['filename']}").content
        assert hashlib.sha256(content).hexdigest() == each["sha256"]
    exit_code, found = service.fsck()
    assert exit_code == 0, found
