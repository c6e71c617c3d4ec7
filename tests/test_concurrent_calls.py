"""Calls to a service beside each other: as many as `concurrency` says, over all workers."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import photographs
import pytest
from bson import ObjectId
from running import wait_until
from workshop import HANG_IN_C, Workshop, another

CONCURRENCY = 8
TOO_LONG = "x" * 300  # A link to it stands for what cannot be looked at: no name can be so long.

# An analyzer that sends the id of the upload, so that the service knows who calls.
CALLER = """
class Answer(Schema):
    id = fields.String(required=True)

class Caller(HttpAnalyzer):
    name = "caller"
    service = "service"
    result_schema = Answer
    concurrency = {concurrency}
    def build_request(self, image, context):
        {build}
        return {{"data": image.id.encode()}}
    def parse(self, answer):
        {parse}
        return answer

@hookimpl
def clustr_config_schema():
    return HttpConfig

@hookimpl
def clustr_register_analyzers(config):
    return [Caller(config)]
"""
HEADER = """
import ctypes, time
from pathlib import Path
from marshmallow import Schema, fields
from clustr.plugins import *
CLUSTR_API = 1
"""


class Service:
    """A real HTTP server that counts the calls which are under way.

    Attributes:
        serve: called with the id that was sent and how many calls are under way; returns the status
            and headers of the answer.
        calls: how often each id was sent.
        most: the most calls that were under way at a time.
    """

    def __init__(self, serve: Callable[[str, int], tuple[int, dict[str, str]]]):
        self.serve = serve
        self.calls: Counter[str] = Counter()
        self.most = self.under_way = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    service: Service

    def do_POST(self) -> None:
        service = self.service
        upload_id = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with service.lock:
            service.calls[upload_id] += 1
            service.under_way += 1
            service.most = max(service.most, service.under_way)
            under_way = service.under_way
        try:
            status, headers = service.serve(upload_id, under_way)
        finally:
            with service.lock:
                service.under_way -= 1
        body = json.dumps({"id": upload_id}).encode()
        with suppress(OSError):  # A client that was killed reads no answer.
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def takes(seconds: float) -> Callable[[str, int], tuple[int, dict[str, str]]]:
    def serve(_id: str, _under_way: int) -> tuple[int, dict[str, str]]:
        time.sleep(seconds)
        return 200, {}

    return serve


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service(takes(0.2))
    yield running
    running.stop()


@pytest.fixture
def calling(tmp_path, servers, service) -> Iterator[Callable[..., Workshop]]:
    """A workshop with the analyzer `caller`, which calls the service."""
    opened: list[Workshop] = []

    def make(
        build: str = "pass",
        parse: str = "pass",
        concurrency: int = CONCURRENCY,
        timeout: float = 20,
    ) -> Workshop:
        workshop = Workshop(
            tmp_path,
            servers,
            CLUSTR_PLUGIN__CALLER__SERVICE_URL=service.url,
            CLUSTR_PLUGIN__CALLER__TIMEOUT=str(timeout),
        )
        opened.append(workshop)
        source = CALLER.format(build=build, parse=parse, concurrency=concurrency)
        workshop.write("caller", HEADER + source)
        return workshop

    yield make
    for workshop in opened:
        workshop.__exit__()


def upload(workshop: Workshop, count: int) -> list[str]:
    contents = [photographs.photograph(width=40 + n) for n in range(count)]
    return [i for n in range(0, count, 10) for i in workshop.upload(*contents[n : n + 10])]


def wait_for_results(workshop: Workshop, ids: list[str], seconds: float = 40) -> None:
    for upload_id in ids:
        assert workshop.end_of(upload_id, "caller", seconds).result == {"id": upload_id}


@pytest.mark.parametrize(("concurrency", "count"), [(CONCURRENCY, 40), (1, 10)])
def test_calls_are_under_way_beside_each_other_and_no_more_than_allowed_over_all_workers(
    calling, service, concurrency, count
):
    workshop = calling(concurrency=concurrency)
    ids = upload(workshop, count)
    workers = [workshop.worker(), workshop.worker()]
    wait_for_results(workshop, ids)
    assert service.calls == Counter(ids)
    assert service.most == concurrency
    assert all(worker.alive() for worker in workers)


def test_a_busy_service_gets_fewer_calls_and_all_are_answered(calling, service):
    def serve(_id: str, under_way: int) -> tuple[int, dict[str, str]]:
        time.sleep(0.05)
        return (429, {"Retry-After": "1"}) if under_way > 2 else (200, {})

    service.serve = serve
    workshop = calling()
    ids = upload(workshop, 20)
    worker = workshop.worker()
    wait_for_results(workshop, ids)
    assert max(service.calls.values()) > 1
    assert "analyzer_put_off" not in worker.output()


@pytest.mark.parametrize("concurrency", [CONCURRENCY, 1])
def test_nobody_calls_a_service_before_the_time_for_which_it_asked(calling, service, concurrency):
    began_at: list[float] = []

    def serve(_id: str, _under_way: int) -> tuple[int, dict[str, str]]:
        began_at.append(time.monotonic())
        return (429, {"Retry-After": "3"}) if len(began_at) == 1 else (200, {})

    service.serve = serve
    workshop = calling(concurrency=concurrency)
    [first] = upload(workshop, 1)
    workshop.worker()
    workshop.worker()
    workshop.wait_for_state(first, "caller", "deferred")
    [second] = workshop.upload(photographs.photograph(width=50))
    wait_for_results(workshop, [first, second])
    assert began_at[1] - began_at[0] >= 3


def test_a_call_that_runs_out_of_time_while_others_are_answered_is_its_own_trouble(
    calling, service
):
    released = threading.Event()
    workshop = calling(timeout=1)
    [slow, *others] = upload(workshop, 10)

    def serve(upload_id: str, _under_way: int) -> tuple[int, dict[str, str]]:
        if upload_id == slow:
            released.wait(20)
        time.sleep(0.3)
        return 200, {}

    service.serve = serve
    worker = workshop.worker()
    wait_for_results(workshop, others)
    workshop.wait_for_state(slow, "caller", "deferred")
    assert "did not answer in time" in workshop.analysis(slow, "caller").error
    assert "analyzer_put_off" not in worker.output()
    released.set()
    wait_for_results(workshop, [slow])


def test_a_service_that_never_answers_opens_the_breaker_and_all_is_done_when_it_does(
    calling, service
):
    released = threading.Event()

    def serve(_id: str, _under_way: int) -> tuple[int, dict[str, str]]:
        released.wait(20)
        return 200, {}

    service.serve = serve
    workshop = calling(timeout=0.5)
    ids = upload(workshop, 30)
    workshop.worker()
    for upload_id in ids:
        workshop.wait_for_state(upload_id, "caller", "deferred")
    released.set()
    wait_for_results(workshop, ids)


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


# With its worker, the reconciler may die that looks for what waits; that is replaced first.
@pytest.mark.parametrize(("killed", "seconds"), [("its process", 15), ("its worker", 35)])
def test_after_the_process_that_calls_is_killed_another_goes_on_and_nothing_is_doubled(
    calling, service, killed, seconds
):
    service.serve = takes(1)
    workshop = calling()
    ids = upload(workshop, 60)
    first, second = workshop.worker(), workshop.worker()
    wait_until(lambda: service.most == CONCURRENCY, 20, "calls under way")
    [(worker, process)] = [
        (worker, process)
        for worker in (first, second)
        for process in worker.horses()
        if threads_of(process.pid) > CONCURRENCY
    ]
    if killed == "its process":
        process.kill()
    else:
        worker.end()
        workshop.end_leases()
    seen = sum(service.calls.values()) + CONCURRENCY  # Some may have been sent and not yet read.
    wait_until(lambda: sum(service.calls.values()) > seen, seconds, "calls of another process")
    wait_for_results(workshop, ids, 60)
    assert service.most <= 2 * CONCURRENCY  # The service does not know which calls are dead.
    assert sum(service.calls.values()) <= len(ids) + CONCURRENCY


def test_a_segfault_in_one_analyzer_loses_and_doubles_no_call_of_another(calling, service):
    released = threading.Event()

    def serve(_id: str, _under_way: int) -> tuple[int, dict[str, str]]:
        released.wait(60)
        return 200, {}

    service.serve = serve
    workshop = calling(timeout=60)
    workshop.analyzer(
        "crashing",
        "while not Path('calls_are_under_way').exists(): time.sleep(0.02)\n"
        "if image.width == 40: ctypes.string_at(0)\n"
        "return {}",
    )
    [poisonous, *others] = ids = upload(workshop, CONCURRENCY - 1)
    worker = workshop.worker()
    wait_until(lambda: service.under_way == len(ids), 20, "calls under way")
    (workshop.folder / "calls_are_under_way").touch()
    crashed = workshop.end_of(poisonous, "crashing", 40)
    assert (crashed.state, crashed.error) == ("failed", "its process was killed by SIGSEGV")
    for upload_id in others:
        assert workshop.end_of(upload_id, "crashing", 40).state == "succeeded"
    assert service.under_way == len(ids)
    released.set()
    wait_for_results(workshop, ids)
    assert service.calls == Counter(ids)
    assert {workshop.analysis(upload_id, "caller").attempts for upload_id in ids} == {1}
    assert worker.alive()


def test_sigterm_puts_calls_under_way_back_without_counting_them(calling, service):
    service.serve = takes(20)
    workshop = calling()
    ids = upload(workshop, 4)
    worker = workshop.worker()
    wait_until(lambda: service.under_way == 4, 20, "calls under way")
    assert worker.stop() == 0
    for upload_id in ids:
        analysis = workshop.analysis(upload_id, "caller")
        assert (analysis.state, analysis.attempts) == ("queued", 0)


HANG_AT_THE_FIRST_CALL = f"""
        if not Path("hung").exists():
            Path("hung").touch()
            {HANG_IN_C}
"""


def test_what_hangs_beside_a_call_ends_the_process_and_the_calls_are_made_again(calling, service):
    service.serve = takes(0.5)
    workshop = calling(parse=HANG_AT_THE_FIRST_CALL)
    ids = upload(workshop, 8)
    worker = workshop.worker()
    wait_for_results(workshop, ids, 60)
    assert "work_horse_died" in worker.output()
    assert set(service.calls) == set(ids)


def test_code_beside_a_call_that_takes_too_long_fails_its_own_analysis(calling, service):
    workshop = calling(parse="while Path('slow').exists(): time.sleep(0.05)")
    (workshop.folder / "slow").touch()
    [slow] = upload(workshop, 1)
    workshop.worker()
    found = workshop.end_of(slow, "caller", 40)
    assert (found.state, found.error) == ("failed", "took longer than 10 seconds")
    (workshop.folder / "slow").unlink()
    wait_for_results(workshop, upload(workshop, 3))


@pytest.mark.parametrize("concurrency", [1, CONCURRENCY])
def test_an_upload_that_cannot_be_looked_at_holds_up_no_other(calling, concurrency):
    workshop = calling(concurrency=concurrency)
    [good] = upload(workshop, 1)
    folder, old = workshop.settings.upload_folder, ObjectId("0" * 24)
    broken = another(workshop.collection.find_one(), _id=old, filename=f"{old}.jpg")
    workshop.collection.insert_one(broken)
    (folder / "0000").symlink_to(TOO_LONG)
    workshop.worker()
    wait_for_results(workshop, [good])
    failed = workshop.end_of(str(old), "caller")
    assert (failed.state, failed.error) == (
        "failed",
        "Files cannot be read at the moment; please try again.",
    )
    folder.rename(folder.with_name("away"))
    folder.symlink_to(TOO_LONG)
    queued = {"$set": {"analyses.0.state": "queued"}}
    workshop.collection.update_one({"_id": ObjectId(good)}, queued)
    workshop.wait_for_state(good, "caller", "deferred")


def test_other_analyzers_do_not_wait_for_a_slow_service(calling, service):
    service.serve = takes(15)
    workshop = calling()
    workshop.analyzer("quick", "return {}")
    workshop.worker()
    first = upload(workshop, 2)
    wait_until(lambda: service.under_way == 2, 20, "calls under way")
    for upload_id in [*first, *upload(workshop, 3)]:
        workshop.end_of(upload_id, "quick")
    assert {workshop.state_of(upload_id, "caller") for upload_id in first} == {"running"}


@pytest.mark.parametrize(
    "concurrency, allowed", [("0", False), ("1", True), ("64", True), ("65", False), ("x", False)]
)
def test_concurrency_is_configured_within_bounds(load, concurrency, allowed):
    environment = {"CLUSTR_PLUGIN__BLIP__CONCURRENCY": concurrency}
    manager = load(enabled=("blip",), environment=environment)
    blip = next(plugin for plugin in manager.plugins if plugin.name == "blip")
    assert (blip.state == "loaded") == allowed
    if allowed:
        assert blip.analyzers[0].concurrency == int(concurrency)
    else:
        assert "concurrency" in blip.reason
