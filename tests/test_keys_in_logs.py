"""No key, session, signing secret or signature is in what a service with keys prints and logs."""

from collections.abc import Callable
from urllib.parse import urlsplit

import photographs
import requests
from running import Up

from clustr.domain.key_text import new_key

ALL = "uploads:read,uploads:write,uploads:delete,files:read,plugins:read,admin"


def test_nothing_secret_is_in_any_log(up: Callable[..., Up]):
    running = up(AUTH="keys", LOG_LEVEL="debug", WEB_WORKERS="1").wait_until_started()
    keys = {"first": (running.data / "first-key").read_text().strip()}
    keys["tool"] = running.command("keys", "create", "tool", "--scopes", ALL).stdout.strip()
    keys |= {"wrong": new_key(), "mistyped": new_key()[:-1] + "-", "in a form": new_key()}

    def call(method: str, path: str, name: str = "tool", **options: object) -> requests.Response:
        headers = {"X-API-Key": keys[name]}
        return requests.request(method, running.url + path, headers=headers, timeout=30, **options)

    made = call("POST", "/api/keys", json={"name": "made", "scopes": ["uploads:read"]}).json()
    keys["made"] = made["key"]
    keys["rotated"] = call("POST", "/api/keys/made/rotate", json={}).json()["key"]
    keys["by command"] = running.command("keys", "rotate", "tool").stdout.strip()
    for name in ("first", "tool", "by command", "made", "rotated", "wrong", "mistyped"):
        bearer = {"Authorization": f"Bearer {keys[name]}"}
        answer = requests.get(f"{running.url}/api/uploads", headers=bearer, timeout=30)
        assert answer.ok == (name not in ("wrong", "mistyped")), name
        answer = requests.get(f"{running.url}/api/uploads?key={keys[name]}", timeout=30)
        assert answer.status_code == 401
    # What is sent where it does not belong.
    call("POST", "/api/keys", json={"name": keys["in a form"], "scopes": [keys["in a form"]]})
    call("POST", "/api/keys", data=keys["in a form"])

    session = requests.Session()
    said = session.post(f"{running.url}/api/session", json={"key": keys["tool"]}, timeout=30)
    [cookie] = session.cookies.values()
    csrf = {"X-CSRF-Token": said.json()["csrf_token"]}
    session.get(f"{running.url}/api/session?token={cookie}", timeout=30)
    assert not requests.post(
        f"{running.url}/api/session", json={"key": keys["wrong"]}, timeout=30
    ).ok
    session.delete(f"{running.url}/api/session", headers=csrf, timeout=30).raise_for_status()
    session.cookies["clustr_session"] = cookie
    assert session.get(f"{running.url}/api/session", timeout=30).status_code == 401

    file = {"files": ("cat.jpg", photographs.photograph())}
    [stored] = call("POST", "/api/upload", files=file).json()["data"]
    upload = call("GET", f"/api/uploads/{stored['id']}").json()
    signatures = []
    for address in (stored["preview_url"], upload["url"], upload["thumbnail_url"]):
        assert requests.get(address, timeout=30).ok
        altered = address[:-1] + ("0" if address[-1] != "0" else "1")
        assert requests.get(altered, timeout=30).status_code == 403
        signatures.append(urlsplit(address).query.rpartition("signature=")[2])
    call("DELETE", f"/api/uploads/{stored['id']}")
    call("DELETE", "/api/keys/made")
    call("GET", "/api/audit")
    with running.mongodb() as client:
        signing = client["clustr"]["installation"].find_one({"_id": "url_signing"})["key"]
    assert running.stop() == 0

    logs = {path.name: path.read_text(errors="replace") for path in running.data.rglob("*.log*")}
    assert {"mongod.log", "redis.log", "worker.log"} <= set(logs)
    logs["output"] = running.output()
    assert "/api/keys/made/rotate" in logs["output"]
    secrets = [*keys.values(), *signatures, signing, cookie, csrf["X-CSRF-Token"]]
    assert all(len(secret) > 40 for secret in secrets)
    leaked = {name: s for name, text in logs.items() for s in secrets if s in text}
    assert not leaked
