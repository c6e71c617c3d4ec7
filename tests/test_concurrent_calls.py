"""Calls to a service beside each other: as many as `concurrency` says, over all workers."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import photographs
import pytest
from bson import ObjectId
from running import wait_until
from workshop import HANG_IN_C, Workshop, another

from clustr.analysis import runner

Answer = tuple[int, dict[str, str]]  # its status and headers

DONE: Answer = (200, {})
CONCURRENCY = 8
SETTINGS = "CLUSTR_PLUGIN__CALLER"
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
        released: what `hold` waits for.
        calls: how often each id was sent.
        most: the most calls that were under way at a time.
    """

    def __init__(self) -> None:
        self.serve: Callable[[str, int], Answer] = lambda _id, _under_way: DONE
        self.released = threading.Event()
        self.calls: Counter[str] = Counter()
        self.most = self.under_way = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def hold(self, _id: str, _under_way: int) -> Answer:
        """Answer once calls are released."""
        self.released.wait(60)
        return DONE

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


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


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.stop()


@pytest.fixture
def calling(workshop: Workshop, service: Service) -> Iterator[Callable[..., Workshop]]:
    """A workshop with the analyzer `caller`, which calls the service."""

    def make(
        build: str = "pass",
        parse: str = "pass",
        concurrency: int = CONCURRENCY,
        timeout: float = 60,
        header: str = "",
    ) -> Workshop:
        workshop.environment[f"{SETTINGS}__SERVICE_URL"] = service.url
        workshop.environment[f"{SETTINGS}__TIMEOUT"] = str(timeout)
        source = CALLER.format(build=build, parse=parse, concurrency=concurrency)
        workshop.write("caller", header + HEADER + source)
        return workshop

    yield make
    workshop.environment.pop(f"{SETTINGS}__SERVICE_URL")
    workshop.environment.pop(f"{SETTINGS}__TIMEOUT")


def upload(workshop: Workshop, count: int) -> list[str]:
    contents = [photographs.photograph(width=40 + n) for n in range(count)]
    return [i for n in range(0, count, 10) for i in workshop.upload(*contents[n : n + 10])]


def wait_for_results(workshop: Workshop, ids: list[str]) -> None:
    for upload_id in ids:
        assert workshop.end_of(upload_id, "caller").result == {"id": upload_id}


def wait_for_calls(service: Service, count: int) -> None:
    wait_until(lambda: service.under_way == count, 60, "calls under way")


@pytest.mark.parametrize(("concurrency", "count"), [(CONCURRENCY, 30), (1, 6)])
def test_calls_are_under_way_beside_each_other_and_no_more_than_allowed_over_all_workers(
    calling, service, concurrency, count
):
    def serve(_id: str, under_way: int) -> Answer:
        if under_way == concurrency:
            service.released.set()
        service.released.wait(60)
        time.sleep(0.1)  # Others come meanwhile, if they may.
        return DONE

    service.serve = serve
    workshop = calling(concurrency=concurrency)
    ids = upload(workshop, count)
    workers = [workshop.worker(), workshop.worker()]
    wait_for_results(workshop, ids)
    assert service.calls == Counter(ids)
    assert service.most == concurrency
    assert all(worker.alive() for worker in workers)


def test_a_busy_service_gets_fewer_calls_and_all_are_answered(calling, service):
    was_busy = threading.Event()

    def serve(_id: str, under_way: int) -> Answer:
        if under_way > 2:
            was_busy.set()
            return 429, {"Retry-After": "1"}
        was_busy.wait(60)
        time.sleep(0.05)
        return DONE

    service.serve = serve
    workshop = calling()
    ids = upload(workshop, 10)
    worker = workshop.worker()
    wait_for_results(workshop, ids)
    assert max(service.calls.values()) > 1
    assert "analyzer_put_off" not in worker.output()


@pytest.mark.parametrize("concurrency", [CONCURRENCY, 1])
def test_nobody_calls_a_service_before_the_time_for_which_it_asked(calling, service, concurrency):
    began_at: list[float] = []

    def serve(_id: str, _under_way: int) -> Answer:
        began_at.append(time.monotonic())
        return (429, {"Retry-After": "3"}) if len(began_at) == 1 else DONE

    service.serve = serve
    workshop = calling(concurrency=concurrency)
    [first] = upload(workshop, 1)
    workshop.worker()
    workshop.worker()

    def is_put_off() -> bool:
        return workshop.state_of(first, "caller") == "deferred" or len(began_at) > 1

    wait_until(is_put_off, 60, "the answer that the service is busy")
    [second] = workshop.upload(photographs.photograph(width=50))
    wait_for_results(workshop, [first, second])
    assert began_at[1] - began_at[0] >= 3


def test_a_call_that_runs_out_of_time_while_others_are_answered_is_its_own_trouble(
    calling, service
):
    workshop = calling(timeout=3)
    [slow, *others] = upload(workshop, 10)

    def serve(upload_id: str, under_way: int) -> Answer:
        is_too_slow = upload_id == slow and service.calls[slow] == 1
        return service.hold(upload_id, under_way) if is_too_slow else DONE

    service.serve = serve
    worker = workshop.worker()
    wait_for_results(workshop, [slow, *others])
    assert service.calls == Counter([slow, slow, *others])
    assert "analyzer_put_off" not in worker.output()


def test_a_service_that_never_answers_opens_the_breaker_and_all_is_done_when_it_does(
    calling, service
):
    service.serve = service.hold
    workshop = calling(timeout=0.5)
    ids = upload(workshop, 10)
    workshop.worker()
    for upload_id in ids:
        workshop.wait_for_state(upload_id, "caller", "deferred")
    service.released.set()
    wait_for_results(workshop, ids)


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.parametrize("killed", ["its process", "its worker"])
def test_after_the_process_that_calls_is_killed_another_goes_on_and_nothing_is_doubled(
    calling, service, killed
):
    service.serve = service.hold
    workshop = calling()
    ids = upload(workshop, 20)
    workers = workshop.worker(), workshop.worker()
    wait_for_calls(service, CONCURRENCY)
    [(worker, process)] = [
        (worker, process)
        for worker in workers
        for process in worker.horses()
        if threads_of(process.pid) > CONCURRENCY
    ]
    if killed == "its process":
        process.kill()
    else:
        worker.end()
        workshop.end_leases()
    service.released.set()
    wait_for_results(workshop, ids)
    # The service does not know which calls are dead, and those alone are made again.
    assert service.most <= 2 * CONCURRENCY
    assert Counter(service.calls.values()) == {2: CONCURRENCY, 1: len(ids) - CONCURRENCY}


def test_a_segfault_in_one_analyzer_loses_and_doubles_no_call_of_another(calling, service):
    service.serve = service.hold
    workshop = calling()
    workshop.analyzer(
        "crashing",
        "while not Path('calls_are_under_way').exists(): time.sleep(0.02)\n"
        "if image.width == 40: ctypes.string_at(0)\n"
        "return {}",
        max_attempts=1,
    )
    [poisonous, *others] = ids = upload(workshop, CONCURRENCY - 1)
    worker = workshop.worker()
    wait_for_calls(service, len(ids))
    (workshop.folder / "calls_are_under_way").touch()
    crashed = workshop.end_of(poisonous, "crashing")
    assert (crashed.state, crashed.error) == ("failed", "its process was killed by SIGSEGV")
    for upload_id in others:
        assert workshop.end_of(upload_id, "crashing").state == "succeeded"
    assert service.under_way == len(ids)
    service.released.set()
    wait_for_results(workshop, ids)
    assert service.calls == Counter(ids)
    assert {workshop.analysis(upload_id, "caller").attempts for upload_id in ids} == {1}
    assert worker.alive()


def test_sigterm_puts_calls_under_way_back_without_counting_them(calling, service):
    service.serve = service.hold
    workshop = calling()
    ids = upload(workshop, 4)
    worker = workshop.worker()
    wait_for_calls(service, 4)
    assert worker.stop() == 0
    for upload_id in ids:
        analysis = workshop.analysis(upload_id, "caller")
        assert (analysis.state, analysis.attempts) == ("queued", 0)


HANG_AT_THE_FIRST_CALL = f"""
        if not Path("hung").exists():
            Path("hung").touch()
            {HANG_IN_C}
"""
# The plugin shortens what its process grants it.
IMPATIENT = """
from clustr.analysis import runner
runner.PREPARATION_SECONDS = 1
"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> str:
    """What makes code beside calls run out of time soon; in this process it is put back."""
    monkeypatch.setattr(runner, "PREPARATION_SECONDS", 1)
    return IMPATIENT


def test_what_hangs_beside_a_call_ends_the_process_and_the_calls_are_made_again(
    calling, service, impatient
):
    workshop = calling(parse=HANG_AT_THE_FIRST_CALL, header=impatient)
    ids = upload(workshop, 8)
    worker = workshop.worker()
    wait_for_results(workshop, ids)
    assert "work_horse_died" in worker.output()
    assert set(service.calls) == set(ids)


def test_code_beside_a_call_that_takes_too_long_fails_its_own_analysis(calling, impatient):
    parse = "while Path('slow').exists(): time.sleep(0.05)"
    workshop = calling(parse=parse, header=impatient)
    (workshop.folder / "slow").touch()
    [slow] = upload(workshop, 1)
    workshop.worker()
    found = workshop.end_of(slow, "caller")
    assert (found.state, found.error) == ("failed", "took longer than 1 seconds")
    (workshop.folder / "slow").unlink()
    wait_for_results(workshop, upload(workshop, 3))


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """For as long as the block takes, nobody can say what the folder is."""
    away = folder.with_name("away")
    folder.rename(away)
    folder.symlink_to(TOO_LONG)
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)


@pytest.mark.parametrize("concurrency", [1, CONCURRENCY])
def test_an_upload_that_cannot_be_looked_at_holds_up_no_other(calling, concurrency):
    workshop = calling(concurrency=concurrency)
    [good] = upload(workshop, 1)
    folder, old = workshop.settings.upload_folder, ObjectId("0" * 24)
    broken = another(workshop.collection.find_one(), _id=old, filename=f"{old}.jpg")
    workshop.collection.insert_one(broken)
    (folder / "0000").mkdir()
    with unreadable(folder / "0000"):
        workshop.worker()
        wait_for_results(workshop, [good])
        failed = workshop.end_of(str(old), "caller")
    assert (failed.state, failed.error) == (
        "failed",
        "Files cannot be read at the moment; please try again.",
    )
    with unreadable(folder):
        queued = {"$set": {"analyses.0.state": "queued"}}
        workshop.collection.update_one({"_id": ObjectId(good)}, queued)
        workshop.wait_for_state(good, "caller", "deferred")


def test_other_analyzers_do_not_wait_for_a_slow_service(calling, service):
    service.serve = service.hold
    workshop = calling()
    workshop.analyzer("quick", "return {}")
    workshop.worker()
    first = upload(workshop, 2)
    wait_for_calls(service, 2)
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
