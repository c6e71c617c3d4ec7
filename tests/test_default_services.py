"""Analyzers whose service nobody has named: nothing waits for it, and all is made once it comes."""

import http.server
import re
import threading
from collections.abc import Iterator
from typing import Any

import photographs
import pytest
from blip_stand_in import BlipStandIn
from bson import ObjectId
from running import wait_until
from workshop import Workshop, analyzer

from clustr.database import now
from clustr.plugin_manager.service_addresses import advice as advice_on
from clustr.services import default_services, reconciler
from clustr.supervisor import servers as programs

# The captioner of the first party at another default address, for the real one may be taken.
TALKER = """
from clustr.services import reconciler
from clustr_plugins.blip import Blip
from clustr.plugins import HttpConfig, ServiceUrl, hookimpl

reconciler.START_EVERY_SECONDS = {search_seconds}

class Config(HttpConfig):
    service_url = ServiceUrl(
        load_default="http://127.0.0.1:{port}", metadata={{"env": "TALKER_URL"}}
    )

class Talker(Blip):
    name = "talker"

@hookimpl
def clustr_config_schema():
    return Config

@hookimpl
def clustr_register_analyzers(config):
    return [Talker(config)]
"""
LISTENER = analyzer(
    "listener", "return {'heard': image.results['talker']['caption']}", requires=("talker",)
)
SEARCH_SECONDS = 1  # Workers look for a service that often, and the web side learns of it.


@pytest.fixture
def captioner() -> Iterator[BlipStandIn]:
    """One that is not there until it is started."""
    captioner = BlipStandIn(programs.free_port())
    yield captioner
    captioner.stop()


def talker(port: int) -> str:
    return TALKER.format(port=port, search_seconds=SEARCH_SECONDS)


@pytest.fixture
def workshop(
    workshop: Workshop, captioner: BlipStandIn, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workshop]:
    monkeypatch.setattr(reconciler, "START_EVERY_SECONDS", SEARCH_SECONDS)  # It is put back.
    monkeypatch.setattr(default_services, "REFRESH_EVERY_SECONDS", SEARCH_SECONDS)
    workshop.write("talker", talker(captioner.port))
    workshop.analyzer("plain", "return {}")
    yield workshop
    workshop.environment.pop("TALKER_URL", None)


def get(workshop: Workshop, path: str) -> Any:
    answer = workshop.app.test_client().get(path)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def wire(workshop: Workshop, upload_id: str) -> Any:
    return get(workshop, f"/api/uploads/{upload_id}")


def wait_until_processed(workshop: Workshop, *ids: str) -> None:
    for upload_id in ids:
        wait_until(
            lambda upload_id=upload_id: workshop.get(upload_id).status == "processed",
            60,
            "a processed upload",
        )


def wait_until_captioned(workshop: Workshop, *ids: str) -> None:
    for upload_id in ids:
        wait_until(
            lambda upload_id=upload_id: workshop.get(upload_id).caption,
            60,
            "a caption",
        )


def wait_until_known(workshop: Workshop) -> None:
    """Wait until the web side knows that the captioner is there."""
    wait_until(
        lambda: get(workshop, "/api/health/captioner")["status"] == "healthy",
        60,
        "the captioner to be known",
    )


def finding(workshop: Workshop) -> dict[str, Any]:
    return workshop.collection.database["default_services"].find_one({"_id": "talker"}) or {}


def backfills(workshop: Workshop, name: str = "talker") -> list[dict[str, Any]]:
    jobs = workshop.collection.database["jobs"]
    return list(jobs.find({"parameters": {"analyzer": name, "select": "missing"}}))


def test_without_a_captioner_all_is_well_and_it_is_said_how_to_have_one(workshop, captioner):
    workshop.worker()
    [upload] = workshop.upload()
    wait_until_processed(workshop, upload)
    assert wire(workshop, upload)["analyses"].keys() == {"plain"}
    health = get(workshop, "/api/health")
    said = health["services"]["captioner"]
    assert (health["status"], said["status"]) == ("healthy", "not_configured")
    assert health["services"]["queue"]["deferred"] == {}
    assert said["url"] == captioner.url
    assert said["detail"] == said["error"] == f"No captioner is configured. {advice(captioner)}"
    plugin = get(workshop, "/api/plugins/talker")
    assert (plugin["state"], plugin["reason"]) == ("loaded", advice(captioner))
    assert plugin["analyzers"][0]["configured"] is False
    assert get(workshop, "/api/plugins/plain")["analyzers"][0]["configured"] is True


def advice(captioner: BlipStandIn) -> str:
    return (
        "To have captions, set TALKER_URL to the address of a captioner, or start one at "
        f"{captioner.url}, where it is looked for."
    )


def test_the_service_has_the_right_article(load):
    [blip] = [plugin for plugin in load().plugins if plugin.name == "blip"]
    [analyzer] = blip.analyzers
    analyzer.fields = {}
    said = {}
    for service in ("captioner", "object detector", "Embedder", "user service"):
        analyzer.service = service
        said[service] = re.search("to the address of (.*?),", advice_on(blip, analyzer, []))[1]
    assert list(said.values()) == [
        "a captioner",
        "an object detector",
        "an Embedder",
        "a user service",
    ]


def test_first_time_it_answers_everything_before_is_captioned(workshop, captioner):
    workshop.write("listener", LISTENER)
    first, second = workshop.worker(), workshop.worker()
    ids = workshop.upload(*(photographs.photograph(width=40 + n) for n in range(5)))
    wait_until_processed(workshop, *ids)
    assert workshop.analysis(ids[0], "listener").error == "requires talker"
    captioner.start()
    wait_until_captioned(workshop, *ids)
    for upload_id in ids:
        heard = workshop.end_of(upload_id, "listener").result["heard"]
        assert heard == wire(workshop, upload_id)["caption"]
    assert first.alive()
    assert second.alive()
    assert len(backfills(workshop)) == len(backfills(workshop, "listener")) == 1
    wait_until_known(workshop)
    [new] = workshop.upload()
    assert "talker" in wire(workshop, new)["analyses"]
    # From then on it is waited for, as for one whose address was set.
    captioner.stop()
    [later] = workshop.upload()
    workshop.wait_for_state(later, "talker", "deferred")
    assert get(workshop, "/api/health")["status"] == "degraded"


def test_uploads_of_a_process_that_did_not_know_yet_are_captioned_too(workshop, captioner):
    workshop.worker()
    captioner.start()
    wait_until(lambda: len(backfills(workshop)) == 1, 60, "a back-fill")
    wait_until(lambda: backfills(workshop)[0]["state"] == "succeeded", 60, "its end")

    def upload_without_knowing() -> str | None:
        """An upload without a caption, unless the web side has learned better meanwhile."""
        workshop.web.default_services.not_configured = frozenset({"talker"})
        [upload] = workshop.upload()
        names = {one.name for one in workshop.get(upload).analyses}
        return None if "talker" in names else upload

    missed = wait_until(upload_without_knowing, 60, "an upload by one that does not know")
    assert finding(workshop)["backfills"] == 1
    assert finding(workshop)["backfill_at"] > now()
    findings = workshop.collection.database["default_services"]
    findings.update_one({"_id": "talker"}, {"$set": {"backfill_at": now()}})
    wait_until_captioned(workshop, missed)
    assert (len(backfills(workshop)), finding(workshop)["backfills"]) == (2, 0)


def test_an_address_that_is_set_later_starts_the_same(workshop, captioner):
    worker = workshop.worker()
    [upload] = workshop.upload()
    wait_until_processed(workshop, upload)
    wait_until(lambda: finding(workshop), 60, "a finding")
    worker.stop()
    with BlipStandIn() as elsewhere:
        workshop.environment["TALKER_URL"] = elsewhere.url
        workshop.worker()
        wait_until_captioned(workshop, upload)
        assert elsewhere.requests


def test_an_address_that_was_set_is_waited_for(workshop, captioner):
    workshop.environment["TALKER_URL"] = captioner.url
    workshop.worker()
    [upload] = workshop.upload()
    workshop.wait_for_state(upload, "talker", "deferred")
    health = get(workshop, "/api/health")
    assert health["services"]["captioner"]["status"] == "unhealthy"
    assert not backfills(workshop)
    captioner.start()
    wait_until_captioned(workshop, upload)


def test_what_an_earlier_version_deferred_is_withdrawn(workshop, captioner):
    workshop.write("listener", LISTENER)
    workshop.environment["TALKER_URL"] = captioner.url
    deferred, with_result = workshop.upload(photographs.photograph(), photographs.photograph())
    workshop.collection.update_many(
        {}, {"$set": {"analyses.$[it].state": "deferred"}}, array_filters=[{"it.name": "talker"}]
    )
    workshop.collection.update_one(
        {"_id": ObjectId(with_result), "analyses.name": "talker"},
        {"$set": {"analyses.$.result": {"caption": "a cat", "tags": []}}},
    )
    workshop.collection.database["default_services"].drop()
    del workshop.environment["TALKER_URL"]
    workshop.worker()
    wait_until_processed(workshop, deferred, with_result)
    assert "talker" not in wire(workshop, deferred)["analyses"]
    assert wire(workshop, deferred)["analyses"]["listener"]["error"] == "requires talker"
    assert wire(workshop, with_result)["analyses"]["talker"]["status"] == "succeeded"


def test_a_captioner_that_worked_with_an_earlier_version_is_waited_for(workshop, captioner):
    captioner.start()
    workshop.environment["TALKER_URL"] = captioner.url
    [before] = workshop.upload()
    workshop.worker()
    wait_until_captioned(workshop, before)
    captioner.stop()
    workshop.renew()
    # As it was with a version that kept no findings, and without the setting.
    workshop.collection.database["default_services"].drop()
    del workshop.environment["TALKER_URL"]
    [after] = workshop.upload()
    workshop.wait_for_state(after, "talker", "deferred")
    assert get(workshop, "/api/health/captioner")["status"] == "unhealthy"
    assert not backfills(workshop)


def test_what_is_ordered_of_it_is_refused_with_what_to_do(workshop, captioner):
    [upload] = workshop.upload()
    client = workshop.app.test_client()
    order = {"analyzer": "talker", "select": "missing"}
    for path, body in {
        f"/api/uploads/{upload}/analyses/talker": None,
        "/api/analyses": order,
    }.items():
        answer = client.post(path, json=body)
        assert answer.status_code == 409
        problem = answer.get_json()
        assert problem["title"] == "Not configured"
        assert problem["detail"] == f"talker is not configured. {advice(captioner)}"
    assert client.post("/api/analyses", json={**order, "dry_run": True}).status_code == 409
    command = workshop.run("-m", "clustr", "analyze", "talker", "--missing")
    assert command.process.wait(60) == 2
    assert advice(captioner) in command.output()


def test_an_order_is_taken_as_soon_as_the_captioner_was_found(workshop, captioner):
    [upload] = workshop.upload()
    services = workshop.web.default_services
    assert services.not_configured == {"talker"}
    assert workshop.web.database.default_services.mark_configured("talker")
    answer = workshop.app.test_client().post(f"/api/uploads/{upload}/analyses/talker")
    assert answer.status_code == 202
    assert services.not_configured == set()


def test_the_shell_says_what_to_set(workshop, captioner):
    command = workshop.run("-m", "clustr", "plugins", "list")
    assert command.process.wait(60) == 0
    assert advice(captioner) in command.output()
    command = workshop.run("-m", "clustr", "plugins", "list", TALKER_URL=captioner.url)
    assert command.process.wait(60) == 0
    assert "To have captions" not in command.output()


class Answers(http.server.ThreadingHTTPServer):
    """Gives to everything the answer that it is told to give."""

    daemon_threads = True
    status = 200
    body = b""


class Answer(http.server.BaseHTTPRequestHandler):
    """Gives it."""

    server: Answers

    def do_GET(self) -> None:
        """Give it."""
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def answers() -> Iterator[Answers]:
    with Answers(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


NO_CAPTIONER = [
    (503, b'{"status": "healthy"}'),
    (200, b'{"status": "ok"}'),
    (200, b'{"status": ["healthy"]}'),
    (200, b'"healthy"'),
    (200, b"healthy"),
    (200, b"<!doctype html>"),
    (200, b"[" * 60_000),
    (200, b'{"status": "healthy", "more": "' + b"x" * 100_000 + b'"}'),
    (200, b"\xff"),
    (200, b""),
    (404, b""),
]


def test_only_what_says_that_it_is_healthy_is_found(tmp_path, servers, answers):
    with Workshop(tmp_path, servers) as workshop:
        workshop.write("talker", talker(answers.server_port))
        services = workshop.web.default_services
        for answers.status, answers.body in NO_CAPTIONER:
            services.search()
            assert services.not_configured == {"talker"}, answers.body[:100]
        answers.status, answers.body = 200, b'{"status": "healthy", "model": "blip"}'
        services.search()
        assert services.not_configured == set()
