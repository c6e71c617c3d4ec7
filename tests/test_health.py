"""`/api/health` as clients read it: every service with its words, and the captioner in any case."""

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
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
from rq.serializers import JSONSerializer
from rq.utils import utcformat
from running import Servers, Up, wait_until
from workshop import Workshop, plugin

from clustr.domain import failure_messages
from clustr.worker.rq_worker import AnalysisWorker

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


def test_the_database_says_how_far_the_terms_of_searches_are_made(workshop, monkeypatch):
    monkeypatch.setattr("clustr.database.search_terms.BATCH", 2)

    def said() -> dict[str, Any]:
        database = health_of(workshop.app)["services"]["database"]
        assert database["status"] == "healthy"
        return database

    assert "search_terms" not in said()
    workshop.upload(*[photographs.unique(number=number) for number in range(5)])
    assert said()["search_terms"] == {"done": 0, "total": 5}
    made = workshop.web.database.search_terms.update_all()
    next(made)
    assert said()["search_terms"] == {"done": 2, "total": 5}
    assert "search terms: {" in workshop.app.test_client().get("/api/health/page").text
    assert [*made]
    assert "search_terms" not in said()


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
    assert (
        captioner["error"]
        == captioner["detail"]
        == (
            f"The captioner at {url} (BLIP_SERVICE_URL) answered with status 503: "
            "The captioner is away."
        )
    )
    assert "s3cret" not in str([health, away])


def test_without_a_captioner_it_is_disabled_which_is_no_trouble(app_with):
    health = health_of(app_with(PLUGINS_DISABLED="blip"))
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


def test_of_several_captioners_the_one_is_shown_that_fills_captions(workshop):
    workshop.write("painter", PAINTER)
    workshop.write("writer", WRITER)
    services = health_of(workshop.app)["services"]
    assert (services["captioner"]["status"], services["studio"]["status"]) == (
        "healthy",
        "unhealthy",
    )


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
    assert failure_messages.without_credentials(url) == shown


# The queue


@pytest.fixture
def worker(workshop: Workshop) -> Iterator[AnalysisWorker]:
    """What a worker for the queue `default` tells Redis of itself."""
    worker = AnalysisWorker(
        [workshop.key("default")],
        connection=workshop.redis,
        serializer=JSONSerializer,
    )
    worker.register_birth()
    yield worker
    workshop.redis.flushdb()


def queue_of(workshop: Workshop) -> dict[str, Any]:
    return health_of(workshop.app, "/queue")


def test_a_queue_without_workers_is_degraded(workshop):
    workshop.analyzer("here", "return {}")
    workshop.analyzer("there", "return {}", queue="gpu")
    workshop.redis.flushdb()
    queue = queue_of(workshop)
    assert queue["status"] == "degraded"
    assert queue["workers"] == {"default": 0, "gpu": 0}
    assert queue["error"] == "No worker is there for the queue default, gpu: run `clustr worker`."
    assert health_of(workshop.app)["status"] == "degraded"
    assert workshop.app.test_client().get("/api/health/ready").status_code == 200


def test_workers_count_while_they_give_signs_of_life(workshop, worker):
    workshop.analyzer("here", "return {}")
    assert (queue_of(workshop)["status"], queue_of(workshop)["workers"]) == (
        "healthy",
        {"default": 1},
    )
    long_ago = utcformat(datetime.now(UTC) - timedelta(seconds=61))
    workshop.redis.hset(worker.key, "last_heartbeat", long_ago)
    assert queue_of(workshop)["status"] == "degraded"
    worker.heartbeat()
    assert queue_of(workshop)["status"] == "healthy"
    workshop.redis.flushdb()  # as a Redis does that is started again without its data
    assert queue_of(workshop)["status"] == "degraded"
    worker.heartbeat()
    assert queue_of(workshop)["status"] == "healthy"


def test_uploads_that_wait_for_long_are_no_good_health(workshop, worker):
    workshop.analyzer("here", "return {}")
    assert queue_of(workshop)["waiting_seconds"] == 0
    for _ in range(2):
        workshop.upload()
    assert queue_of(workshop)["status"] == "healthy"
    set_first = {"analyses.0.due_at": datetime.now(UTC) - timedelta(seconds=61)}
    of_first = {"_id": workshop.collection.find_one()["_id"]}
    workshop.collection.update_one(of_first, {"$set": set_first})
    queue = queue_of(workshop)
    assert (queue["status"], queue["waiting_seconds"] >= 61) == ("degraded", True)
    assert re.fullmatch(
        r"An upload has waited for \d\d s for its analysis to begin.", queue["error"]
    )
    for other in ({"analyses.0.priority": 1}, {"analyses.0.state": "deferred"}):
        workshop.collection.update_one(of_first, {"$set": other})
        assert queue_of(workshop)["status"] == "healthy"
        workshop.collection.update_one(of_first, {"$set": {"analyses.0.priority": 0}})


@pytest.fixture(scope="module")
def healthy(service: Up) -> Up:
    """The service, once it is over whatever other tests have done to it and to its captioner."""
    url = f"{service.url}/api/health"
    wait_until(lambda: requests.get(url, timeout=60).json()["status"] == "healthy", 180, "health")
    return service


def test_of_a_service_that_works_the_queue_is_healthy(healthy):
    queue = requests.get(f"{healthy.url}/api/health/queue", timeout=60).json()
    assert queue["status"] == "healthy"
    assert queue["workers"].keys() == {"default", "http"}
    assert min(queue["workers"].values()) >= 1


# The storage


def test_the_storage_says_how_much_room_there_is(app_with):
    storage = health_of(app_with(), "/storage")
    assert storage["status"] == "healthy"
    assert storage["free_bytes"] > 500 * 1024**2
    assert storage["free_inodes"] is None or storage["free_inodes"] > 1000


def test_little_room_is_no_good_health(app_with):
    app = app_with(MAX_UPLOAD_SIZE=str(2**50))  # of such there is no room for ten anywhere
    storage = health_of(app, "/storage")
    assert storage["status"] == "degraded"
    assert storage["error"].startswith("There is room for ")
    assert health_of(app)["status"] == "degraded"
    assert app.test_client().get("/api/health/ready").status_code == 200


# The page


def test_the_page_says_what_health_says_and_counts_the_captions(workshop):
    workshop.write("painter", PAINTER)
    workshop.upload(*(photographs.photograph(width=40 + n) for n in range(3)))
    for caption in ("a cat", ""):
        document = workshop.collection.find_one({"caption": {"$exists": False}})
        workshop.collection.update_one(document, {"$set": {"caption": caption}})
    client = workshop.app.test_client()
    assert '<dd id="captioned">not counted yet</dd>' in client.get("/api/health/page").text
    while not workshop.web.database.counters.step():
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


def test_the_page_in_a_browser_without_scripts(browser, healthy):
    """Chromium reports what the page's policy forbids as an error on the console."""
    address = urlsplit(healthy.url)
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
    answer = requests.get(f"{service.url}/api/health/page", timeout=60)
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
