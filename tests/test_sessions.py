"""Sessions of pages: what their cookie is, what comes with it, and when they end."""

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import photographs
import pytest
from closed import kind
from flask.testing import FlaskClient
from running import Servers, moment, wait_until
from test_keys import bearer
from werkzeug.test import TestResponse
from workshop import Workshop

from clustr.database import now
from clustr.domain.access import OWN, Rate, Scope
from clustr.domain.errors import SessionEnded
from clustr.domain.key_text import new_key, prefix_of
from clustr.services.authentication import IDLE, LONGEST_SESSION, Authentication

OTHER_ORIGIN = "http://localhost:5173"  # CORS_ORIGINS allows it.
NAME = "clustr_session"
OF_OTHERS = [
    {"Origin": OTHER_ORIGIN},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": OTHER_ORIGIN},
    {"Sec-Fetch-Site": "cross-site"},
]
OF_OURS = [
    {},
    {"Origin": "http://localhost"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
    {"Sec-Fetch-Site": "none"},
]

_numbers = itertools.count()


@pytest.fixture(scope="module")
def closed_workshop(
    tmp_path_factory: pytest.TempPathFactory, servers: Servers
) -> Iterator[Workshop]:
    settings = {"AUTH": "keys", "PLUGINS_ENABLED": "", "RATE_LIMIT": "off"}
    folder = tmp_path_factory.mktemp("closed")
    with Workshop(folder, servers, CORS_ORIGINS=OTHER_ORIGIN, **settings) as workshop:
        yield workshop


@pytest.fixture
def client(closed_workshop: Workshop) -> FlaskClient:
    """A browser: it keeps the cookies that it is given."""
    return closed_workshop.app.test_client()


@pytest.fixture
def create(closed_workshop: Workshop) -> Callable[..., str]:
    """Makes a key with these scopes, by default with all, and returns its text."""

    def create(*scopes: str, name: str = "", **more: Any) -> str:
        making = closed_workshop.web.key_making
        name = name or f"key{next(_numbers)}"
        text: str = making.create(name, scopes or [*Scope], **more).text
        return text

    return create


@pytest.fixture
def stored(closed_workshop: Workshop) -> Any:
    """The collection of sessions, which is empty."""
    sessions = closed_workshop.collection.database["sessions"]
    sessions.delete_many({})
    return sessions


@pytest.fixture
def other_process(closed_workshop: Workshop) -> Authentication:
    """What another process knows of keys and sessions, or this one after a restart."""
    database = closed_workshop.web.database
    return Authentication(database.keys, database.sessions)


def another(client: FlaskClient) -> FlaskClient:
    """Another browser."""
    return client.application.test_client()


def log_in(client: FlaskClient, key: str, **options: Any) -> TestResponse:
    return client.post("/api/session", json={"key": key}, **options)


def token_of(client: FlaskClient) -> str:
    cookie = client.get_cookie(NAME)
    assert cookie is not None
    return cookie.value


def csrf(answer: TestResponse) -> dict[str, str]:
    return {"X-CSRF-Token": answer.json["csrf_token"]}


def test_a_key_is_exchanged_for_a_cookie_that_has_nothing_of_it(client, create, stored):
    key = create(Scope.UPLOADS_READ, OWN, name="gallery")
    answer = log_in(client, key)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    said = answer.json
    assert (said["name"], said["scopes"], said["own_only"]) == ("gallery", ["uploads:read"], True)
    assert abs(moment(said["expires_at"]) - now() - LONGEST_SESSION) < timedelta(minutes=5)
    [header] = answer.headers.getlist("Set-Cookie")
    cookie, *attributes = header.split("; ")
    assert {each.partition("=")[0] for each in attributes} == {
        "Expires",
        "HttpOnly",
        "Path",
        "SameSite",
    }
    assert {"Path=/", "SameSite=Strict"} <= set(attributes)
    assert cookie.startswith(f"{NAME}=")
    assert prefix_of(key) not in answer.text + header
    assert token_of(client) not in repr([*stored.find()])  # A hash of it is.
    assert client.get("/api/session").json == said


def test_behind_tls_the_cookie_is_for_this_host_alone(client, create):
    tls = "https://localhost"
    answer = log_in(client, create(), base_url=tls)
    [header] = answer.headers.getlist("Set-Cookie")
    assert header.startswith(f"__Host-{NAME}=")
    assert {"Secure", "Path=/", "HttpOnly"} <= set(header.split("; "))
    assert "Domain" not in header
    assert client.get("/api/session", base_url=tls).status_code == 200
    # One that somebody has set without TLS does not count there.
    client.set_cookie(NAME, client.get_cookie(f"__Host-{NAME}").value)
    client.delete_cookie(f"__Host-{NAME}")
    assert kind(client.get("/api/session", base_url=tls)) == (401, "key_required")


def test_a_session_may_what_its_key_may(client, create):
    log_in(client, create(Scope.PLUGINS_READ))
    assert client.get("/api/plugins").status_code == 200
    refused = client.get("/api/uploads")
    assert kind(refused) == (403, "missing_scope")
    assert refused.json["missing_scopes"] == ["uploads:read"]


def test_who_asks_is_told_in_one_way(app_with, client, create):
    by_key = client.get("/api/session", headers=bearer(create(Scope.ADMIN, name="tool"))).json
    assert by_key == {
        "name": "tool",
        "scopes": ["admin"],
        "own_only": False,
        "expires_at": None,
        "csrf_token": None,
    }
    assert kind(client.get("/api/session")) == (401, "key_required")
    open_to_all = app_with().test_client()
    said = open_to_all.get("/api/session").json
    assert (said["name"], said["scopes"]) == (None, sorted(Scope))
    assert open_to_all.post("/api/session", json={"key": new_key()}).status_code == 405


def test_what_changes_something_needs_the_token_of_the_session(client, create):
    key = create()
    token = csrf(log_in(client, key))
    answer = client.post("/api/upload", data=photographs.photograph(), content_type="image/jpeg")
    assert kind(answer) == (403, "csrf_token_required")
    assert "X-CSRF-Token" in answer.json["detail"]
    others = csrf(log_in(another(client), key))
    for wrong in ({"X-CSRF-Token": ""}, {"X-CSRF-Token": "\u00e9"}, others):
        answer = client.post("/api/uploads/exists", json={"sha256": []}, headers=wrong)
        assert kind(answer) == (403, "csrf_token_required")
    answer = client.post(
        "/api/upload", data=photographs.photograph(), content_type="image/jpeg", headers=token
    )
    path = f"/api/uploads/{answer.json['data'][0]['id']}"
    assert kind(client.delete(path)) == (403, "csrf_token_required")
    assert kind(client.patch(path, json={"caption": "a"})) == (403, "csrf_token_required")
    assert client.get(path).status_code == client.head(path).status_code == 200
    assert client.delete(path, headers=token).status_code == 204


def test_a_key_in_a_header_wins_over_the_cookie(client, create):
    log_in(client, create(name="of-the-cookie"))
    reader = bearer(create(Scope.UPLOADS_READ, name="of-the-header"))
    assert client.get("/api/session", headers=reader).json["name"] == "of-the-header"
    exists = client.post("/api/uploads/exists", json={"sha256": []}, headers=reader)
    assert exists.status_code != 403  # No browser adds a key by itself, so it needs no token.
    assert kind(client.get("/api/session", headers=bearer(new_key()))) == (401, "key_refused")


@pytest.mark.parametrize("headers", OF_OTHERS)
def test_from_pages_of_other_origins_the_cookie_does_not_count(client, create, headers):
    key = create()
    token = csrf(log_in(client, key))
    read = client.get("/api/uploads", headers=headers)
    assert kind(read) == (401, "key_required")
    changed = client.delete("/api/session", headers=headers | token)
    assert changed.status_code in (401, 403)
    assert client.get("/api/session").status_code == 200
    refused = log_in(another(client), key, headers=headers)
    assert kind(refused) == (403, "origin_not_allowed")
    assert "Set-Cookie" not in refused.headers


@pytest.mark.parametrize("headers", OF_OURS)
def test_from_pages_of_the_service_it_counts(client, create, headers):
    token = csrf(log_in(client, create(), headers=headers))
    assert client.get("/api/session", headers=headers).status_code == 200
    assert client.delete("/api/session", headers=headers | token).status_code == 204


def test_behind_a_proxy_pages_are_of_the_address_that_it_has(app_with, app_workshop):
    app = app_with(AUTH="keys", BASE_URL="https://images.example.com/clustr")
    client = app.test_client()
    own = {"Origin": "https://images.example.com"}
    key = app.extensions["clustr"].key_making.create("it", ["uploads:read"]).text
    assert log_in(client, key, headers=own).status_code == 201
    assert client.get("/api/session", headers=own).status_code == 200


def test_whoever_logs_out_has_no_session_any_more(client, create, other_process):
    token = csrf(log_in(client, create()))
    session = token_of(client)
    assert other_process.access_of_session(session)
    answer = client.delete("/api/session", headers=token)
    assert answer.status_code == 204
    assert client.get_cookie(NAME) is None
    client.set_cookie(NAME, session)
    assert kind(client.get("/api/session")) == (401, "session_ended")
    wait_until(lambda: has_ended(other_process, session), 60, "the end of a session elsewhere")
    assert kind(client.delete("/api/session", headers=bearer(create()))) == (404, "not_found")


def test_a_new_session_ends_the_one_before(client, create):
    key = create()
    log_in(client, key)
    before = token_of(client)
    log_in(client, key)
    assert token_of(client) != before
    client.set_cookie(NAME, before)
    assert kind(client.get("/api/session")) == (401, "session_ended")


def test_sessions_outlive_a_restart_and_end_with_their_key(
    client, create, closed_workshop, other_process
):
    log_in(client, create(name="ending"))
    session = token_of(client)
    assert other_process.access_of_session(session).name == "ending"
    closed_workshop.web.database.keys.revoke("ending")
    wait_until(lambda: has_ended(other_process, session), 60, "the end of a session")
    wait_until(lambda: client.get("/api/session").status_code == 401, 60, "its end here")
    assert kind(client.get("/api/session")) == (401, "session_ended")


def test_a_session_ends_with_the_text_of_its_key(client, create, closed_workshop, other_process):
    key = create(name="rotated", expires_at=now() + timedelta(hours=3))
    said = log_in(client, key).json
    assert moment(said["expires_at"]) - now() < timedelta(hours=3)
    closed_workshop.web.key_making.rotate("rotated", grace=timedelta(0))
    assert has_ended(other_process, token_of(client))


def test_a_session_that_is_not_used_ends(client, create, stored, other_process):
    log_in(client, create())
    assert abs(end_of(stored) - now() - IDLE) < timedelta(minutes=5)
    later = now() + IDLE / 2
    stored.update_one({}, {"$set": {"expires_at": later}})
    assert other_process.access_of_session(token_of(client))
    wait_until(lambda: end_of(stored) > later, 60, "a session that goes on")
    stored.update_one({}, {"$set": {"expires_at": now()}})
    assert kind(client.get("/api/session")) == (401, "session_ended")


def test_a_session_is_not_prolonged_beyond_its_end(client, create, stored, other_process):
    log_in(client, create())
    ends_at = now() + IDLE / 2
    times = {"expires_at": now() + IDLE / 4, "ends_at": ends_at}
    stored.update_one({}, {"$set": times})
    other_process.access_of_session(token_of(client))
    wait_until(lambda: end_of(stored) > times["expires_at"], 60, "a session that goes on")
    assert abs(end_of(stored) - ends_at) < timedelta(seconds=1)
    index = stored.index_information()["ended"]
    assert (index["key"], index["expireAfterSeconds"]) == ([("expires_at", 1)], 0)


def test_ten_wrong_keys_at_the_log_in_close_an_address(client, create):
    client.environ_base["REMOTE_ADDR"] = "192.0.2.44"
    for wrong in [new_key()] * 9 + ["nonsense"]:
        answer = log_in(client, wrong)
        assert answer.status_code == 401
        assert "Set-Cookie" not in answer.headers
    assert kind(log_in(client, new_key())) == (429, "quota_exceeded")
    assert kind(client.get("/api/uploads")) == (429, "quota_exceeded")
    assert log_in(client, create()).status_code == 201
    assert client.get("/api/session").status_code == 200


def test_pictures_come_with_the_cookie_in_any_size_and_count_for_no_limit(client, create):
    token = csrf(log_in(client, create()))
    answer = client.post(
        "/api/upload", data=photographs.photograph(), content_type="image/jpeg", headers=token
    )
    [upload] = answer.json["data"]
    limited = another(client)
    log_in(limited, create(Scope.UPLOADS_READ, rate=Rate(2, "h")))
    addresses = [f"/api/uploads/{upload['id']}/thumbnail?size={size}" for size in (100, 400)]
    addresses += [f"/uploads/{upload['stored_filename']}", *addresses]
    for address in addresses:
        with limited.get(address, headers={"Sec-Fetch-Site": "same-origin"}) as shown:
            assert shown.status_code == 200
            assert shown.headers["Cache-Control"] == "private, no-cache"
    assert [limited.get("/api/session").status_code for _ in range(3)] == [200, 200, 429]


def test_log_ins_and_log_outs_are_in_the_audit_log(client, create):
    key = create(name="person")
    token = csrf(log_in(client, key, headers={"X-Request-ID": "came"}))
    client.delete("/api/session", headers=token | {"X-Request-ID": "went"})
    log_in(client, new_key())
    listed = client.get("/api/audit?key=person", headers=bearer(key)).json["data"]
    assert [(each["action"], each["outcome"], each["request_id"]) for each in listed] == [
        ("log_out", "done", "went"),
        ("log_in", "done", "came"),
    ]
    assert listed[0]["address"] == "127.0.0.1"


def has_ended(authentication: Authentication, session: str) -> bool:
    try:
        authentication.access_of_session(session)
    except SessionEnded:
        return True
    return False


def end_of(stored: Any) -> datetime:
    end: datetime = stored.find_one()["expires_at"]
    return end
