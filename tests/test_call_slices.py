"""One run of an analyzer that calls a service: when it ends, and what it leaves to the next one."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

import photographs
import pytest
from workshop import Workshop

from clustr.analysis.limits import Interruption
from clustr.components import build_worker
from clustr.database import now
from clustr.database.circuit_breakers import CircuitBreakers
from clustr.testing import Answer, HttpStandIn, Received

# An analyzer that calls a service.
CALLER = """
from marshmallow import Schema
from clustr.plugins import HttpAnalyzer, HttpConfig, hookimpl
CLUSTR_API = 1

class Caller(HttpAnalyzer):
    name = service = "caller"
    result_schema = Schema
    {attribute}

@hookimpl
def clustr_config_schema():
    return HttpConfig

@hookimpl
def clustr_register_analyzers(config):
    return [Caller(config)]
"""
OWN_ANALYZE = "analyze = lambda self, image, context: self.ask({}, context)"


@pytest.fixture
def calling(tmp_path, servers, clustr_http: HttpStandIn) -> Iterator[Callable[..., Workshop]]:
    """Makes a workshop whose analyzer `caller` calls `clustr_http`."""
    opened: list[Workshop] = []

    def make(attribute: str = "concurrency = 2") -> Workshop:
        address = {"CLUSTR_PLUGIN__CALLER__SERVICE_URL": clustr_http.url}
        opened.append(workshop := Workshop(tmp_path, servers, **address))
        workshop.write("caller", CALLER.format(attribute=attribute))
        return workshop

    yield make
    for workshop in opened:
        workshop.__exit__()


def upload(workshop: Workshop, count: int) -> list[str]:
    return workshop.upload(*(photographs.photograph(width=40 + n) for n in range(count)))


def run(workshop: Workshop, name: str = "run") -> None:
    """Run the analyzer once, in this process."""
    handler = signal.getsignal(signal.SIGTERM)
    components = build_worker(workshop.settings, workshop.web.plugin_manager)
    try:
        components.engine.run("caller", name, Interruption())
        components.engine.close()
    finally:
        signal.signal(signal.SIGTERM, handler)
        components.database.close()


def test_a_run_ends_in_a_pause_that_outlasts_it_and_the_pause_goes_on(
    calling, clustr_http, monkeypatch
):
    """RQ would end a process that waits for one pause after the other."""

    def ask_for_a_pause(_request: Received) -> Answer:
        for name in ("SLICE_SECONDS", "LONGEST_SLICE_SECONDS"):
            monkeypatch.setattr(f"clustr.analysis.engine.{name}", 0)
        return Answer(status=503, headers={"Retry-After": "30"})

    clustr_http.answer_by(ask_for_a_pause)
    workshop = calling()
    ids = upload(workshop, 6)
    run(workshop)
    found = [workshop.analysis(upload_id, "caller") for upload_id in ids]
    ends = Counter((analysis.state, analysis.attempts) for analysis in found)
    assert ends == {("deferred", 1): 2, ("queued", 0): 4}
    run(workshop, "another")
    assert len(clustr_http.received) == 2


def test_the_recovery_of_a_service_is_no_hang_of_the_plugin(calling, clustr_http, monkeypatch):
    """To wake all that waited may take long: the thread that looks for hangs is called off."""
    clustr_http.answer({})
    workshop = calling()
    [upload_id] = upload(workshop, 1)
    workshop.web.database.circuit_breakers.record_failure("caller", "away")
    close, alarms = CircuitBreakers.close, []

    def note_alarm(breakers: CircuitBreakers, analyzer: str) -> None:
        alarms.append(signal.getitimer(signal.ITIMER_REAL)[0])
        close(breakers, analyzer)

    monkeypatch.setattr(CircuitBreakers, "close", note_alarm)
    run(workshop)
    assert workshop.state_of(upload_id, "caller") == "succeeded"
    [seconds] = alarms
    assert seconds > 0


@pytest.mark.parametrize(
    ("attribute", "asked_seconds", "calls"),
    [
        ("concurrency = 2", 120, 2),
        ("concurrency = 1", 120, 1),
        ("max_attempts = 1", 30, 1),
        (OWN_ANALYZE, 30, 1),
    ],
)
def test_a_service_that_asks_for_a_time_that_no_pause_keeps_is_unavailable_at_once(
    calling, clustr_http, attribute, asked_seconds, calls
):
    clustr_http.answer(status=503, headers={"Retry-After": str(asked_seconds)})
    workshop = calling(attribute)
    ids = upload(workshop, 4)
    for number in range(3):
        run(workshop, f"run-{number}")
    assert len(clustr_http.received) == calls
    breaker = workshop.web.database.circuit_breakers.get("caller")
    assert breaker.open
    assert breaker.probe_at > now() + timedelta(seconds=20)
    assert {workshop.state_of(upload_id, "caller") for upload_id in ids} == {"deferred"}
