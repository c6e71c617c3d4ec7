"""A fault of one image, told apart from an ill service; and a busy service from an ill one."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import photographs
import pytest
from blip_stand_in import BlipStandIn
from running import wait_until
from stored_analyses import an_upload
from workshop import Workshop

from clustr.analysis.ends import End
from clustr.analysis.image_faults import ImageFaults
from clustr.database import ClaimedAnalysis, Database, now
from clustr.domain.models import Analysis, State
from clustr.plugins import Analyzer, HttpAnalyzer, HttpConfig
from clustr.services.health import ServiceHealth, overall_status

POISON = photographs.photograph("jpg", "astronaut")
FAULT = End(State.DEFERRED, error="The captioner answered with status 500.", is_fault=True)
BUSY = End(State.DEFERRED, error="The captioner answered with status 429.")
GOOD = End(State.SUCCEEDED, result={})


class Captioner(HttpAnalyzer):
    name = "a"
    service = "captioner"


@pytest.fixture
def captioner() -> Captioner:
    return Captioner(HttpConfig().load({"service_url": "http://captioner:8001"}))


class Attempts:
    """The attempts at one image: each begins where the one before has ended."""

    def __init__(self, database: Database, analyzer: Analyzer):
        self.faults = ImageFaults(database, analyzer)
        self.upload = an_upload((Analysis("a", 1, State.QUEUED),))
        self.count = 0
        self.fault_at = None

    def fail(self, end: End = FAULT) -> End:
        [(_, judged)] = self.faults.judge([(self.claimed(), end)])
        if judged.faults is not None:
            self.count, self.fault_at = judged.faults, now()
        return judged

    def claimed(self) -> ClaimedAnalysis:
        return ClaimedAnalysis(self.upload, 1, now(), self.count, self.fault_at)

    def see_another_succeed(self) -> None:
        moment = now()
        wait_until(lambda: now() > moment, 60, "the next millisecond")
        self.faults.judge([(self.claimed(), GOOD)])


def test_an_image_whose_calls_fail_while_others_succeed_is_failed(database, captioner):
    attempts = Attempts(database, captioner)
    for _ in range(2):
        assert attempts.fail().state is State.DEFERRED
        attempts.see_another_succeed()
    end = attempts.fail()
    assert end.state is State.FAILED
    assert end.error == (
        "The captioner answered with status 500. It failed 3 times, while calls for other images "
        "succeeded."
    )


def test_while_nothing_succeeds_all_wait(database, captioner):
    attempts = Attempts(database, captioner)
    attempts.see_another_succeed()
    for _ in range(20):
        assert attempts.fail().state is State.DEFERRED
    assert attempts.count == 1


def test_a_service_that_is_busy_is_not_the_fault_of_an_image(database, captioner):
    attempts = Attempts(database, captioner)
    for _ in range(5):
        assert attempts.fail(BUSY) is BUSY
        attempts.see_another_succeed()
    assert attempts.count == 0


def test_an_analyzer_with_one_attempt_is_not_failed_by_the_first_fault(database, captioner):
    captioner.max_attempts = 1
    attempts = Attempts(database, captioner)
    assert attempts.fail().state is State.DEFERRED
    attempts.see_another_succeed()
    assert attempts.fail().state is State.FAILED


def test_a_success_that_another_process_saw_counts(database, captioner):
    attempts = Attempts(database, captioner)
    attempts.fail()
    database.service_calls.record_success("a", now() + timedelta(milliseconds=5))
    attempts.fail()
    assert attempts.count == 2


def test_what_calls_no_service_has_no_faults(database):
    class Plain(Analyzer):
        name = "a"

    attempts = Attempts(database, Plain())
    for _ in range(5):
        assert attempts.fail() is FAULT
        attempts.see_another_succeed()
    assert database.service_calls.last_success("a") is None


class Picky(BlipStandIn):
    """A captioner that cannot read one picture, as the predecessor's."""

    @property
    def answer_status(self) -> int:
        return 500 if self.requests[-1].content == POISON else 200

    @answer_status.setter
    def answer_status(self, status: int) -> None:
        """It follows from the picture."""


@pytest.fixture
def picky() -> Iterator[Picky]:
    with Picky() as running:
        yield running


@pytest.fixture
def workshop(tmp_path, servers, picky) -> Iterator[Callable[..., Workshop]]:
    """A workshop in which the analyzer `blip` is the only one."""
    opened: list[Workshop] = []

    def make(**settings: str) -> Workshop:
        address = {"BLIP_SERVICE_URL": picky.url, "PLUGINS_ENABLED": "blip"}
        opened.append(
            Workshop(tmp_path, servers, **{"PLUGINS_DISABLED": "", **address, **settings})
        )
        return opened[-1]

    yield make
    for one in opened:
        one.__exit__()


@pytest.mark.parametrize("concurrency", ["1", "8"])
def test_an_image_that_the_service_cannot_read_is_failed_and_all_others_succeed(
    workshop, picky, concurrency
):
    running = workshop(CLUSTR_PLUGIN__BLIP__CONCURRENCY=concurrency)
    contents = (photographs.photograph(width=40 + n) for n in range(100))
    [poisoned, *others] = running.upload(POISON, *(next(contents) for _ in range(10)))
    worker = running.worker()

    def is_failed() -> bool:
        others.extend(running.upload(next(contents)))
        running.end_of(others[-1], "blip")
        return running.state_of(poisoned, "blip") == "failed"

    wait_until(is_failed, 60, "the end of the image that cannot be read")
    assert "status 500" in running.analysis(poisoned, "blip").error
    assert "It failed 3 times" in running.analysis(poisoned, "blip").error
    assert {running.end_of(one, "blip").state for one in others} == {"succeeded"}
    assert sum(received.content == POISON for received in picky.requests) <= 10
    if concurrency == "8":
        assert running.stored(poisoned, "blip")["faults"] == 3
    assert worker.alive()


def test_a_captioner_that_is_too_busy_to_answer_is_not_ill(workshop, picky):
    running = workshop()
    database = running.web.database
    picky.mode = "hang"

    def status() -> str:
        health = running.app.test_client().get("/api/health").get_json()
        captioner = health["services"]["captioner"]
        assert "does not answer within 1.5 seconds" in captioner["detail"]
        return captioner["status"]

    assert status() == "unhealthy"
    running.upload()
    database.analyses.claim("blip", 1, "run", 1, timedelta(hours=1), State.QUEUED)
    assert status() == "busy"
    database.service_calls.record_success("blip", now() - timedelta(seconds=70))
    assert status() == "busy"
    database.service_calls.record_success("blip", now())
    assert status() == "healthy"
    database.circuit_breakers.record_failure("blip", "away")
    assert status() == "unhealthy"


def test_a_busy_service_is_no_trouble():
    services = {name: ServiceHealth("healthy") for name in ("database", "storage")}
    assert overall_status({**services, "captioner": ServiceHealth("busy")}) == "healthy"
