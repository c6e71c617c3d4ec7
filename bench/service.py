"""What is measured: Clustr and the floor, under the same gunicorn settings, on the same servers."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clustr.database.replica_set import ensure_primary
from clustr.supervisor import servers

GUNICORN = ("-m", "gunicorn", "-c", "python:clustr.supervisor.gunicorn_settings")


@dataclass(frozen=True)
class Contender:
    """One of the two that are compared.

    Attributes:
        pid: of the process of gunicorn that its workers are children of.
        settings: the environment that it runs with.
    """

    name: str
    url: str
    pid: int
    folder: Path
    settings: dict[str, str]


@contextmanager
def process(*command: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for as long as the block takes."""
    environment = {**os.environ, **settings}
    nowhere = subprocess.DEVNULL
    running = subprocess.Popen(command, env=environment, stdout=nowhere, stderr=nowhere)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(20)


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, str]]:
    """Run a MongoDB and a Redis; gives the settings that name them."""
    for name in ("mongodb", "redis", "log"):
        (folder / name).mkdir(parents=True)
    mongodb_port, redis_port = servers.free_port(), servers.free_port()
    mongod = servers.mongod_arguments(servers.find_program(servers.MONGOD), mongodb_port, folder)
    redis = servers.redis_arguments(servers.find_program(servers.REDIS), redis_port, folder)
    passwords = servers.make_passwords(folder)
    with process(*mongod), process(*redis):
        ensure_primary(
            servers.LOOPBACK,
            mongodb_port,
            servers.REPLICA_SET,
            passwords.mongodb_key,
            servers.MONGODB_USER,
            passwords.mongodb,
            seconds=60,
        )
        yield {
            "MONGODB_URL": servers.mongodb_url(mongodb_port, passwords),
            "REDIS_URL": servers.redis_url(redis_port, passwords),
        }


@contextmanager
def captioner(*limits: str) -> Iterator[dict[str, str]]:
    """Run a captioner; gives the setting that names it.

    Args:
        limits: the seconds that a caption takes, and how many are made at once; by default it is
            instant.
    """
    port = servers.free_port()
    with process(sys.executable, "-m", "bench.captioner", str(port), *limits):
        while not answers(f"http://127.0.0.1:{port}"):
            time.sleep(0.02)
        yield {"BLIP_SERVICE_URL": f"http://127.0.0.1:{port}"}


@contextmanager
def web(name: str, application: str, folder: Path, settings: dict[str, str]) -> Iterator[Contender]:
    """Run gunicorn with an application, and no workers beside it."""
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    settings = settings | {
        "MAX_UPLOAD_SIZE": "4000000000",
        "PORT": str(port),
        "UPLOAD_FOLDER": str(folder),
        "MONGODB_DATABASE": name,
        "LOG_LEVEL": "warning",
    }
    with process(sys.executable, *GUNICORN, application, **settings) as running:
        while running.poll() is None and not answers(f"{url}/api/health/live"):
            time.sleep(0.1)
        yield Contender(name, url, running.pid, folder, settings)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def contenders(folder: Path, **settings: str) -> Iterator[tuple[Contender, Contender]]:
    """Run Clustr and the floor side by side."""
    with ExitStack() as running:
        environment = running.enter_context(databases(folder / "data"))
        environment |= running.enter_context(captioner()) | settings
        ours = web("clustr", "clustr.app:create_app()", folder / "clustr", environment)
        floor = web("floor", "bench.floor:app", folder / "floor", environment)
        yield running.enter_context(ours), running.enter_context(floor)
