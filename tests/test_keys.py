"""Keys: who may come in with which, what is said to the others, and what is kept of a key."""

import io
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import photographs
import pytest
from flask import Flask
from flask.testing import FlaskClient
from running import wait_until
from sent_commands import hashed, listen, sent
from werkzeug.test import TestResponse

from clustr.api.http import access
from clustr.api.http.request_context import EXTENSION
from clustr.components import WebComponents
from clustr.database import now
from clustr.domain.access import OWN, Scope
from clustr.domain.errors import StartUpError
from clustr.domain.key_text import DIGITS, is_well_formed, new_key, prefix_of
from clustr.services import authentication
from clustr.services.authentication import CACHED_SECONDS, Authentication
from clustr.services.key_making import IssuedKey


@pytest.fixture
def app(app_with: Callable[..., Flask]) -> Flask:
    return app_with(AUTH="keys")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def components(app: Flask) -> WebComponents:
    found: WebComponents = app.extensions[EXTENSION]
    return found


@pytest.fixture
def create(components: WebComponents) -> Callable[..., IssuedKey]:
    """Makes a key with these scopes."""

    def create(*scopes: str, name: str = "someone", **more: Any) -> IssuedKey:
        return components.key_making.create(name, scopes or tuple(Scope), **more)

    return create


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def kind(answer: TestResponse) -> tuple[int, str]:
    """The status of a problem document, and the end of its type."""
    return answer.status_code, answer.json["type"].rpartition(":")[2]


def replaced(text: str, index: int) -> str:
    """A key with another character there."""
    other = DIGITS[(DIGITS.index(text[index]) + 1) % len(DIGITS)]
    return text[:index] + other + text[index + 1 :]


def test_a_key_has_256_random_bits_and_a_checksum_that_finds_every_slip_in_one_place():
    text = new_key()
    assert re.fullmatch(r"clustr_[0-9A-Za-z]{49}", text)
    assert new_key() != text
    assert is_well_formed(text)
    for index in range(len("clustr_"), len(text)):
        assert not is_well_formed(replaced(text, index))
    assert not is_well_formed(text[:-1])
    assert not is_well_formed(text + "0")


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_key_lets_in_and_says_who_it_is(client, create, header):
    text = create().text
    headers = {header: f"Bearer {text}" if header == "Authorization" else text}
    with client:
        assert client.get("/api/uploads", headers=headers).status_code == 200
        who = access.current_access()
        assert (who.name, who.scopes, who.only_uploads_of) == ("someone", frozenset(Scope), None)


def test_a_key_for_its_own_uploads_is_limited_to_its_name(client, create):
    with client:
        client.get("/api/uploads", headers=bearer(create(Scope.UPLOADS_READ, OWN).text))
        assert access.current_access().only_uploads_of == "someone"


def test_without_a_key_nothing_is_answered(client):
    answer = client.get("/api/uploads")
    assert kind(answer) == (401, "key_required")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer" in answer.json["detail"]
    # What a proxy in front has asked for is none.
    basic = client.get("/api/uploads", headers={"Authorization": "Basic YTpi"})
    assert kind(basic) == (401, "key_required")


def test_a_slip_is_told_from_a_stranger(client, create):
    slipped = client.get("/api/uploads", headers=bearer(replaced(create().text, 30)))
    assert kind(slipped) == (401, "key_mistyped")
    assert slipped.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_a_wrong_key_is_answered_as_an_unknown_one(client, create, monkeypatch):
    right = create().text
    monkeypatch.setattr("secrets.randbits", bits_next_to(right))
    wrong = new_key()
    monkeypatch.undo()
    assert prefix_of(wrong) == prefix_of(right)  # Somebody may have seen a listing of keys.
    answers = [
        client.get("/api/uploads", headers={**bearer(text), "X-Request-ID": "same"})
        for text in (wrong, new_key())
    ]
    assert kind(answers[0]) == (401, "key_refused")
    assert answers[0].data == answers[1].data
    for answer in answers:
        del answer.headers["RateLimit"]  # Wrong keys of both kinds are counted.
    assert [*answers[0].headers] == [*answers[1].headers]


@pytest.mark.parametrize("way", ["header", "log-in", "session"])
def test_a_wrong_key_takes_the_work_of_an_unknown_one(app_with, monkeypatch, way):
    """Whatever the clock says: the same questions to MongoDB, and the same hashes."""
    listen()
    app = app_with(AUTH="keys", RATE_LIMIT="off")
    client = app.test_client()
    right = app.extensions[EXTENSION].key_making.create("it", ["uploads:read"]).text
    monkeypatch.setattr("secrets.randbits", bits_next_to(right))
    wrong = new_key()
    monkeypatch.undo()

    def ask(text: str) -> TestResponse:
        if way == "header":
            return client.get("/api/uploads", headers=bearer(text))
        if way == "log-in":
            return client.post("/api/session", json={"key": text})
        client.set_cookie("clustr_session", text)
        return client.get("/api/uploads")

    ask(new_key())  # What is done once only, such as the first connection.
    work = []
    for text in (wrong, new_key()):
        with sent() as commands, hashed() as hashes:
            assert ask(text).status_code == 401
        assert commands and hashes
        work.append((commands, hashes))
    assert work[0] == work[1]


def bits_next_to(text: str) -> Callable[[int], int]:
    """A source of bits that make a key with the same beginning."""
    number = 0
    for digit in text[len("clustr_") : len("clustr_") + 43]:
        number = number * len(DIGITS) + DIGITS.index(digit)
    return lambda _bits: number - 1


def test_two_different_keys_are_refused_and_the_same_twice_is_not(client, create):
    text = create().text
    twice = client.get("/api/uploads", headers={**bearer(text), "X-API-Key": text})
    assert twice.status_code == 200
    both = client.get("/api/uploads", headers={**bearer(text), "X-API-Key": new_key()})
    assert kind(both) == (400, "two_keys")


def test_a_missing_scope_is_named(client, create):
    reader = bearer(create(Scope.UPLOADS_READ).text)
    files = {"files": (io.BytesIO(photographs.photograph()), "it.jpg")}
    answer = client.post("/api/upload", headers=reader, data=files)
    assert kind(answer) == (403, "missing_scope")
    assert answer.json["missing_scopes"] == ["uploads:write"]
    assert "uploads:write" in answer.json["detail"]
    assert 'scope="uploads:write"' in answer.headers["WWW-Authenticate"]
    # It is told first, so that nobody learns what exists.
    unknown = client.delete("/api/uploads/692192f4e13f5a0c4d1b7a90", headers=reader)
    assert kind(unknown) == (403, "missing_scope")


def test_a_job_needs_the_scope_of_what_it_does(client, create):
    for action, scope in [
        *(("delete", "uploads:delete"), ("restore", "uploads:write")),
        *(("tag", "uploads:write"), ("untag", "uploads:write")),
    ]:
        lacking = bearer(create(*set(Scope) - {scope}, name=f"not-{action}").text)
        key = bearer(create(scope, name=action).text)
        tags = {"tags": ["a"]} if "tag" in action else {}
        order = {"action": action, "filter": {}, **tags}
        refused = client.post("/api/uploads/bulk", json=order, headers=lacking)
        assert (refused.status_code, refused.json["missing_scopes"]) == (403, [scope])
        taken = client.post("/api/uploads/bulk", json=order, headers=key)
        assert taken.status_code == 202
        path = f"{taken.headers['Location']}/cancel"
        refused = client.post(path, headers=lacking)
        assert (refused.status_code, refused.json["missing_scopes"]) == (403, [scope])
        assert client.post(path, headers=key).status_code == 202


OPEN = ["/", "/api/health/live", "/api/health/ready", "/docs", "/redoc", "/openapi.json"]


def test_a_service_that_asks_for_keys_is_not_ready_before_there_is_one(client, create, components):
    not_ready = client.get("/api/health/ready")
    assert (not_ready.status_code, not_ready.json) == (503, {"status": "not ready"})
    create()
    assert client.get("/api/health/ready").status_code == 200
    components.database.keys.revoke("someone")
    assert client.get("/api/health/ready").status_code == 200


def test_what_says_nothing_of_uploads_needs_no_key(client, create):
    create()
    for path in [*OPEN, "/docs/assets/redoc-page.js", "/favicon.ico", "/robots.txt"]:
        with client.get(path) as answer:
            assert answer.status_code == 200, path
    preflight = {
        "Origin": "http://localhost:5173",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization, x-api-key",
    }
    answer = client.options("/api/uploads", headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization, x-api-key"
    # A page can read why it is refused, too.
    refused = client.get("/api/uploads", headers={"Origin": "http://localhost:5173"})
    assert refused.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"
    assert kind(client.get("/api/nothing")) == (404, "not_found")


def test_health_needs_any_key(client, create):
    assert kind(client.get("/api/health")) == (401, "key_required")
    key = bearer(create(Scope.PLUGINS_READ).text)
    assert client.get("/api/health", headers=key).status_code == 200


def test_where_services_are_is_for_keys_with_admin(app_with):
    app = app_with(AUTH="keys", BLIP_SERVICE_URL="http://127.0.0.1:9")
    making = app.extensions[EXTENSION].key_making
    shown = {}
    for scope in (Scope.UPLOADS_READ, Scope.ADMIN):
        key = {"X-API-Key": making.create(scope.replace(":", "-"), [scope]).text}
        for path in ("/api/health", "/api/health/page", "/api/health/captioner"):
            shown[path, scope] = app.test_client().get(path, headers=key).text
    for (_, scope), text in shown.items():
        assert ("127.0.0.1:9" in text) == (scope is Scope.ADMIN)


def test_without_mongodb_a_key_that_is_not_known_cannot_be_checked(
    client, create, servers, monkeypatch
):
    monkeypatch.setattr(authentication, "CACHED_SECONDS", 60.0)
    known, other = (bearer(create(name=name).text) for name in ("known", "other"))
    assert client.get("/api/limits", headers=known).status_code == 200
    with servers.frozen_mongod():
        refused = client.get("/api/limits", headers=other)
        assert kind(refused) == (503, "database_unavailable")
        assert refused.json["detail"].startswith("The key cannot be checked, because the database")
        assert "Retry-After" in refused.headers
        assert client.get("/api/limits", headers=known).status_code == 200
        assert kind(client.get("/api/limits", headers=bearer("clustr_x"))) == (401, "key_mistyped")
    wait_until(lambda: client.get("/api/limits", headers=other).status_code == 200, 60, "an answer")


def test_a_revoked_key_stops_within_seconds(client, create, components, monkeypatch):
    assert CACHED_SECONDS < 5
    monkeypatch.setattr(authentication, "CACHED_SECONDS", 0.5)
    key = bearer(create().text)
    assert client.get("/api/uploads", headers=key).status_code == 200
    components.database.keys.revoke("someone")
    wait_until(
        lambda: client.get("/api/uploads", headers=key).status_code == 401, 60, "the end of a key"
    )
    assert kind(client.get("/api/uploads", headers=key)) == (401, "key_refused")
    assert create().key.name == "someone"  # The name is free again.


# How long a key is valid that shall be seen to end: the next, if it ended before it was used.
LIFETIMES = [timedelta(milliseconds=300), timedelta(seconds=3), timedelta(seconds=30)]


def test_a_key_expires(client, create):
    made = (
        bearer(create(name=f"key-{number}", expires_at=now() + lifetime).text)
        for number, lifetime in enumerate(LIFETIMES)
    )
    key = next(k for k in made if client.get("/api/uploads", headers=k).status_code == 200)
    wait_until(
        lambda: client.get("/api/uploads", headers=key).status_code == 401, 60, "the end of a key"
    )
    assert kind(client.get("/api/uploads", headers=key)) == (401, "key_expired")


def test_after_a_rotation_both_texts_are_valid_for_a_while(client, create, components):

    def is_valid(key: IssuedKey) -> bool:
        return client.get("/api/uploads", headers=bearer(key.text)).status_code == 200

    new = create()
    for lifetime in LIFETIMES:
        old, new = new, components.key_making.rotate("someone", lifetime)
        assert new.key.id == old.key.id
        if is_valid(old):
            break
    else:
        pytest.fail("no old text was valid")
    assert is_valid(new)
    wait_until(lambda: not is_valid(old), 60, "the end of the old text")
    assert is_valid(new)


def test_what_is_stored_of_a_key_does_not_let_in(client, create, components, app_workshop):
    text = create().text
    [stored] = app_workshop.collection.database["keys"].find()
    assert text not in repr(stored)
    assert prefix_of(text) in repr(stored)
    assert text not in repr([*components.database.keys.newest_first()])
    [secret] = stored["secrets"]
    for kept in (secret["prefix"], secret["sha256"]):
        assert client.get("/api/uploads", headers=bearer(kept)).status_code == 401


def test_no_log_line_has_a_key(app_with, capsys):
    app = app_with(AUTH="keys")
    text = app.extensions[EXTENSION].key_making.create("it", ["uploads:read"]).text
    answer = app.test_client().get(f"/api/uploads/{text}?key={text}", headers=bearer(text))
    assert answer.status_code in (404, 422)
    logged = capsys.readouterr().err
    assert text not in logged
    assert f"/api/uploads/{prefix_of(text)}***" in logged


def test_the_use_of_a_key_is_noted_once_a_minute(client, create, components):
    text = create().text
    assert components.database.keys.get("someone").last_used_at is None
    client.get("/api/uploads", headers=bearer(text))
    noted = lambda: components.database.keys.get("someone").last_used_at  # noqa: E731
    wait_until(lambda: noted() is not None, 60, "a note of the use")
    first = noted()
    components.database.keys.note_use(create(name="other").key.id)
    components.database.keys.note_use(components.database.keys.get("someone").id)
    assert noted() == first


def test_a_key_is_looked_up_once_in_a_few_seconds(create, components, monkeypatch):
    monkeypatch.setattr(authentication, "CACHED_SECONDS", 60.0)
    text = create().text
    asked = Authentication(components.database.keys, components.database.sessions)
    first = asked.access_of(text)
    assert asked.access_of(text) is first


def test_whoever_has_no_key_is_told_no_versions(app_with):
    told = app_with(AUTH="keys").test_client().get("/").json
    assert (told["version"], told["database"]) == (None, {"status": "connected", "version": None})
    told = app_with().test_client().get("/").json
    assert told["version"] and told["database"]["version"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("HOST", "0.0.0.0", "others can reach 0.0.0.0"),
        ("HOST", "192.0.2.7", "others can reach 192.0.2.7"),
        ("HOST", "nas.example", "others can reach nas.example"),
        ("PROXY_HOPS", "1", "PROXY_HOPS=1 says"),
        ("ACCEL_REDIRECT", "/clustr-files", "ACCEL_REDIRECT says"),
        ("ALLOWED_HOSTS", "localhost, a.example", "ALLOWED_HOSTS says that .* a.example"),
        ("ALLOWED_HOSTS", "*", "ALLOWED_HOSTS says"),
        ("BASE_URL", "https://a.example:8443/x", "BASE_URL says that others call it a.example"),
    ],
)
def test_where_others_can_come_it_has_to_be_said_who_may(app_with, name, value, reason):
    with pytest.raises(StartUpError, match=rf"{reason}.*AUTH=keys.*AUTH=off"):
        app_with(**{name: value})


def test_clustr_up_says_the_same_before_it_starts_anything(app_workshop):
    refused = app_workshop.command("up", HOST="0.0.0.0")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "AUTH=keys" in refused.stderr
    assert not (app_workshop.folder / "data" / "log").exists()


def test_on_loopback_everybody_may(app_with):
    names = {"ALLOWED_HOSTS": "localhost, [::1]", "BASE_URL": "http://[::1]:5000"}
    assert app_with(**names).test_client().get("/api/uploads").status_code == 200
