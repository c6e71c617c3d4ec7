"""The audit log: who did what, when it is kept, and what is not done without it."""

import os
import pwd
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import photographs
import pytest
from flask import Flask
from flask.testing import FlaskClient
from running import moment
from test_keys import bearer
from workshop import Workshop

from clustr.api.http.request_context import EXTENSION
from clustr.database import now


@pytest.fixture
def app(app_with: Callable[..., Flask]) -> Flask:
    return app_with(AUTH="keys", PROXY_HOPS="1", AUDIT_DAYS="7")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client with a key that may do everything."""
    client = app.test_client()
    scopes = ("uploads:read", "uploads:write", "uploads:delete", "analyses:run", "admin")
    key = app.extensions[EXTENSION].key_making.create("operator", scopes)
    client.environ_base |= {
        "HTTP_AUTHORIZATION": bearer(key.text)["Authorization"],
        "HTTP_X_FORWARDED_FOR": "192.0.2.17",
    }
    return client


def upload(client: FlaskClient) -> str:
    headers = {"Content-Type": "image/jpeg"}
    answer = client.post("/api/upload", data=photographs.photograph(), headers=headers)
    stored: str = answer.json["data"][0]["id"]
    return stored


def entries(client: FlaskClient, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/api/audit{query}").json["data"]
    return found


def test_who_removed_what_is_known(client):
    one = upload(client)
    client.delete(f"/api/uploads/{one}", headers={"X-Request-ID": "the-first"})
    client.post(f"/api/uploads/{one}/restore")
    client.delete(f"/api/uploads/{one}?permanently=true")
    client.delete(f"/api/uploads/{one}")
    listed = entries(client)
    assert [(entry["action"], entry["outcome"]) for entry in listed] == [
        ("trash_upload", "failed"),
        ("purge_upload", "done"),
        ("restore_upload", "done"),
        ("trash_upload", "done"),
    ]
    first = listed[-1]
    assert abs(moment(first.pop("at")) - now()) < timedelta(minutes=5)
    assert first.pop("id")
    assert first == {
        "action": "trash_upload",
        "outcome": "done",
        "key": "operator",
        "address": "192.0.2.17",
        "request_id": "the-first",
        "upload_id": one,
        "details": {},
    }


def test_who_ordered_a_job_is_known(client):
    order = {"action": "tag", "tags": ["a"], "ids": [upload(client)]}
    job = client.post("/api/uploads/bulk", json=order).json["id"]
    client.post("/api/uploads/bulk", json=order | {"dry_run": True})
    client.post(f"/api/jobs/{job}/cancel")
    cancelled, ordered = entries(client)
    assert (ordered["action"], ordered["details"]) == ("order_job", {"job_id": job, "kind": "tag"})
    assert (cancelled["action"], cancelled["details"]) == ("cancel_job", {"job_id": job})
    looks = client.post("/api/analyses", json={"analyzer": "dimensions", "select": "all"})
    assert entries(client, "?action=order_job")[0]["details"] == {
        "job_id": looks.json["id"],
        "kind": "analyze",
    }


def test_who_made_and_revoked_keys_is_known_and_no_key_is(client, app_workshop):
    limits = {"rate": "9/min", "bytes_per_day": 1000, "expires_at": "2099-01-01T00:00:00Z"}
    asked = {"name": "robot", "scopes": ["own", "uploads:read"], **limits}
    new = client.post("/api/keys", json=asked).json
    newer = client.post("/api/keys/robot/rotate", json={"grace_seconds": 60}).json
    client.delete("/api/keys/robot")
    app_workshop.command("keys", "create", "tool", "--scopes", "uploads:read")
    answer = client.get("/api/audit")
    listed = [
        (entry["action"], entry["details"]["name"], entry["key"]) for entry in answer.json["data"]
    ]
    assert [each for each in listed if each[1] == "robot"] == [
        ("revoke_key", "robot", "operator"),
        ("rotate_key", "robot", "operator"),
        ("create_key", "robot", "operator"),
    ]
    # Of another process: within a second its entries are in no order with those of this one.
    assert ("create_key", "tool", None) in listed
    by_process = sorted(answer.json["data"], key=lambda entry: entry["key"] is not None)
    by_command, _, rotated, made = (entry["details"] for entry in by_process)
    assert by_command["os_user"] == pwd.getpwuid(os.getuid()).pw_name
    assert rotated["grace_seconds"] == "60"
    assert made == {
        "name": "robot",
        "scopes": "uploads:read,own",
        "rate": "9/min",
        "bytes_per_day": "1000",
        "expires_at": "2099-01-01T00:00:00+00:00",
    }
    assert new["key"] not in answer.text
    assert newer["key"] not in answer.text


def test_what_was_shared_and_until_when_is_known(client):
    order = {"days": 3, "size": 512}
    made = client.post(f"/api/uploads/{upload(client)}/share", json=order).json
    [entry] = entries(client, "?action=share_upload")
    until = entry["details"].pop("expires_at")
    assert moment(until) == moment(made["expires_at"])
    assert entry["details"] == {
        "share": made["id"],
        "metadata": "false",
        "size": str(made["size"]),
    }


def test_it_is_read_a_page_at_a_time_and_by_filters(client):
    uploads = [upload(client) for _ in range(3)]
    for one in uploads:
        client.delete(f"/api/uploads/{one}")
    walked, cursor = [], ""
    while True:
        page = client.get(f"/api/audit?limit=2{cursor}").json
        walked += [entry["upload_id"] for entry in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert walked == uploads[::-1]
    assert [e["upload_id"] for e in entries(client, f"?upload_id={uploads[1]}")] == [uploads[1]]
    assert len(entries(client, "?key=operator&action=trash_upload")) == 3
    assert entries(client, "?key=another") == entries(client, "?action=create_key") == []
    assert client.get("/api/audit?action=upload").status_code == 422


def test_uploads_are_not_in_it_and_entries_end(client, app_workshop: Workshop):
    audit = app_workshop.collection.database["audit"]
    one = upload(client)
    assert audit.count_documents({}) == 0
    client.delete(f"/api/uploads/{one}")
    kept = audit.find_one()
    assert kept["expires_at"] - kept["at"] == timedelta(days=7)
    index = audit.index_information()["expires"]
    assert (index["key"], index["expireAfterSeconds"]) == ([("expires_at", 1)], 0)


@pytest.fixture
def client_without_log(
    app_with: Callable[..., Flask], app_workshop: Workshop
) -> Iterator[FlaskClient]:
    """A client of a service to whose audit log nothing can be added."""
    app, database = app_with(), app_workshop.collection.database
    database.command("collMod", "audit", validator={"never": True})
    yield app.test_client()
    database.command("collMod", "audit", validator={})


def test_nothing_is_removed_without_an_entry_and_uploads_need_none(client_without_log):
    one = upload(client_without_log)
    assert client_without_log.delete(f"/api/uploads/{one}").status_code >= 500
    assert client_without_log.get(f"/api/uploads/{one}").status_code == 200


def test_without_keys_the_address_is_known(app_with):
    client = app_with().test_client()
    one = upload(client)
    client.delete(f"/api/uploads/{one}")
    [entry] = entries(client)
    assert (entry["key"], entry["address"]) == (None, "127.0.0.1")
