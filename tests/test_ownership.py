"""Whose an upload is: what a key with `own` sees of its own uploads, and of no others."""

import pytest
from callers import Caller, new_photograph
from workshop import Workshop


@pytest.fixture
def alice(workshop: Workshop) -> Caller:
    return Caller(workshop, "alice")


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
