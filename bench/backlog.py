"""The rows of a backlog: what people wait for beside it, and whether a steady load makes one.

`python -m bench backlog steady` measures them, with the workers of `clustr up` and an instant
captioner.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pymongo
from pymongo.collection import Collection

from bench import load
from bench.analyses import WARM_UPS, WORKERS, wait_until_processed, working
from bench.large import family
from bench.listing import proportional
from bench.rows import PHOTO_BYTES, Figure
from bench.service import Contender, process

BACKLOG, FILES, CLIENTS = 5_000, 10, 4
READS, UPLOADS = 1_000, 300
STEADY, FIRST = 2_000, 1_000
LOOK_SECONDS = 0.5


def backlog(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """The p99 of what people do while workers have 5,000 uploads to analyze; floor: no workers."""
    ours, _ = contenders
    photo = load.photograph(PHOTO_BYTES)
    with pymongo.MongoClient(ours.settings["MONGODB_URL"]) as client:
        uploads = client[ours.settings["MONGODB_DATABASE"]]["uploads"]
        uploads.delete_many({})
        filled = load.uploads(ours.url, photo, BACKLOG // FILES, CLIENTS, FILES)
        file = f"/uploads/{load.ids(filled)[0]}.jpg"
        loads: dict[str, Callable[[], load.Measured]] = {
            "first page of 20": lambda: load.gets(ours.url, ["/api/uploads"], READS, CLIENTS),
            "200 KB JPEG": lambda: load.uploads(ours.url, photo, UPLOADS, CLIENTS),
            "200 KB by GET /uploads/...": lambda: load.gets(ours.url, [file], READS, CLIENTS),
        }
        alone, beside = [], []
        for _ in range(rounds):
            alone.append([p99(measure()) for measure in loads.values()])
            with process(sys.executable, *WORKERS[ours.name], **ours.settings):
                wait_for_more(uploads)
                beside.append([p99(measure()) for measure in loads.values()])
                assert uploads.find_one({"status": "pending"}), "the backlog was done before"
    work = f"{{}}, {CLIENTS} clients, beside a backlog of {BACKLOG}; floor: without workers"
    return [
        Figure(work.format(name), "p99 ms", busy, idle, bound=1.5, less_is_better=True)
        for name, busy, idle in zip(
            loads, zip(*beside, strict=True), zip(*alone, strict=True), strict=True
        )
    ]


def p99(measured: load.Measured) -> float:
    """Milliseconds."""
    return measured.percentile(0.99) * 1000


def wait_for_more(uploads: Collection) -> None:
    """Wait until another upload is processed than those that are."""
    processed = {"status": "processed"}
    before = uploads.count_documents(processed)
    while uploads.count_documents(processed) == before:
        time.sleep(0.02)


def steady(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """2,000 uploads of one client, one after the other: how far the analyses are behind."""
    ours, _ = contenders
    photo = load.photograph(PHOTO_BYTES)
    processed, accepted, grown = [], [], []
    for _ in range(rounds):
        with working(ours) as (uploads, pid):
            load.uploads(ours.url, photo, WARM_UPS, WARM_UPS)
            wait_until_processed(uploads)
            began = time.perf_counter()
            with watched(pid) as most_at_first:
                first = load.uploads(ours.url, photo, FIRST, 1)
                wait_until_processed(uploads)
            with watched(pid) as most_later:
                rest = load.uploads(ours.url, photo, STEADY - FIRST, 1)
                wait_until_processed(uploads)
            grown.append((most_later.bytes - most_at_first.bytes) / 1e6)
            processed.append(STEADY / (time.perf_counter() - began))
            accepted.append(STEADY / (first.seconds + rest.seconds))
    return [
        Figure(
            f"{STEADY} uploads, one after the other: processed; floor: accepted",
            "uploads/s",
            processed,
            accepted,
            bound=0.7,
        ),
        Figure(f"  growth of the workers after the first {FIRST}", "MB of PSS", grown, most=10),
    ]


@dataclass
class Memory:
    """The most that processes had in memory at once."""

    bytes: int = 0


@contextmanager
def watched(pid: int) -> Iterator[Memory]:
    """The most that a process and those it made have in memory at once during the block.

    Analyzers have processes that come and go, so that at one moment there are more than at another.
    """
    most, is_over = Memory(), threading.Event()

    def watch() -> None:
        while not is_over.wait(LOOK_SECONDS):
            most.bytes = max(most.bytes, proportional(family(pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        is_over.set()
        watcher.join()
