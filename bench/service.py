"""What is measured: a `clustr up` and an instant captioner, each a process of its own."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pymongo

from clustr.servers import free_port
from clustr.upload import UNFINISHED


@dataclass(frozen=True)
class Running:
    """A service under measurement."""

    url: str
    pid: int
    folder: Path
    mongodb_url: str


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for as long as the block takes."""
    with subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            yield running
        finally:
            running.terminate()


@contextmanager
def captioner() -> Iterator[str]:
    """Run the instant captioner; gives its address."""
    port = free_port()
    with process("-m", "bench.captioner", str(port)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def service(folder: Path, **settings: str) -> Iterator[Running]:
    """Run `clustr up` with its data in this folder, one worker, and nothing else than asked for."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = {"PORT": str(port), "DATA_FOLDER": str(folder), "LOG_LEVEL": "warning"}
    with process("-m", "clustr", "up", **where, **settings) as running:
        while running.poll() is None:
            try:
                urllib.request.urlopen(f"{url}/api/health/live", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield Running(url, running.pid, folder, mongodb_url(running.pid))


def mongodb_url(pid: int) -> str:
    """Where the MongoDB of a `clustr up` is, from the command line of its child."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and words[0].endswith("mongod"):
            port = words[words.index("--port") + 1]
            return f"mongodb://127.0.0.1:{port}/?directConnection=true"
    raise LookupError(f"the process {pid} has no mongod")


def last_captioned_at(running: Running) -> float:
    """Wait until no analysis is unfinished; when the last one ended, in seconds since 1970."""
    with pymongo.MongoClient(running.mongodb_url, tz_aware=True) as client:
        uploads = client["clustr"]["uploads"]
        while uploads.find_one({"analyses.state": {"$in": [*UNFINISHED]}}, {"_id": 1}):
            time.sleep(0.05)
        last = uploads.find_one(
            {}, {"analyses": {"$elemMatch": {"name": "blip"}}}, sort=[("updated_at", -1)]
        )
        ends = uploads.aggregate(
            [
                {"$unwind": "$analyses"},
                {"$match": {"analyses.name": "blip"}},
                {"$group": {"_id": None, "last": {"$max": "$analyses.finished_at"}}},
            ]
        )
        assert last is not None
        return next(iter(ends))["last"].timestamp()
