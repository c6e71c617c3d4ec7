"""Whose an upload is: what a key with `own` sees of its own uploads, and of no others."""

import hashlib

import pytest
from callers import Caller, new_photograph
from werkzeug.test import TestResponse
from workshop import Workshop

from clustr.database import own_counts, own_vocabulary


@pytest.fixture
def alice(workshop: Workshop) -> Caller:
    return Caller(workshop, "alice")


@pytest.fixture
def bob(workshop: Workshop) -> Caller:
    return Caller(workshop, "bob")


@pytest.fixture
def everyone(workshop: Workshop) -> Caller:
    """A key that sees all."""
    return Caller(workshop, "everyone", own_only=False)


def test_an_upload_notes_who_brought_it(alice: Caller, workshop: Workshop) -> None:
    upload_id = alice.upload()
    anybody = workshop.app.test_client()
    assert alice.get(f"/api/uploads/{upload_id}").json["uploaded_by"] == "alice"
    [listed] = alice.get("/api/uploads?fields=uploaded_by").json["data"]
    assert listed == {"id": upload_id, "uploaded_by": "alice"}
    assert anybody.get(f"/api/uploads/{upload_id}").json["uploaded_by"] == "alice"


def test_what_was_uploaded_without_a_key_was_brought_by_nobody(workshop: Workshop) -> None:
    [upload_id] = workshop.upload(new_photograph())
    assert workshop.app.test_client().get(f"/api/uploads/{upload_id}").json["uploaded_by"] is None
    assert "uploaded_by" not in workshop.collection.find_one({})


@pytest.mark.parametrize("own_only", [True, False])
def test_an_idempotency_key_counts_for_the_key_that_sent_it(
    workshop: Workshop, own_only: bool
) -> None:
    once = {"headers": {"Idempotency-Key": "one"}}
    alice, bob = (Caller(workshop, name, own_only) for name in ("alice", "bob"))
    first, second = new_photograph(), new_photograph()
    of_alice = alice.upload(first, **once)
    of_bob = bob.upload(second, **once)
    assert of_alice != of_bob
    assert alice.upload(first, **once) == of_alice
    assert bob.upload(second, **once) == of_bob
    client = workshop.app.test_client()
    answer = client.post("/api/upload", data=first, content_type="image/jpeg", **once)
    of_nobody = answer.json["data"][0]["id"]
    assert of_nobody not in (of_alice, of_bob)


def test_an_idempotency_key_of_an_owner_is_apart_from_those_of_earlier_keys_of_that_name(
    workshop: Workshop,
) -> None:
    once = {"headers": {"Idempotency-Key": "one"}}
    content = new_photograph()
    before = Caller(workshop, "camera", own_only=False).upload(content, **once)
    camera = Caller(workshop, "camera")
    upload_id = camera.upload(content, **once)
    assert upload_id != before
    assert camera.upload(content, **once) == upload_id
    assert Caller(workshop, "camera", own_only=False).upload(content, **once) == before


def test_a_receipt_of_an_owner_counts_also_in_its_earlier_form(
    alice: Caller, workshop: Workshop
) -> None:
    once = {"headers": {"Idempotency-Key": "one"}}
    content = new_photograph()
    upload_id = alice.upload(content, **once)
    earlier = {"$set": {"retry.key": "alice\none"}}
    workshop.collection.update_one({"owner": "alice"}, earlier)
    assert alice.upload(content, **once) == upload_id


def test_a_key_with_own_sees_and_changes_only_what_its_name_brought(
    alice: Caller, bob: Caller, everyone: Caller
) -> None:
    of_alice, of_bob = alice.upload(), bob.upload()
    here = f"/api/uploads/{of_alice}"
    assert ids(alice.get("/api/uploads")) == [of_alice]
    assert ids(bob.get("/api/uploads")) == [of_bob]
    assert ids(everyone.get("/api/uploads")) == [of_bob, of_alice]
    assert bob.get(here).status_code == 404
    assert bob.ask("PATCH", here, json={"caption": "mine"}).status_code == 404
    assert bob.ask("DELETE", f"{here}?permanently=true").status_code == 404
    assert alice.get(here).json["caption"] is None
    assert everyone.ask("PATCH", here, json={"caption": "seen"}).status_code == 200
    assert alice.get(here).json["caption"] == "seen"
    assert alice.ask("DELETE", here).status_code == 204
    assert bob.get(here).json["type"] == "urn:clustr:problem:not_found"
    assert ids(alice.get("/api/trash")) == [of_alice]
    assert ids(bob.get("/api/trash")) == []
    assert bob.post(f"{here}/restore").status_code == 404
    assert alice.post(f"{here}/restore").status_code == 200


def test_what_nobody_brought_is_for_those_who_see_all(
    alice: Caller, everyone: Caller, workshop: Workshop
) -> None:
    [upload_id] = workshop.upload(new_photograph())
    assert ids(alice.get("/api/uploads")) == []
    assert alice.get(f"/api/uploads/{upload_id}").status_code == 404
    assert ids(everyone.get("/api/uploads")) == [upload_id]


def test_files_and_thumbnails_are_for_their_owner(alice: Caller, bob: Caller) -> None:
    upload_id = alice.upload()
    paths = [f"/api/uploads/{upload_id}/file", f"/uploads/{upload_id}.jpg"]
    paths.append(f"/api/uploads/{upload_id}/thumbnail")
    for path in paths:
        assert alice.get(path).status_code == 200, path
        assert bob.get(path).status_code == 404, path


def test_copies_of_others_are_no_duplicates(alice: Caller, bob: Caller, everyone: Caller) -> None:
    content = new_photograph()
    first, second = everyone.upload(content), alice.upload(content)
    third = bob.upload(content)
    fourth = bob.upload(content)
    named = {one["id"]: one["duplicate_of"] for one in everyone.get("/api/uploads").json["data"]}
    assert named == {first: None, second: None, third: None, fourth: third}
    assert ids(bob.get("/api/uploads?duplicate=true")) == [fourth]
    assert ids(bob.get("/api/uploads?duplicate=false")) == [third]
    assert alice.ask("DELETE", f"/api/uploads/{second}?permanently=true").status_code == 204
    assert bob.ask("DELETE", f"/api/uploads/{third}").status_code == 204
    assert bob.get(f"/api/uploads/{fourth}").json["duplicate_of"] is None
    assert everyone.upload(content) != first
    assert ids(everyone.get("/api/uploads?duplicate=false")) == [fourth, first]


def test_the_bytes_of_others_are_not_known(alice: Caller, bob: Caller) -> None:
    content = new_photograph()
    upload_id = alice.upload(content)
    sha256 = hashlib.sha256(content).hexdigest()
    asked = {"sha256": [sha256]}
    assert alice.post("/api/uploads/exists", asked).json["data"] == {sha256: upload_id}
    assert bob.post("/api/uploads/exists", asked).json["data"] == {sha256: None}
    of_bob = bob.upload(content, path="/api/upload?duplicates=reuse")
    assert of_bob != upload_id
    assert bob.upload(content, path="/api/upload?duplicates=reuse") == of_bob
    assert ids(bob.get(f"/api/uploads?sha256={sha256}")) == [of_bob]


def test_copies_stay_apart_when_the_links_are_repaired(
    alice: Caller, bob: Caller, everyone: Caller, workshop: Workshop
) -> None:
    content = new_photograph()
    originals = {caller.upload(content) for caller in (alice, bob, everyone)}
    copies = {alice.upload(content), everyone.upload(content)}
    broken = {"$unset": {"original_sha256": ""}, "$set": {"duplicate_of": None}}
    workshop.collection.update_many({}, broken)
    assert sum(workshop.web.database.duplicates.repair_all()) == 2
    assert {*ids(everyone.get("/api/uploads?duplicate=true"))} == copies
    assert {*ids(everyone.get("/api/uploads?duplicate=false"))} == originals


def test_a_cursor_of_another_key_is_refused(alice: Caller, bob: Caller, everyone: Caller) -> None:
    for caller in (alice, alice, alice, bob, bob, everyone):
        caller.upload(name="beach.jpg")
    for query in ("limit=1", "limit=1&q=beach", "limit=1&sort=size"):
        path = f"/api/uploads?{query}"
        cursor = alice.get(path).json["next_cursor"]
        assert len(ids(alice.get(f"{path}&cursor={cursor}"))) == 1
        for other in (bob, everyone):
            answer = other.get(f"{path}&cursor={cursor}")
            assert answer.status_code == 422
            assert list(answer.json["errors"]) == ["cursor"]


def ids(answer: TestResponse) -> list[str]:
    assert answer.status_code == 200, answer.json
    return [one["id"] for one in answer.json["data"]]


def test_what_is_counted_is_ones_own(alice: Caller, bob: Caller, workshop: Workshop) -> None:
    first, second = alice.upload(name="harbor.jpg"), alice.upload(name="harbor too.jpg")
    bob.upload(name="harbor.jpg")
    tag(alice, first, "Café", "boat")
    tag(alice, second, "café")
    assert counts(alice.get("/api/tags")) == {"Café": 2, "boat": 1}
    assert counts(alice.get("/api/tags?prefix=caf")) == {"Café": 2}
    assert counts(alice.get("/api/tags?prefix=BO&limit=1")) == {"boat": 1}
    assert counts(bob.get("/api/tags")) == {}
    tag(alice, second, "boat")
    assert counts(alice.get("/api/tags?limit=1")) == {"boat": 2}
    suggested = {s["value"]: s["count"] for s in alice.get("/api/suggest?q=har").json["data"]}
    assert suggested["harbor"] == 2
    suggested = {s["value"]: s["count"] for s in alice.get("/api/suggest?q=tag:").json["data"]}
    assert suggested == {"tag:boat": 2, "tag:Café": 1}
    stats = alice.get("/api/stats").json
    assert (stats["uploads"], stats["statuses"]) == (2, {"processed": 2})
    assert stats["bytes"] == sum(d["size"] for d in workshop.collection.find({"owner": "alice"}))
    assert alice.get("/api/uploads").json["total"] == 2
    assert alice.get("/api/uploads?q=harb&prefix=on").json["total"] == 2
    assert bob.get("/api/uploads?q=harbor").json["total"] == 1


def test_of_more_uploads_than_are_counted_the_newest_are(
    alice: Caller, bob: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(own_counts.NEWEST[1], "$limit", 2)
    monkeypatch.setattr(own_counts, "COUNTED_TOTAL", 2)
    for name in ("oldest", "older", "newest"):
        tag(alice, alice.upload(), name)
    bob.upload()
    assert counts(alice.get("/api/tags")) == {"newest": 1, "older": 1}
    assert alice.get("/api/stats").json["uploads"] == 2
    page = alice.get("/api/uploads?limit=1").json
    assert (page["total"], page["total_is_estimate"]) == (None, True)
    assert bob.get("/api/uploads?limit=1").json["total"] == 1


def test_a_beginning_finds_also_words_that_are_not_counted(
    alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_vocabulary, "MAX_ENTRIES", 1)
    both = {alice.upload(name="harbor.jpg"), alice.upload(name="harvest.jpg")}
    assert {*ids(alice.get("/api/uploads?q=har&prefix=on"))} == both


def tag(caller: Caller, upload_id: str, *tags: str) -> None:
    edit = {"tags": {"set": [*tags]}}
    assert caller.ask("PATCH", f"/api/uploads/{upload_id}", json=edit).status_code == 200


def counts(answer: TestResponse) -> dict[str, int]:
    assert answer.status_code == 200, answer.json
    return {one["name"]: one["count"] for one in answer.json["data"]}
