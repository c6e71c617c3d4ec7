"""The rows of the plugin platform: what the engine costs beside an analyzer that does nothing."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pymongo
from pymongo.collection import Collection

from bench.large import children, memory
from bench.rows import Figure, alternate
from bench.seed import document, seed
from bench.service import Contender, process
from clustr.database import Database
from clustr.database.analysis_updates import with_analysis

COUNT = 10_000
NAME = "empty"
PLUGIN = """
from marshmallow import Schema
from clustr.plugins import Analyzer, hookimpl

class Empty(Analyzer):
    name = "empty"
    result_schema = Schema

    def analyze(self, image, context):
        return {}

@hookimpl
def clustr_register_analyzers(config):
    return [Empty()]
"""
QUEUED, RUNNING, SUCCEEDED = (
    with_analysis(name=NAME, state=state) for state in ("queued", "running", "succeeded")
)


def back_fill(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """10,000 uploads by one worker; the floor is a bare loop of the same commands."""

    def measure(contender: Contender) -> tuple[float, float]:
        with backlog(contender) as uploads:
            if contender.name == "floor":
                with process(sys.executable, "-m", "bench.floor_engine", **contender.settings):
                    return rate(uploads), 0.0
            with worker(contender) as pid:
                measured = rate(uploads)
                before = memory(children(pid))
                uploads.update_many({}, {"$set": {"analyses.0.state": "queued"}})
                rate(uploads)
                return measured, (memory(children(pid)) - before) / 1e6

    rates, grown = alternate(measure, contenders, rounds)
    work = f"back-fill of {COUNT} by an empty analyzer, one worker"
    return [
        Figure(work, "analyses/s", *rates, bound=0.8),
        Figure("  at least", "analyses/s", rates[0], least=400),
        Figure(f"  growth of the worker over {COUNT} more", "MB", grown[0], most=10),
    ]


def overtaking(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """How long a new upload waits for its analysis behind 10,000 that a back-fill has queued."""
    ours = contenders[0]
    waits = []
    for number in range(rounds):
        with backlog(ours) as uploads, worker(ours):
            wait_for_first(uploads)
            new = document(COUNT + number, datetime.now(UTC), NAME, priority=0)
            began = time.perf_counter()
            uploads.insert_one(new)
            while not uploads.find_one({"_id": new["_id"], **SUCCEEDED}, {"_id": 1}):
                time.sleep(0.005)
            waits.append((time.perf_counter() - began) * 1000)
            assert uploads.find_one(QUEUED), "the back-fill was over before"
    return [Figure(f"a new upload behind {COUNT} that are queued", "ms", waits, most=1000)]


def listing(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """`clustr plugins list`, beside a plugin whose preparations are heavy."""
    heavy = PLUGIN.replace(
        "def analyze", "def setup(self, context):\n        while True: pass\n\n    def analyze"
    )
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty.py").write_text(PLUGIN.replace("    def analyze", heavy))
        command = [sys.executable, "-m", "clustr", "plugins", "list"]
        for _ in range(rounds):
            began = time.perf_counter()
            subprocess.run(command, env={"PLUGINS_FOLDER": folder}, check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
    return [Figure("clustr plugins list", "seconds", seconds, most=1.0)]


@contextmanager
def backlog(contender: Contender) -> Iterator[Collection]:
    """10,000 uploads of which one analysis is queued each, with all indexes."""
    url, database_name = contender.settings["MONGODB_URL"], contender.name
    with pymongo.MongoClient(url, tz_aware=True) as client:
        uploads = client[database_name]["uploads"]
        uploads.delete_many({})  # Those of the floor are no uploads of Clustr's.
        database = Database(url, database_name, "uploads", timeout_seconds=30)
        database.make_indexes()
        database.close()
        seed(uploads, COUNT, NAME)
        yield uploads


@contextmanager
def worker(contender: Contender) -> Iterator[int]:
    """Run one worker with the empty analyzer alone; gives its process id."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty.py").write_text(PLUGIN)
        settings = contender.settings | {"PLUGINS_FOLDER": folder, "PLUGINS_ENABLED": NAME}
        with process(sys.executable, "-m", "clustr", "worker", **settings) as running:
            yield running.pid


def rate(uploads: Collection) -> float:
    """Analyses a second, from when the first have ended to when all have."""
    first, began = wait_for_first(uploads), time.perf_counter()
    # Nothing is counted meanwhile: that looks at all that are queued, and would slow down the work.
    while any(uploads.find_one(query, {"_id": 1}, hint="work") for query in (QUEUED, RUNNING)):
        time.sleep(0.02)
    return (COUNT - first) / (time.perf_counter() - began)


def wait_for_first(uploads: Collection) -> int:
    """Wait until some are not queued any more; how many."""
    while not (done := COUNT - uploads.count_documents(QUEUED, hint="work")):
        time.sleep(0.1)
    return done
