"""What a client says of images in the request that brings them."""

import json
from typing import Any

import photographs
import pytest
from bson import ObjectId
from calling import FORM, form, named
from workshop import Workshop

WORDS = [
    {"caption": "Mimi"},
    {"original_name": "mimi.jpg", "taken_at": "2024-07-01T00:30:00+02:00"},
    {"tags": {"add": ["cat", "Sofa", "CAT"], "remove": ["Dog"]}},
    {"tags": {"set": ["cat", "sofa"]}},
    {"tags": {"set": []}, "caption": ""},
    {"caption": None, "tags": None},
]
METADATA = b'Content-Disposition: form-data; name="metadata"'
TIMES = ("updated_at", "edited_at", "words_at", "upload_time", "due_at")


@pytest.fixture(scope="module")
def shared_workshop(shared_workshop: Workshop) -> Workshop:
    shared_workshop.analyzer("says", "return {}")
    return shared_workshop


@pytest.fixture
def workshop(shared_workshop: Workshop) -> Workshop:
    """A workshop without uploads, whose analyzer is there."""
    shared_workshop.empty("says")
    return shared_workshop


def send(workshop: Workshop, metadata: Any, *contents: bytes, **options: Any) -> Any:
    """Upload photographs with what is said of them; text is sent as it is."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    contents = contents or (photographs.photograph(),)
    files = [(named(b"%d.jpg" % n), content) for n, content in enumerate(contents)]
    body = form((METADATA, text.encode()), *files)
    client = workshop.app.test_client()
    return client.post("/api/upload", data=body, content_type=FORM, **options)


def document(workshop: Workshop, upload_id: str) -> dict[str, Any]:
    found = workshop.collection.find_one({"_id": ObjectId(upload_id)})
    assert found
    return found


def stored(workshop: Workshop, upload_id: str) -> dict[str, Any]:
    """The document of an upload without what differs from one upload to the next."""
    found = document(workshop, upload_id)
    kept = {name: value for name, value in found.items() if name not in (*TIMES, "_id")}
    for analysis in kept["analyses"]:
        analysis.pop("due_at")
    if kept["sort_date"] == found["upload_time"]:
        del kept["sort_date"]
    own = ("filename", "request_id", "sha256", "original_sha256", "size", "dimensions")
    return {name: value for name, value in kept.items() if name not in own}


@pytest.mark.parametrize("words", WORDS, ids=str)
def test_words_are_stored_as_an_edit_after_the_upload_stores_them(workshop, words):
    (edited_later,) = workshop.upload(photographs.photograph(width=40))
    (said_at_once,) = send(workshop, words, photographs.photograph(width=41)).json["data"]
    client = workshop.app.test_client()
    workshop.collection.update_one({}, {"$set": {"original_name": "0.jpg"}})
    assert client.patch(f"/api/uploads/{edited_later}", json=words).status_code == 200
    expected = stored(workshop, edited_later)
    if not any(word is not None for word in words.values()):
        expected = {n: v for n, v in expected.items() if n not in ("tags", "tag_keys")}
    assert stored(workshop, said_at_once["id"]) == expected
    answers = [client.get(f"/api/uploads/{i}").json for i in (edited_later, said_at_once["id"])]
    for name in ("caption", "tags", "taken_at", "original_name"):
        assert answers[0][name] == answers[1][name]


def test_words_are_found_at_once_and_win_over_analyzers(workshop):
    (sent,) = send(workshop, {"caption": "Mimi asleep", "tags": {"add": ["cat"]}}).json["data"]
    client = workshop.app.test_client()
    found = client.get("/api/uploads?q=mimi&tag=Cat").json["data"]
    assert [upload["id"] for upload in found] == [sent["id"]]


def test_each_file_of_a_request_has_its_own_words(workshop):
    contents = [photographs.photograph(width=40 + number) for number in range(2)]
    said = [{"caption": "first"}, {"caption": "of no image"}, None]
    answer = send(workshop, said, contents[0], b"no image", contents[1])
    assert [one["detail"] for one in answer.json["errors"]]
    client = workshop.app.test_client()
    captions = [
        client.get(f"/api/uploads/{one['id']}").json["caption"] for one in answer.json["data"]
    ]
    assert captions == ["first", None]


@pytest.mark.parametrize(
    ("metadata", "field", "said"),
    [
        ("{", "metadata", "This is no JSON"),
        ('"cat"', "metadata", "Expected an object for one file"),
        ([{}, {}], "metadata", "2 of them, and the request 1 files"),
        ([{"captoin": "cat"}], "metadata.0.captoin", "did you mean caption"),
        ({"caption": 5}, "metadata.0.caption", "string"),
        ([{"tags": ["cat"]}], "metadata.0.tags", "Expected an object with `set`"),
        ([{"taken_at": "today"}], "metadata.0.taken_at", "Expected"),
        ('[{"caption": "\\ud800"}]', "metadata", "half a character"),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_is_stored(workshop, metadata, field, said):
    answer = send(workshop, metadata)
    assert answer.status_code == 422, answer.text
    assert said in " ".join(answer.json["errors"][field])
    assert workshop.collection.count_documents({}) == 0


def test_an_empty_part_is_as_none(workshop):
    assert send(workshop, "").status_code == 201


def test_words_may_have_so_many_bytes_and_come_once(workshop):
    answer = send(workshop, " " * (1024 * 1024 + 1))
    assert answer.status_code == 413
    assert "The part metadata may have at most 1 MB" in answer.json["detail"]
    body = form((METADATA, b"{}"), (METADATA, b"{}"))
    client = workshop.app.test_client()
    answer = client.post("/api/upload", data=body, content_type=FORM)
    assert answer.status_code == 413
    assert "one part named metadata" in answer.json["detail"]


def test_the_same_request_with_other_words_is_another_request(workshop):
    key = {"Idempotency-Key": "once"}
    sent = [send(workshop, {"caption": "Mimi"}, headers=key) for _ in range(2)]
    assert sent[0].json["data"][0]["id"] == sent[1].json["data"][0]["id"]
    assert send(workshop, {"caption": "Minka"}, headers=key).status_code == 422


def test_an_upload_that_is_reused_keeps_its_words(workshop):
    (first,) = send(workshop, {"caption": "Mimi"}).json["data"]
    answer = send(workshop, {"caption": "Minka"}, query_string={"duplicates": "reuse"})
    assert answer.json["data"][0]["reused"]
    found = workshop.app.test_client().get(f"/api/uploads/{first['id']}").json
    assert found["caption"] == "Mimi"
