"""Making keys, rotating and revoking them: by command, by `/api/keys`, and at the first start."""

import json
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import photographs
import pytest
import requests
from bson import ObjectId
from flask.testing import FlaskClient
from fork_server import run_program
from running import Up, wait_until

from clustr.api.http.request_context import EXTENSION
from clustr.cli.keys import parse_duration, parse_size
from clustr.database.shares import NewShare
from clustr.domain.access import Rate, Scope
from clustr.domain.errors import InvalidInput, KeyRefused, NameTaken, NotFound
from clustr.domain.key_text import EXAMPLE, is_well_formed
from clustr.services.key_making import KeyMaking

GIGABYTE = 1024**3


def lines_of(workshop, *arguments: str) -> list[str]:
    done = workshop.command("keys", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_key_is_made_listed_rotated_and_revoked_by_command(workshop):
    limits = ("--expires", "90d", "--rate", "60/min", "--bytes-per-day", "5GB")
    made = ("website", "--scopes", "uploads:read, own", *limits)
    [text] = lines_of(workshop, "create", *made)
    assert is_well_formed(text)
    access = workshop.web.authentication.access_of(text)
    assert access.scopes == {Scope.UPLOADS_READ}
    assert (access.only_uploads_of, access.rate) == ("website", Rate(60, "min"))
    assert access.bytes_per_day == 5 * GIGABYTE

    [line] = lines_of(workshop, "list")
    assert line.startswith(f"website  {text[:15]}…  uploads:read,own  60/min  5 GB")
    assert f"expires {datetime.now(UTC) + timedelta(days=90):%Y-%m-%d}" in line
    assert text not in line

    [new] = lines_of(workshop, "rotate", "website", "--grace", "1h")
    renewed = workshop.web.authentication.access_of(new)
    assert replace(renewed, expires_at=access.expires_at) == access
    assert "the one before goes on until" in lines_of(workshop, "list")[0]

    again = workshop.command("keys", "create", *made)
    assert (again.returncode, again.stdout) == (2, "")
    assert "There is a key with the name website already" in again.stderr
    [said] = lines_of(workshop, "revoke", "website")
    assert said.startswith("website is revoked")
    assert "  revoked 20" in lines_of(workshop, "list")[0]


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (parse_duration, "soon", "expected a number and one of s, min, h, d: 90d"),
        (Rate.parse, "fast", "expected a number of requests and a time (s, min, h, d): 60/min"),
        (Rate.parse, "0/min", "expected a number of requests"),
        (parse_size, "much", "expected a number of bytes, or a size such as 50MB"),
    ],
)
def test_what_a_command_cannot_read_is_refused_with_what_it_can(read, text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        read(text)


@pytest.fixture
def making(workshop) -> KeyMaking:
    return workshop.web.key_making


@pytest.mark.parametrize(
    ("scopes", "said"),
    [
        (["uploads:raed"], "no scope uploads:raed. There are uploads:read, "),
        (["own"], "Name one or more of uploads:read.*; own goes beside them"),
        ([], "Name one or more of uploads:read"),
        (["admin", "own"], "cannot be held to its own"),
    ],
)
def test_what_cannot_be_a_key_is_refused(making, scopes, said):
    with pytest.raises(InvalidInput, match=said):
        making.create("website", scopes)


def test_names_are_unique_among_keys_that_are_not_revoked(making, workshop):
    making.create("website", ["uploads:read"])
    with pytest.raises(NameTaken, match="There is a key with the name website already"):
        making.create("website", ["uploads:read"])
    workshop.web.database.keys.revoke("website")
    with pytest.raises(NotFound, match="name website is revoked already, since 20"):
        workshop.web.database.keys.revoke("website")
    with pytest.raises(NotFound, match=r"There is no key with the name webseite\."):
        workshop.web.database.keys.revoke("webseite")
    making.create("website", ["uploads:read"])
    assert len([*workshop.web.database.keys.newest_first()]) == 2


def test_a_key_that_sees_uploads_of_another_of_its_name_is_told_so(app_with, app_workshop):
    app = app_with(AUTH="keys")
    scopes = ["uploads:read", "uploads:write", "own"]
    text = app.extensions[EXTENSION].key_making.create("gone", scopes).text
    headers = {"X-API-Key": text, "Content-Type": "image/jpeg"}
    picture = photographs.photograph()
    answer = app.test_client().post("/api/upload", data=picture, headers=headers)
    assert answer.status_code == 201
    app_workshop.command("keys", "revoke", "gone")
    again = app_workshop.command("keys", "create", "gone", "--scopes", "uploads:read,own")
    assert "Uploads of this name that it sees: 1\n" in again.stderr
    another = app_workshop.command("keys", "create", "new", "--scopes", "uploads:read,own")
    assert "Uploads of this name" not in another.stderr


def test_what_becomes_of_shares_is_said_when_a_key_is_revoked_by_command(making, workshop):
    shares, tomorrow = workshop.web.database.shares, datetime.now(UTC) + timedelta(days=1)
    for name in ("website", "robot"):
        key = making.create(name, ["uploads:write"]).key
        new = NewShare(f"{ObjectId()}", tomorrow, False, None, name)
        shares.add(new, key.id)
    _, said = lines_of(workshop, "revoke", "website")
    assert said.startswith("Shares that it made, which go on: 1. ")
    assert shares.count_made_by("website") == 1
    for name in ("website", "robot"):  # One is revoked already.
        _, said = lines_of(workshop, "revoke", name, "--shares")
        assert said == "Shares that it made, revoked with it: 1"
        assert shares.count_made_by(name) == 0
    with pytest.raises(KeyRefused):
        shares.add(new, key.id)
    assert shares.of_upload(new.upload_id) == []
    again = workshop.command("keys", "revoke", "robot", "--shares")
    assert again.returncode == 2
    assert "is revoked already" in again.stderr


def test_where_no_database_is_named_that_is_said(tmp_path):
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    done = run_program(["-m", "clustr", "keys", "list"], environment, tmp_path)
    assert done.returncode == 2
    assert "MONGODB_URL is not set here, and the MongoDB at its default" in done.stderr
    assert "is this the folder of .env?" in done.stderr


def test_a_renewed_key_lives_as_long_as_it_did_before(making):
    short = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=30)
    first = making.create("website", ["uploads:read"], expires_at=short).key
    second = making.rotate("website").key
    difference = (second.expires_at - second.renewed_at) - (short - first.renewed_at)
    assert abs(difference) < timedelta(seconds=1)
    # The text before does not outlive itself by the grace.
    assert second.replaced_until == short


@pytest.fixture
def admin(app_with: Callable[..., Any]) -> FlaskClient:
    """A client with a key that may make others."""
    app = app_with(AUTH="keys")
    issued = app.extensions[EXTENSION].key_making.create("boss", [Scope.ADMIN])
    client: FlaskClient = app.test_client()
    client.environ_base["HTTP_X_API_KEY"] = issued.text
    return client


def test_a_key_with_admin_makes_others(admin):
    asked = {"name": "website", "scopes": ["uploads:read", "own"], "rate": "9/h"}
    made = admin.post("/api/keys", json={**asked, "expires_at": "2099-01-01T00:00:00Z"})
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    key = made.json.pop("key")
    assert made.json | asked | {"bytes_per_day": None, "revoked_at": None} == made.json
    assert made.json["expires_at"].startswith("2099-01-01T00:00:00")
    headers = {"X-API-Key": key}
    assert admin.get("/api/limits", headers=headers).json["allowed"] == {
        "key": "website",
        "scopes": ["uploads:read"],
        "own_only": True,
        "rate": "9/h",
        "bytes_per_day": None,
    }
    listed = admin.get("/api/keys").json["data"]
    assert [each["name"] for each in listed] == ["website", "boss"]
    assert admin.get("/api/keys/website").json["id"] == listed[0]["id"]
    assert key not in json.dumps(listed)
    assert admin.get("/api/keys", headers=headers).status_code == 403

    new = admin.post("/api/keys/website/rotate", json={"grace_seconds": 0})
    assert new.status_code == 200
    assert new.json["id"] == made.json["id"]
    assert admin.get("/api/limits", headers={"X-API-Key": new.json["key"]}).status_code == 200
    assert admin.delete("/api/keys/website").json["revoked_at"]
    assert admin.get("/api/keys/website").status_code == 404
    assert admin.delete("/api/keys/website").status_code == 404


def test_what_is_asked_for_wrongly_is_named(admin):
    right = {"name": "a", "scopes": ["admin"]}
    for wrong, field in [
        ({"name": "a b"}, "name"),
        ({"scopes": ["uploads:raed"]}, "scopes.0"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["admin", "own"]}, "scopes"),
        ({"rate": "60"}, "rate"),
        ({"bytes_per_day": 0}, "bytes_per_day"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ]:
        answer = admin.post("/api/keys", json=right | wrong)
        assert answer.status_code == 422
        assert list(answer.json["errors"]) == [field]


def test_two_keys_cannot_have_one_name(admin):
    asked = {"name": "boss", "scopes": ["uploads:read"]}
    answer = admin.post("/api/keys", json=asked)
    assert answer.status_code == 409
    assert answer.json["type"] == "urn:clustr:problem:name_taken"


def test_nobody_makes_keys_while_everybody_may_do_everything(app_with):
    asked = {"name": "later", "scopes": ["admin"]}
    assert app_with().test_client().post("/api/keys", json=asked).status_code == 404


def test_the_key_in_documents_is_none():
    assert len(EXAMPLE) == 56
    assert not is_well_formed(EXAMPLE)


def is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/api/health/ready", timeout=10).ok
    except requests.RequestException:
        return False


def test_the_first_start_makes_a_key_and_says_how_it_is_used(up: Callable[..., Up]):
    running = up(AUTH="keys", WEB_WORKERS="1")
    path = running.data / "first-key"
    wait_until(lambda: is_ready(running.url), 60, "a service that is ready")
    assert is_well_formed(path.read_text().strip())
    running.wait_until_started()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text().strip()
    assert f"keys     the first one, with all scopes, is in {path}\n" in running.output()
    assert text not in running.output()
    assert "captions No captioner is configured" in running.output()
    if shutil.which("curl"):
        for line in running.output().splitlines():
            if line.startswith("  curl "):
                paste = ["bash", "-c", f"{line} --fail --silent --show-error"]
                ran = subprocess.run(paste, capture_output=True, text=True)
                assert ran.returncode == 0, (line, ran.stderr)
    assert requests.get(f"{running.url}/api/uploads", timeout=10).status_code == 401
    listed = running.command("keys", "list")
    assert listed.stdout.startswith(f"first  {text[:15]}…  ")
    second = running.command("keys", "create", "second", "--scopes", "uploads:read")
    running.command("keys", "revoke", "first")
    assert running.stop() == 0

    again = up(AUTH="keys", WEB_WORKERS="1").wait_until_started()
    assert f"keys     that in {path} is not valid; set CLUSTR_KEY to one" in again.output()
    assert '-H "X-API-Key: $CLUSTR_KEY"' in again.output()
    headers = {"X-API-Key": second.stdout.strip()}
    assert (
        requests.get(f"{again.url}/api/uploads", headers=headers, timeout=10).json()["total"] == 1
    )
