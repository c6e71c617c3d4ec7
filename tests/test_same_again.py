"""The same again: retries by `Idempotency-Key`, reuse of bytes, asking beforehand."""

import hashlib
import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import photographs
import pytest
import requests
from calling import FORM, form, get, named, part, total_uploads, upload, uploaded
from flask.testing import FlaskClient

numbers = iter(range(500_000, 600_000))


def new_photograph() -> bytes:
    return photographs.unique("jpg", next(numbers))


def with_key(service: Any, key: str, *contents: bytes) -> requests.Response:
    return upload(service, *map(part, contents), headers={"Idempotency-Key": key})


def test_C4_the_same_request_again_gives_the_first_answer_again(service):
    key, photo, other = str(uuid4()), new_photograph(), new_photograph()
    first = with_key(service, key, photo, b"text", other)
    before = total_uploads(service)
    for _ in range(3):
        again = with_key(service, key, photo, b"text", other)
        assert again.status_code == first.status_code == 201
        assert [each["id"] for each in again.json()["data"]] == [
            each["id"] for each in first.json()["data"]
        ]
        assert again.json()["errors"] == first.json()["errors"]
    assert total_uploads(service) == before


def test_C4_a_lost_answer_can_be_asked_for_again(service):
    """The connection is cut after the request was sent, before the answer is read."""
    key, photo = str(uuid4()), new_photograph()
    request = requests.Request(
        "POST",
        f"{service.url}/api/upload",
        files={"files": ("a.jpg", photo)},
        headers={"Idempotency-Key": key},
    ).prepare()
    address = urlsplit(service.url)
    for _ in range(5):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        connection.request("POST", "/api/upload", request.body, dict(request.headers))
        connection.close()
    answer = upload(service, ("files", ("a.jpg", photo)), headers={"Idempotency-Key": key})
    while answer.status_code == 409:  # One of the five is still at it.
        answer = upload(service, ("files", ("a.jpg", photo)), headers={"Idempotency-Key": key})
    (accepted,) = answer.json()["data"]
    digest = hashlib.sha256(photo).hexdigest()
    known = requests.post(
        f"{service.url}/api/uploads/exists", json={"sha256": [digest]}, timeout=60
    )
    assert known.json()["data"] == {digest: accepted["id"]}
    assert accepted["duplicate_of"] is None


def test_F2c_the_same_key_with_other_files_is_refused(service):
    key = str(uuid4())
    assert with_key(service, key, new_photograph()).status_code == 201
    before = total_uploads(service)
    answer = with_key(service, key, new_photograph())
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["Idempotency-Key"]
    assert total_uploads(service) == before


def test_F2c_the_same_key_at_once_stores_once(service):
    key, photo = str(uuid4()), new_photograph()
    barrier = threading.Barrier(8)

    def send(_: int) -> requests.Response:
        barrier.wait()
        return with_key(service, key, photo)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    accepted = {a.json()["data"][0]["id"] for a in answers if a.status_code == 201}
    accepted |= {with_key(service, key, photo).json()["data"][0]["id"]}
    assert len(accepted) == 1


def send(client: FlaskClient, body: bytes, headers: dict[str, str]) -> list[dict[str, Any]]:
    return client.post("/api/upload", data=body, content_type=FORM, headers=headers).json["data"]


def test_C4_a_file_that_was_refused_at_first_is_not_taken_for_another(app_with, app_workshop):
    """As after a setting was changed; release 0.1 looks for the number among accepted files."""
    photo = new_photograph()
    names = ("a.png", "b.jpg", "c.jpg")
    files = [*zip(names, (photographs.photograph("png"), photo, photo), strict=True)]
    body = form(*((named(name.encode()), content) for name, content in files))
    headers = {"Idempotency-Key": str(uuid4())}
    jpeg_alone, all_formats = (
        app_with(**settings).test_client() for settings in ({"ALLOWED_EXTENSIONS": "jpg"}, {})
    )
    first = [each["id"] for each in send(jpeg_alone, body, headers)]
    stored = app_workshop.collection.find({}, sort=[("_id", 1)])
    assert [each["retry"]["position"] for each in stored] == [0, 1]
    again = send(all_formats, body, headers)
    assert [each["index"] for each in again] == [0, 1, 2]
    assert again[0]["original_filename"] == "a.png"
    assert [each["id"] for each in again[1:]] == first
    assert send(all_formats, body, headers) == again
    assert app_workshop.collection.count_documents({}) == 3


@pytest.mark.parametrize("names", [("a.jpg", "b.jpg"), ("a.jpg", "a.jpg")])
def test_C4_a_file_is_stored_again_when_only_another_with_its_bytes_is_left(workshop, names):
    client, photo = workshop.app.test_client(), new_photograph()
    body = form(*((named(name.encode()), photo) for name in names))
    headers = {"Idempotency-Key": str(uuid4())}
    removed, kept = (each["id"] for each in send(client, body, headers))
    assert client.delete(f"/api/uploads/{removed}").status_code == 204
    again = send(client, body, headers)
    assert again[1]["id"] == kept
    assert again[0]["id"] not in (removed, kept)
    assert send(client, body, headers) == again


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256])
def test_a_key_that_is_none_is_refused(service, key):
    answer = upload(
        service, part(new_photograph()), headers={"Idempotency-Key": key.encode("latin-1")}
    )
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["Idempotency-Key"]


def test_reuse_answers_with_what_is_there_and_keeps_nothing(service):
    photo, other = new_photograph(), new_photograph()
    (first,) = uploaded(service, photo)
    before = total_uploads(service)
    answer = upload(service, part(photo), part(other), part(other), params={"duplicates": "reuse"})
    known, new, same = answer.json()["data"]
    assert known["id"] == first["id"]
    assert new["id"] == same["id"] != first["id"]
    assert total_uploads(service) == before + 1
    assert get(service, f"/uploads/{new['stored_filename']}").content == other


def stored_files(service: Any) -> set[str]:
    """The names of the originals in the store."""
    return {path.name for path in (service.data / "uploads").glob("[0-9a-f]*/*")}


def test_of_six_who_reuse_the_same_new_bytes_at_once_one_stores_them(service):
    reuse = {"duplicates": "reuse"}
    for number in range(4):
        photo, other = new_photograph(), new_photograph()
        sent = [part(photo)] if number % 2 else [part(photo), part(other)]
        barrier = threading.Barrier(6)

        def send(_: int, sent: Any = sent, barrier: Any = barrier) -> list[dict[str, Any]]:
            barrier.wait()
            answer = upload(service, *sent, params=reuse)
            assert answer.status_code == 201, answer.text
            return answer.json()["data"]

        before, files = total_uploads(service), stored_files(service)
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(send, range(6)))
        assert total_uploads(service) == before + len(sent)
        assert len(stored_files(service) - files) == len(sent)
        for place in range(len(sent)):
            assert len({answer[place]["id"] for answer in answers}) == 1
            assert [answer[place]["reused"] for answer in answers].count(False) == 1
        (later,) = uploaded(service, photo)
        assert later["duplicate_of"] == answers[0][0]["id"]
        content = get(service, f"/uploads/{answers[0][0]['stored_filename']}").content
        assert content == photo


def test_each_file_of_an_answer_says_which_of_the_request_it_is(service):
    photo, other = new_photograph(), new_photograph()
    parts = [part(b"text"), part(photo), part(b""), part(other), part(photo)]
    said = upload(service, *parts, params={"duplicates": "reuse"}).json()
    assert [(each["index"], each["reused"]) for each in said["data"]] == [
        *((1, False), (3, False), (4, True))
    ]
    assert [each["index"] for each in said["errors"]] == [0, 2]
    nothing = requests.post(f"{service.url}/api/upload", files={"other": photo}, timeout=60)
    assert [each["index"] for each in nothing.json()["errors"]] == [None]


def removed(service: Any, upload_id: str, query: str = "") -> None:
    path = f"{service.url}/api/uploads/{upload_id}{query}"
    assert requests.delete(path, timeout=60).status_code == 204


def restored(service: Any, upload_id: str) -> None:
    path = f"{service.url}/api/uploads/{upload_id}/restore"
    assert requests.post(path, timeout=60).status_code == 200


def test_a_key_stands_for_what_it_was_last_used_for(service):
    key, photo = str(uuid4()), new_photograph()

    def again() -> str:
        return with_key(service, key, photo).json()["data"][0]["id"]

    first = again()
    removed(service, first)
    restored(service, first)
    assert again() == first
    removed(service, first)
    second = again()
    assert second != first
    removed(service, second)
    restored(service, first)
    third = again()
    assert third not in (first, second)
    restored(service, second)
    assert again() == third
    removed(service, third, "?permanently=1")
    assert again() not in (first, second, third)


def test_a_key_stands_for_each_file_by_itself(service):
    key, photo, other = str(uuid4()), new_photograph(), new_photograph()
    first = [each["id"] for each in with_key(service, key, photo, other).json()["data"]]
    removed(service, first[1])
    second = [each["id"] for each in with_key(service, key, photo, other).json()["data"]]
    assert second[0] == first[0]
    assert second[1] != first[1]
    restored(service, first[1])
    again = with_key(service, key, photo, other).json()["data"]
    assert [each["id"] for each in again] == second


def test_what_to_do_with_duplicates_is_one_of_two(service):
    answer = upload(service, part(new_photograph()), params={"duplicates": "drop"})
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["duplicates"]


def test_a_client_can_ask_what_is_known(service):
    photo = new_photograph()
    (first,) = uploaded(service, photo)
    known, unknown = hashlib.sha256(photo).hexdigest(), "0" * 64
    asked = {"sha256": [known, unknown]}
    answer = requests.post(f"{service.url}/api/uploads/exists", json=asked, timeout=60)
    assert answer.status_code == 200
    assert answer.json() == {"data": {known: first["id"], unknown: None}}


@pytest.mark.parametrize(
    "asked", [{}, {"sha256": []}, {"sha256": ["x"]}, {"sha256": "0" * 64}, {"sha1": []}, []]
)
def test_a_question_that_cannot_be_answered_is_refused(service, asked):
    answer = requests.post(f"{service.url}/api/uploads/exists", json=asked, timeout=60)
    assert answer.status_code == 422
    assert answer.json()["errors"]


def test_B2_a_body_that_is_far_too_large_ends_the_reading(web_with):
    """The rest of the request is not sent before the answer is there."""
    service = web_with(processes=1, MAX_UPLOAD_SIZE="100000")
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.putrequest("POST", "/api/upload")
    connection.putheader("Content-Type", "image/jpeg")
    connection.putheader("Content-Length", str(1_900_000))
    connection.endheaders(bytes(600_000))
    answer = connection.getresponse()
    assert answer.status == 413
    assert b'"too_large"' in answer.read()
    connection.close()
    assert list((service.data / "uploads" / ".incoming").iterdir()) == []


def test_what_is_no_hash_is_told_what_one_is(service):
    asked = {"sha256": ["0" * 64, "ABC"]}
    answer = requests.post(f"{service.url}/api/uploads/exists", json=asked, timeout=60)
    reason = "A SHA-256 is 64 hexadecimal digits, in lower case."
    assert answer.json()["errors"] == {"sha256.1": [reason]}
