"""Paths as people try them: with a slash too much, those that every site has, ids of others."""

from typing import Any
from urllib.parse import urljoin

import photographs
import pytest
import requests
from calling import get, get_raw, part, upload, uploaded

PROBLEM = "application/problem+json"
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def asked(service: Any, path: str, method: str = "GET", **options: Any) -> requests.Response:
    return requests.request(
        method, service.url + path, timeout=60, allow_redirects=False, **options
    )


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/api/uploads/", "../uploads"),
        ("/api/uploads/?limit=1&tag=a%20b", "../uploads?limit=1&tag=a%20b"),
        ("/api/health/", "../health"),
        ("/docs/", "../docs"),
        ("/api/plugins/dimensions/", "../dimensions"),
        ("/api/plugins/a%3Ab%2F%2Fc/", None),
        ("/api/plugins/a%3Ab%22%0d%0ac/", "../a%3Ab%22%0D%0Ac"),
    ],
)
def test_a_slash_too_much_is_redirected(service, path, location):
    answer = asked(service, path)
    assert answer.headers.get("Location") == location
    assert answer.status_code == (308 if location else 404)


def test_what_is_sent_to_a_path_with_a_slash_too_much_is_sent_again(service):
    """A client that follows 308 sends the same method and body once more."""
    sent = upload(service, part(photographs.one_pixel(), "cat.png"))
    assert sent.status_code == 201
    answer = requests.post(
        f"{service.url}/api/upload/",
        files=[part(photographs.one_pixel(), "cat.png")],
        timeout=60,
    )
    assert answer.status_code == 201, answer.text
    assert [each.status_code for each in answer.history] == [308]


@pytest.mark.parametrize(
    "path",
    ["//evil.example/", "//evil.example/api/uploads/", "/\\evil.example/", "/nothing/", "/api/x/"],
)
def test_a_slash_leads_nowhere_else(service, path):
    with get_raw(service, path) as answer:
        location = answer.headers.get("Location")
        assert answer.status in (308, 404)
        assert location is None or urljoin(service.url + path, location).startswith(service.url)
        assert (location is None) == (answer.status == 404)


def test_what_browsers_and_crawlers_ask_for_is_there(service):
    icon = get(service, "/favicon.ico")
    assert (icon.status_code, icon.headers["Content-Type"]) == (200, "image/svg+xml; charset=utf-8")
    robots = get(service, "/robots.txt")
    assert robots.status_code == 200
    assert robots.headers["Content-Type"].startswith("text/plain")
    assert robots.text == "User-agent: *\nDisallow: /\n"


@pytest.mark.parametrize("unknown", [UUID, "x", "0123456789ABCDEF01234567", "1" * 300, "1" * 23])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/uploads/{}"),
        ("PATCH", "/api/uploads/{}"),
        ("DELETE", "/api/uploads/{}"),
        ("POST", "/api/uploads/{}/restore"),
        ("GET", "/api/uploads/{}/file"),
        ("GET", "/api/uploads/{}/thumbnail"),
        ("GET", "/api/uploads/{}/analyses"),
        ("GET", "/api/uploads/{}/analyses/dimensions"),
        ("POST", "/api/uploads/{}/analyses/dimensions"),
        ("GET", "/api/trash/{}"),
        ("GET", "/api/trash/{}/file"),
        ("GET", "/api/trash/{}/thumbnail"),
        ("GET", "/api/jobs/{}"),
        ("POST", "/api/jobs/{}/cancel"),
    ],
)
def test_there_is_nothing_with_an_id_of_another_form(service, method, path, unknown):
    body = {"json": {"caption": "a"}} if method == "PATCH" else {}
    answer = asked(service, path.format(unknown), method, **body)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, PROBLEM)
    assert f"with the id {unknown[:100]}; an id is 24 hexadecimal" in answer.json()["detail"]


def test_an_id_with_a_line_break_is_none(service):
    [one] = uploaded(service, photographs.one_pixel())
    assert asked(service, f"/api/uploads/{one['id']}%0A").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/api/uploads/bulk", {"ids": [UUID], "action": "delete"}, "ids.0"),
        (
            "POST",
            "/api/analyses",
            {"analyzer": "dimensions", "select": "all", "ids": [UUID]},
            "ids.0",
        ),
        ("GET", f"/api/debug/dimensions?id={UUID}", None, "id"),
    ],
)
def test_an_id_of_another_form_in_a_body_or_a_query_is_wrong(service, method, path, body, field):
    answer = asked(service, path, method, json=body)
    assert answer.status_code == 422, answer.text
    assert "24 hexadecimal digits" in answer.json()["errors"][field][0]
