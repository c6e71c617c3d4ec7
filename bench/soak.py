"""`make soak`: run the service for a while, and see what grows and what a month of that would be.

A `clustr up` on a folder of its own is given an upload a second, with tags, changes, thumbnails and
deletions, and then left alone for the last quarter of the time. In the end it must know of each
upload, and `clustr fsck` must find nothing.
"""

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from PIL import Image
from pymongo import MongoClient
from redis import Redis

from bench.report import machine
from clustr.supervisor import servers

UPLOADS_A_SECOND = 1
SAMPLE_SECONDS = 5
IDLE_PART = 0.25
# What the first part of a phase does to caches and pools is no slope.
WARM_UP_PART = 0.3
MINUTES_A_MONTH = 30 * 24 * 60
STARTS_SECONDS = 60
SETTLES_SECONDS = 90
MEGABYTE = 2**20
TAGS = [f"tag {number}" for number in range(500)]

Sample = dict[str, float]


@dataclass
class Service:
    """A running `clustr up`: how it is used, and what can be seen of it."""

    up: subprocess.Popen[bytes]
    data: Path
    url: str
    kept: list[str] = field(default_factory=list)
    uploads: int = 0

    def __post_init__(self) -> None:
        noted = json.loads((self.data / servers.ADDRESSES).read_text())
        self.mongodb: MongoClient[dict[str, Any]] = MongoClient(noted["MONGODB_URL"])
        self.redis = Redis.from_url(noted["REDIS_URL"])
        self.session = requests.Session()

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Ask for something that must be answered well."""
        answer = self.session.request(method, self.url + path, timeout=30, **options)
        answer.raise_for_status()
        return answer.json() if "json" in answer.headers.get("Content-Type", "") else answer.content

    def use(self) -> None:
        """One upload, and what people do with it."""
        files = {"files": ("photograph.jpg", photograph())}
        upload_id = self.ask("POST", "/api/upload", files=files)["data"][0]["id"]
        self.uploads += 1
        self.kept.append(upload_id)
        change = {"tags": {"add": random.sample(TAGS, 3)}}
        self.ask("PATCH", f"/api/uploads/{upload_id}", json=change)
        self.ask("GET", f"/api/uploads/{random.choice(self.kept)}/thumbnail?size=256")
        self.ask("GET", "/api/uploads?limit=20")
        if self.uploads % 4 == 0:
            removed = self.kept.pop(random.randrange(len(self.kept)))
            self.ask("DELETE", f"/api/uploads/{removed}")

    def sample(self) -> Sample:
        """What may grow, as it is now."""
        status = self.mongodb.admin.command("serverStatus")
        documents = status["metrics"]["document"]
        written = documents["inserted"] + documents["updated"] + documents["deleted"]
        oplog = self.mongodb.local.command("collStats", "oplog.rs")["size"]
        logs = sum(file.stat().st_size for file in (self.data / "log").iterdir())
        found: Sample = {}
        for name, pid in processes(self.up.pid):
            memory, files = memory_and_files(pid)
            found[f"memory of {name}, MiB"] = found.get(f"memory of {name}, MiB", 0) + memory
            found["open files"] = found.get("open files", 0) + files
        return found | {
            "Redis keys": self.redis.dbsize(),
            "MongoDB connections made": status["connections"]["totalCreated"],
            "documents written": written,
            "oplog, MiB": oplog / MEGABYTE,
            "logs, MiB": logs / MEGABYTE,
        }

    def check(self) -> list[str]:
        """Whether all that it says agrees with a walk through all; what does not."""
        wait_for(lambda: self.ask("GET", "/api/uploads?status=pending")["data"] == [])
        walked = list(self.walk())
        tags = Counter(tag for upload in walked for tag in upload["tags"])

        def counted() -> bool:
            told = self.ask("GET", "/api/tags?limit=1000")["data"]
            total = self.ask("GET", "/api/stats")["uploads"]
            return total == len(walked) and {one["name"]: one["count"] for one in told} == tags

        wrong = []
        if sorted(upload["id"] for upload in walked) != sorted(self.kept):
            wrong.append("a walk does not give the uploads that were kept")
        if not wait_for(counted):
            wrong.append("the counts are not those of a walk")
        command = [sys.executable, "-m", "clustr", "fsck"]
        fsck = subprocess.run(command, env=environment(self.data), capture_output=True, text=True)
        if fsck.returncode:
            wrong.append(f"clustr fsck: {fsck.stdout}{fsck.stderr}")
        return wrong

    def walk(self) -> Iterator[dict[str, Any]]:
        cursor = ""
        while cursor is not None:
            page = self.ask("GET", f"/api/uploads?limit=100{cursor and f'&cursor={cursor}'}")
            yield from page["data"]
            cursor = page["next_cursor"]


def photograph() -> bytes:
    """A picture like no other."""
    image = Image.effect_noise((640, 480), random.uniform(20, 90)).convert("RGB")
    written = io.BytesIO()
    image.save(written, "JPEG")
    return written.getvalue()


def wait_for(condition: Any) -> bool:
    """Wait until something is so, for a while."""
    until = time.monotonic() + SETTLES_SECONDS
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(1)
    return True


def processes(up: int) -> Iterator[tuple[str, int]]:
    """The processes of a `clustr up`, with their roles."""
    yield "clustr up", up
    for pid in children(up):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        if b" worker" in command:
            yield "worker, parent", pid
            for role, child in zip(("reconciler", "jobs", "RQ"), children(pid), strict=False):
                yield f"worker, {role}", child
                yield from (("worker, analyzers", each) for each in children(child))
        elif b"gunicorn" in command:
            yield "web, parent", pid
            yield from ((f"web, {n}", each) for n, each in enumerate(children(pid), 1))
        else:
            yield ("mongod" if b"mongod" in command else "redis-server"), pid


def children(pid: int) -> list[int]:
    """The processes that one has made, the oldest first."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory_and_files(pid: int) -> tuple[float, int]:
    """How many MiB of a process are in memory that are no file's, and how many files it has open.

    What processes share since a fork counts for each, or it would grow when another one ends.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except (FileNotFoundError, ProcessLookupError):  # It has just ended.
        return 0, 0
    kibibytes = (int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return next(kibibytes, 0) / 1024, files  # What has ended and was not waited for has none.


def environment(data: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "DATA_FOLDER": str(data), "PLUGINS_DISABLED": "blip"}


@contextmanager
def running(folder: Path) -> Iterator[Service]:
    """A `clustr up` with its data in a folder."""
    data, port = folder / "data", str(servers.free_port())
    url = f"http://127.0.0.1:{port}"
    settings = environment(data) | {"PORT": port, "LOG_LEVEL": "warning"}
    with (folder / "output").open("wb") as output:
        command = [sys.executable, "-m", "clustr", "up"]
        up = subprocess.Popen(command, env=settings, cwd=folder, stdout=output, stderr=output)
    try:
        until = time.monotonic() + STARTS_SECONDS
        while b"Things to try" not in (folder / "output").read_bytes():
            if up.poll() is not None or time.monotonic() > until:
                sys.exit((folder / "output").read_text())
            time.sleep(0.1)
        yield Service(up, data, url)
    finally:
        up.terminate()
        up.wait(30)


def soak(service: Service, seconds: float, in_use: bool) -> list[tuple[float, Sample]]:
    """Samples over so many seconds, each with its time in minutes."""
    began, due, samples = time.monotonic(), 0.0, []
    while (elapsed := time.monotonic() - began) < seconds:
        if elapsed >= due:
            samples.append((elapsed / 60, service.sample()))
            due += SAMPLE_SECONDS
        if in_use:
            service.use()
        pause = 1 / UPLOADS_A_SECOND - (time.monotonic() - began - elapsed)
        time.sleep(max(0.0, pause))
    return samples


def table(title: str, samples: list[tuple[float, Sample]]) -> str:
    """What each figure was and is, how it grows in a minute, and what that is in a month."""
    steady = samples[int(len(samples) * WARM_UP_PART) :]
    lines = [
        f"## {title}",
        "",
        "| what | first | last | a minute | a month |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in samples[-1][1]:
        points = [(minute, sample[name]) for minute, sample in steady if name in sample]
        if len(points) < 2:
            continue
        slope = statistics.linear_regression(*zip(*points, strict=True)).slope
        first, last = points[0][1], points[-1][1]
        month = slope * MINUTES_A_MONTH
        lines.append(f"| {name} | {first:,.1f} | {last:,.1f} | {slope:,.3f} | {month:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Soak, print what grew, and check that nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long, by default 20")
    seconds = parser.parse_args().minutes * 60
    with (
        tempfile.TemporaryDirectory(prefix="clustr-soak-") as folder,
        running(Path(folder)) as service,
    ):
        used = soak(service, seconds * (1 - IDLE_PART), in_use=True)
        left_alone = soak(service, seconds * IDLE_PART, in_use=False)
        wrong = service.check()
    print(f"{machine()}; {service.uploads} uploads, {len(service.kept)} of them kept.\n")
    print(table(f"With {UPLOADS_A_SECOND} upload a second", used), end="\n\n")
    print(table("Left alone", left_alone), end="\n\n")
    print(
        "\n".join(wrong) or "Every upload is there, the counts are those of a walk, fsck is clean."
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
