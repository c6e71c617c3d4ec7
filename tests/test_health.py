"""`/api/health` as clients read it: every service with its words, and the captioner in any case."""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import photographs
import pytest
import requests
from blip_stand_in import BlipStandIn
from browsing import HOST
from flask import Flask
from playwright.sync_api import expect
from running import Servers
from workshop import Workshop, plugin

from clustr import reasons

# It writes captions, and calls its service otherwise than others do.
PAINTER = plugin(
    "painter",
    "fields = {'caption': 'caption'}",
    "def analyze(self, image, context):",
    "    return {'caption': 'a painting'}",
    "def health(self, context):",
    "    return Health('studio', False, 'out of <b>paint</b>', 'https://me:secret@studio:9/a?key=s')",
)
WRITER = plugin(
    "writer",
    "fields = {'caption': 'caption'}",
    "def analyze(self, image, context):",
    "    return {'caption': 'a text'}",
)


def health_of(app: Flask, path: str = "") -> dict[str, Any]:
    answer = app.test_client().get(f"/api/health{path}")
    assert answer.status_code == 200
    return answer.get_json()


@pytest.fixture
def workshop(tmp_path: Path, servers: Servers) -> Iterator[Workshop]:
    with Workshop(tmp_path, servers) as running:
        yield running


def test_durations_are_texts_at_the_top_and_of_each_service(app_with):
    health = health_of(app_with())
    services = health["services"]
    assert services.keys() >= {"backend", "database", "queue", "storage", "captioner"}
    for said in [health, *services.values()]:
        assert re.fullmatch(r"[0-9]+\.[0-9] ms", said["response_time"])
    assert health_of(app_with(), "/database")["response_time"].endswith(" ms")


def test_the_database_counts_its_images(workshop):
    assert health_of(workshop.app, "/database")["image_count"] == 0
    workshop.upload(*(photographs.photograph(width=40 + n) for n in range(3)))
    assert health_of(workshop.app)["services"]["database"]["image_count"] == 3


def test_a_captioner_with_its_address_and_without_credentials(app_with):
    with BlipStandIn() as blip:
        url = f"http://127.0.0.1:{blip.port}/"
        app = app_with(BLIP_SERVICE_URL=url.replace("//", "//me:s3cret@"))
        health = health_of(app)
        assert health["services"]["captioner"]["status"] == "healthy"
        assert health["services"]["captioner"]["url"] == url
        assert "error" not in health["services"]["captioner"]
        blip.mode = "away"
        away = health_of(app)
    captioner = away["services"]["captioner"]
    assert (away["status"], captioner["status"]) == ("degraded", "unhealthy")
    assert captioner["url"] == url
    assert captioner["error"] == captioner["detail"] == "The captioner answers with status 503."
    assert "s3cret" not in str([health, away])


def test_without_a_captioner_it_is_disabled_which_is_no_trouble(app_with):
    health = health_of(app_with(PLUGINS_DISABLED="blip"))
    assert health["status"] == "healthy"
    captioner = health["services"]["captioner"]
    assert captioner["status"] == "disabled"
    assert captioner["error"] == captioner["detail"]
    assert "blip (switched off by the settings)" in captioner["detail"]


def test_the_reason_of_a_captioner_that_is_configured_wrongly(app_with):
    captioner = health_of(app_with(BLIP_SERVICE_URL="localhost"), "/captioner")
    assert captioner["status"] == "disabled"
    assert "blip (service_url: expected an address" in captioner["detail"]


def test_the_captioner_is_whoever_writes_captions(workshop):
    workshop.write("painter", PAINTER)
    health = health_of(workshop.app)
    services = health["services"]
    assert services["captioner"] == services["studio"]
    assert services["captioner"]["status"] == "unhealthy"
    assert services["captioner"]["url"] == "https://studio:9/a"
    assert health["status"] == "degraded"


def test_a_captioner_without_a_service_is_healthy(workshop):
    workshop.write("writer", WRITER)
    captioner = health_of(workshop.app, "/captioner")
    assert captioner["status"] == "healthy"
    assert "writer" in captioner["detail"]


def test_of_several_captioners_the_worst_is_shown(workshop):
    workshop.write("painter", PAINTER)
    workshop.write("writer", WRITER)
    assert health_of(workshop.app, "/captioner")["status"] == "unhealthy"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost:8001", "http://localhost:8001"),
        ("https://a:b@host/path?token=c#d", "https://host/path"),
        ("http://a@b@[::1]:8001/", "http://[::1]:8001/"),
        ("http://[", None),
        ("nothing", None),
        ("", None),
    ],
)
def test_addresses_are_shown_without_credentials(url, shown):
    assert reasons.without_credentials(url) == shown


# The page


def test_the_page_says_what_health_says_and_counts_the_captions(workshop):
    workshop.write("painter", PAINTER)
    workshop.upload(*(photographs.photograph(width=40 + n) for n in range(3)))
    for caption in ("a cat", ""):
        document = workshop.collection.find_one({"caption": {"$exists": False}})
        workshop.collection.update_one(document, {"$set": {"caption": caption}})
    client = workshop.app.test_client()
    assert '<dd id="captioned">not counted yet</dd>' in client.get("/api/health/page").text
    while not workshop.web.catalog.tallies.step():
        pass
    database = health_of(workshop.app, "/database")
    assert (database["captioned_images"], database["uncaptioned_images"]) == (1, 2)
    answer = client.get("/api/health/page")
    assert answer.status_code == 200
    assert answer.content_type == "text/html; charset=utf-8"
    for name, count in {"images": 3, "captioned": 1, "uncaptioned": 2}.items():
        assert f'<dd id="{name}">{count}</dd>' in answer.text
    for name, service in health_of(workshop.app)["services"].items():
        assert f'<th scope="row">{name}</th>' in answer.text
        assert f">{service['status']}</td>" in answer.text
    assert "out of &lt;b&gt;paint&lt;/b&gt;" in answer.text
    assert "<b>" not in answer.text
    assert "secret" not in answer.text


def test_the_page_in_a_browser_without_scripts(browser, service):
    """Chromium reports what the page's policy forbids as an error on the console."""
    address = urlsplit(service.url)
    site = address._replace(netloc=f"{HOST}:{address.port}").geturl()
    context = browser.new_context(java_script_enabled=False)
    said: list[str] = []
    asked: list[str] = []
    context.on("console", lambda message: said.append(message.text))
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.goto(f"{site}/api/health/page")
    expect(page.locator("h1")).to_have_text("Clustr is healthy")
    expect(page.locator("h1 span")).to_have_css("color", "rgb(25, 97, 39)")
    expect(page.get_by_role("row", name="captioner")).to_contain_text("http://127.0.0.1")
    page.get_by_role("link", name="Look again").click()
    expect(page.locator("h1")).to_have_text("Clustr is healthy")
    page.get_by_role("link", name="as JSON").click()
    expect(page).to_have_url(f"{site}/api/health")
    context.close()
    assert asked == [f"{site}/api/health/page", f"{site}/api/health/page", f"{site}/api/health"]
    assert said == []


def test_the_page_allows_its_own_style_and_nothing_else(service):
    answer = requests.get(f"{service.url}/api/health/page", timeout=10)
    policy = dict(
        each.split(maxsplit=1) for each in answer.headers["Content-Security-Policy"].split("; ")
    )
    [style] = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.pop("style-src") == f"'sha256-{digest}'"
    assert policy.pop("img-src") == "data:"
    assert set(policy.values()) == {"'none'"}
    assert policy.keys() == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert "<script" not in answer.text
