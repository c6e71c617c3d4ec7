"""The rows of the table: what is measured, and how much of the floor it must reach."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pymongo

from bench import load
from bench.large import large_upload
from bench.service import Contender, process

KILOBYTE, GIGABYTE = 1000, 1_000_000_000
PHOTO_BYTES = 200 * KILOBYTE


@dataclass(frozen=True)
class Figure:
    """A figure of both contenders or of ours alone, round by round, and its bound.

    Attributes:
        bound: the least ratio of ours to the floor's; the most when `less_is_better`.
        most, least: what ours alone may be, where it is not the ratio that counts; infinity for a
            figure that is only reported.
    """

    work: str
    unit: str
    ours: Sequence[float]
    floor: Sequence[float] = ()
    bound: float = 0.0
    less_is_better: bool = False
    most: float | None = None
    least: float | None = None

    @property
    def compares(self) -> bool:
        """Whether it is the ratio that has a bound."""
        return self.most is None and self.least is None

    @property
    def ratio(self) -> float:
        """The median of the ratios of the rounds, each of which measured both."""
        pairs = zip(self.ours, self.floor, strict=True)
        return statistics.median(o / f if f else 1.0 for o, f in pairs)

    @property
    def kept(self) -> bool:
        if self.most is not None:
            return statistics.median(self.ours) <= self.most
        if self.least is not None:
            return statistics.median(self.ours) >= self.least
        return self.ratio <= self.bound if self.less_is_better else self.ratio >= self.bound


Measure = Callable[[Contender], Sequence[float]]


def alternate(
    measure: Measure, contenders: Sequence[Contender], rounds: int
) -> list[list[list[float]]]:
    """Measure both in turn; for each figure of `measure`, ours and the floor's by round."""
    results = [[list(measure(contender)) for contender in contenders] for _ in range(rounds)]
    figures = len(results[0][0])
    return [[[r[who][n] for r in results] for who in range(2)] for n in range(figures)]


def single_uploads(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """200 KB JPEGs, one in a request, from 8 clients."""
    photo = load.photograph(PHOTO_BYTES)

    def measure(contender: Contender) -> tuple[float, float]:
        measured = load.uploads(contender.url, photo, requests=600, clients=8)
        return measured.rate, measured.percentile(0.99) * 1000

    rate, p99 = alternate(measure, contenders, rounds)
    work = "200 KB JPEG, 8 clients"
    return [
        Figure(work, "requests/s", *rate, bound=0.8),
        Figure(work, "p99 ms", *p99, bound=1.5, less_is_better=True),
    ]


def many_in_one(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """Ten 200 KB JPEGs in a request, from 4 clients."""
    photo = load.photograph(PHOTO_BYTES)

    def measure(contender: Contender) -> tuple[float]:
        return (load.uploads(contender.url, photo, requests=60, clients=4, files=10).rate,)

    (rate,) = alternate(measure, contenders, rounds)
    return [Figure("10 x 200 KB in one request, 4 clients", "requests/s", *rate, bound=0.85)]


def downloads(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """A stored file of 200 KB, from 8 clients."""
    photo = load.photograph(PHOTO_BYTES)
    paths = {
        c.name: f"/uploads/{load.ids(load.uploads(c.url, photo, 1, 1))[0]}.jpg" for c in contenders
    }

    def measure(contender: Contender) -> tuple[float]:
        return (load.gets(contender.url, [paths[contender.name]], 3000, 8).rate,)

    (rate,) = alternate(measure, contenders, rounds)
    return [Figure("200 KB by GET /uploads/...", "requests/s", *rate, bound=0.65)]


def burst(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """500 uploads from 8 clients; from the first request to the last caption, with one worker."""
    photo = load.photograph(PHOTO_BYTES)
    workers = {"clustr": ("-m", "clustr", "worker"), "floor": ("-m", "bench.floor_worker")}

    def measure(contender: Contender) -> tuple[float]:
        with pymongo.MongoClient(contender.settings["MONGODB_URL"]) as client:
            uploads = client[contender.name]["uploads"]
            uploads.delete_many({})
            with process(sys.executable, *workers[contender.name], **contender.settings) as worker:
                load.uploads(contender.url, photo, 5, 1)
                wait_for_captions(uploads, worker)
                began = time.perf_counter()
                load.uploads(contender.url, photo, 500, 8)
                wait_for_captions(uploads, worker)
                return (time.perf_counter() - began,)

    (seconds,) = alternate(measure, contenders, rounds)
    work = "500 uploads to the last caption, one worker"
    return [Figure(work, "seconds", *seconds, bound=1.3, less_is_better=True)]


def one_large(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """A file of 2 GB, and what it costs others meanwhile."""

    def measure(contender: Contender) -> tuple[float, float, float, float]:
        found = large_upload(contender, 2 * GIGABYTE)
        for path in contender.folder.rglob("*.*"):
            if path.is_file() and path.stat().st_size > GIGABYTE:
                path.unlink()
        return found.rate, found.grown, found.written, found.worst_wait

    rate, grown, written, wait = alternate(measure, contenders, rounds)
    return [
        Figure("one upload of 2 GB", "MB/s", *rate, bound=0.85),
        Figure("  growth of the web processes", "MB", *grown, most=32),
        Figure("  written for each byte", "bytes", *written, most=1.01),
        Figure("  worst wait of another client", "ms", *wait, most=50),
    ]


def wait_for_captions(
    uploads: pymongo.collection.Collection, worker: subprocess.Popen[bytes]
) -> None:
    """Wait until no caption is missing."""
    finished = {"name": "blip", "state": "succeeded"}
    while uploads.find_one({"analyses": {"$not": {"$elemMatch": finished}}}, {"_id": 1}):
        assert worker.poll() is None, f"{worker.args!r} has ended"
        time.sleep(0.02)
