"""Under load: servers are killed, processes replaced, and what was acknowledged is there."""

import http.client
import itertools
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import photographs
import pytest
from calling import BOUNDARY, form, named
from ledger import Ledger, sha256
from running import Process, Servers, wait_until
from web_side import WebSide
from workshop import Outage, Workshop

WRITERS = 4
ANALYSED_WITHIN_SECONDS = 60


@pytest.fixture
def outage(tmp_path: Path) -> Iterator[Outage]:
    servers = Outage(tmp_path / "servers")
    try:
        servers.start()
        yield servers
    finally:
        servers.end()


@contextmanager
def web_and_worker(folder: Path, servers: Servers) -> Iterator[WebSide]:
    """A web side and a worker."""
    with Workshop(folder, servers, PLUGINS_DISABLED="blip,exif,palette,phash") as workshop:
        web = WebSide(workshop, processes=2)
        workshop.worker("--workers", "1")
        yield web


@pytest.fixture(scope="module")
def web_side(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[WebSide]:
    with web_and_worker(tmp_path_factory.mktemp("web"), servers) as web:
        yield web


@pytest.fixture(scope="module")
def ledger(web_side: WebSide) -> Ledger:
    """What was sent to `web_side` by all tests."""
    return Ledger(web_side.url)


@contextmanager
def load(ledger: Ledger) -> Iterator[None]:
    """Uploads without a pause, by several writers at once."""
    numbers = itertools.count()
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            ledger.upload(photographs.unique("jpg", next(numbers)))

    writers = [threading.Thread(target=write) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        over.set()
        for writer in writers:
            writer.join()


def wait_for_more(ledger: Ledger, count: int, status: int = 201) -> None:
    """Wait for so many more answers with this status."""
    wanted = ledger.answers[status] + count
    wait_until(lambda: ledger.answers[status] >= wanted, 60, f"{count} times {status}")


def check(web: WebSide, ledger: Ledger) -> None:
    ledger.check(ANALYSED_WITHIN_SECONDS)
    _, found = web.fsck("--grace", "0")
    # Where no answer of MongoDB came, the files stay: it may have the records.
    assert {one["kind"] for one in found["findings"]} <= {"orphaned"}


def test_C10_mongod_killed_under_load_loses_nothing_that_was_acknowledged(tmp_path, outage):
    with web_and_worker(tmp_path, outage) as web:
        ledger = Ledger(web.url)
        with load(ledger):
            wait_for_more(ledger, 5 * WRITERS)
            outage.kill("mongod")
            wait_for_more(ledger, 1, status=503)
            outage.start_again("mongod")
            wait_for_more(ledger, 1)
        faults = [line for line in web.gunicorn.lines() if line["event"] == "fault"]
        assert set(ledger.answers) == {201, 503}, faults
        check(web, ledger)


def test_C13_processes_replaced_under_load_fail_no_request(web_side, ledger):
    with load(ledger):
        wait_for_more(ledger, 5 * WRITERS)
        before = web_side.workers()
        web_side.gunicorn.signal(signal.SIGHUP)
        wait_until(lambda: replaced(web_side, before), 60, "other processes")
        wait_for_more(ledger, 5 * WRITERS)
    assert set(ledger.answers) == {201}
    check(web_side, ledger)


def replaced(web: WebSide, before: list[Process]) -> bool:
    now = web.workers()
    return len(now) == web.processes and not set(now) & set(before)


def test_C13_an_end_that_is_asked_for_waits_for_the_upload_under_way(web_side, ledger):
    content = photographs.unique("bmp", 1, 400, 250)
    body = form((named(b"photograph.bmp"), content))
    connection = http.client.HTTPConnection(urlsplit(web_side.url).netloc, timeout=60)
    connection.putrequest("POST", "/api/upload")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:-100])
    wait_until(web_side.temporary_files, 60, "the beginning of the upload")
    web_side.gunicorn.signal(signal.SIGTERM)
    wait_until(lambda: "Handling signal: term" in web_side.gunicorn.output(), 60, "its reaction")
    connection.send(body[-100:])
    answer = connection.getresponse()
    assert answer.status == 201
    (one,) = json.loads(answer.read())["data"]
    connection.close()
    assert web_side.gunicorn.process.wait(60) == 0
    web_side.start()
    ledger.sent.add(sha256(content))
    ledger.acknowledged[one["id"]] = sha256(content)
    check(web_side, ledger)
