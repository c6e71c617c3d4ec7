"""The rows of calls to a service: how well a slow captioner is used, and what waits for it.

`python -m bench calls` measures them.
"""

import http.client
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pymongo
from pymongo.collection import Collection

from bench import load
from bench.analyses import wait_until_processed
from bench.rows import PHOTO_BYTES, Figure
from bench.service import Contender, captioner, process
from clustr.cli.start import UP_WORKERS

QUICK = ("dimensions", "exif", "palette", "phash")


@contextmanager
def uploaded(
    ours: Contender, uploads: int, limits: tuple[str, ...], workers: int
) -> Iterator[tuple[Collection, str]]:
    """Uploads that wait, a captioner with these limits, and workers that begin; what has come."""
    with (
        captioner(*limits) as where,
        pymongo.MongoClient(ours.settings["MONGODB_URL"]) as client,
    ):
        found = client[ours.settings["MONGODB_DATABASE"]]["uploads"]
        found.delete_many({})
        load.uploads(ours.url, load.photograph(PHOTO_BYTES), uploads, 8)
        command = (sys.executable, "-m", "clustr", "worker", "--workers", str(workers))
        with process(*command, **ours.settings | where):
            while made(where["BLIP_SERVICE_URL"]) == 0 and not has_any(found, "palette"):
                time.sleep(0.005)
            yield found, where["BLIP_SERVICE_URL"]


def made(url: str) -> int:
    """How many captions were made."""
    with urllib.request.urlopen(url) as answer:
        return int(answer.read())


def has_any(uploads: Collection, analyzer: str) -> bool:
    ended = {"$elemMatch": {"name": analyzer, "state": "succeeded"}}
    return uploads.find_one({"analyses": ended}, {"_id": 1}) is not None


def wait_for(uploads: Collection, analyzers: Sequence[str]) -> None:
    """Wait until all uploads have the results of these."""
    ended = [{"$elemMatch": {"name": analyzer, "state": "succeeded"}} for analyzer in analyzers]
    while uploads.find_one({"analyses": {"$not": {"$all": ended}}}, {"_id": 1}):
        time.sleep(0.02)


def bare_client(url: str, calls: int, connections: int) -> float:
    """The calls a second that a client with so many connections gets from a captioner."""
    host, _, port = url.removeprefix("http://").partition(":")
    photo = load.photograph(PHOTO_BYTES)

    def call_all(count: int) -> None:
        connection = http.client.HTTPConnection(host, int(port))
        for _ in range(count):
            connection.request("POST", "/caption", photo)
            connection.getresponse().read()

    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(call_all, [calls // connections] * connections))
    return calls / (time.perf_counter() - began)


def seconds_of(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def calls(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """Captioners that take their time."""
    ours, _ = contenders
    many, rate, bare, others, received = [], [], [], [], []
    for _ in range(rounds):
        with uploaded(ours, 200, ("0.2",), workers=1) as (uploads, _url):
            many.append(seconds_of(lambda: wait_until_processed(uploads)))
        with uploaded(ours, 1000, ("0.1", "4"), workers=1) as (uploads, url):
            rate.append(1000 / seconds_of(lambda: wait_until_processed(uploads)))
            bare.append(bare_client(url, 200, connections=4))
        with uploaded(ours, 20, ("30", "1"), workers=UP_WORKERS) as (uploads, _url):
            others.append(seconds_of(lambda: wait_for(uploads, QUICK)))
        with uploaded(ours, 30, ("1", "1"), workers=8) as (uploads, url):
            wait_until_processed(uploads)
            received.append(30 / made(url))
    return [
        Figure("200 uploads, captions of 200 ms, many at once", "seconds", many, most=8),
        Figure(
            "1,000 uploads, captions of 100 ms, 4 at once; floor: a bare client",
            "captions/s",
            rate,
            bare,
            bound=0.85,
        ),
        Figure("20 uploads, captions of 30 s: all other analyses", "seconds", others, most=3),
        Figure(
            "8 workers, captions of 1 s, one at a time: received of those made",
            "part",
            received,
            least=0.97,
        ),
    ]
