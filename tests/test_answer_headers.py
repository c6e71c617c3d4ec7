"""The headers that every answer has, and the ids of requests."""

import re

import photographs
import pytest
import requests
from calling import PROBLEM, get, get_raw, uploaded

UNKNOWN_ID = "0123456789abcdef01234567"
CONTENT = photographs.photograph("png", "coffee")
CLOSED = "default-src 'none'; sandbox"


@pytest.fixture(scope="module")
def original(service) -> dict:
    """An upload, as it was answered."""
    [one] = uploaded(service, CONTENT)
    return one


CALLS = {
    "online": ("GET", "/", 200),
    "health": ("GET", "/api/health", 200),
    "one service": ("GET", "/api/health/database", 200),
    "live": ("GET", "/api/health/live", 200),
    "ready": ("GET", "/api/health/ready", 200),
    "unknown service": ("GET", "/api/health/nothing", 404),
    "listing": ("GET", "/api/uploads", 200),
    "wrong listing": ("GET", "/api/uploads?limit=0", 422),
    "upload": ("GET", "/api/uploads/{id}", 200),
    "unknown upload": ("GET", f"/api/uploads/{UNKNOWN_ID}", 404),
    "no id": ("GET", "/api/uploads/x", 404),
    "debug": ("GET", "/api/debug/dimensions?id={id}", 200),
    "plugins": ("GET", "/api/plugins", 200),
    "plugin": ("GET", "/api/plugins/dimensions", 200),
    "unknown plugin": ("GET", "/api/plugins/nothing", 404),
    "document": ("GET", "/openapi.json", 200),
    "no such path": ("GET", "/no/such/path", 404),
    "file": ("GET", "/uploads/{id}.png", 200),
    "original": ("GET", "/api/uploads/{id}/file", 200),
    "unknown original": ("GET", f"/api/uploads/{UNKNOWN_ID}/file", 404),
    "thumbnail": ("GET", "/api/uploads/{id}/thumbnail", 200),
    "unknown thumbnail": ("GET", f"/api/uploads/{UNKNOWN_ID}/thumbnail", 404),
    "wrong thumbnail": ("GET", "/api/uploads/{id}/thumbnail?size=9", 422),
    "unknown file": ("GET", f"/uploads/{UNKNOWN_ID}.png", 404),
    "head": ("HEAD", "/api/uploads", 200),
    "options": ("OPTIONS", "/api/uploads", 200),
    "empty upload": ("POST", "/api/upload", 422),
    "wrong method": ("DELETE", "/api/upload", 405),
    "unknown method": ("BREW", "/api/uploads", 405),
}


@pytest.mark.parametrize("call", CALLS)
def test_G1_headers_of_every_answer(service, original, call):
    method, address, status = CALLS[call]
    url = service.url + address.format(id=original["id"])
    answer = requests.request(method, url, timeout=60)
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == CLOSED
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert "Origin" in answer.headers["Vary"].split(", ")
    if status >= 400 and method != "HEAD":
        assert answer.headers["Content-Type"] == PROBLEM
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_G1_headers_of_the_pages(service, page):
    answer = get(service, page)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-ID"]
    assert "sandbox" not in answer.headers["Content-Security-Policy"]


def test_a_request_id_is_taken_over(service):
    for sent in ("a", "Trace-1.2_3", "x" * 64):
        answer = get(service, "/api/uploads/x", headers={"X-Request-ID": sent})
        assert answer.headers["X-Request-ID"] == sent
        assert answer.json()["request_id"] == sent


@pytest.mark.parametrize(
    "sent", ["", "x" * 65, "a b", "a;b", '"><script>', "a\tb", "\xe9", "../..", "{}", "a,b"]
)
def test_G11_a_hostile_request_id_is_not(service, sent):
    with get_raw(service, "/api/uploads/x", f"X-Request-ID: {sent}") as answer:
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])


def test_request_ids_differ(service):
    ids = {get(service, "/api/health/live").headers["X-Request-ID"] for _ in range(20)}
    assert len(ids) == 20
