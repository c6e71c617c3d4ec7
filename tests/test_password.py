"""A MongoDB with passwords: whoever it does not let in says so, and begins again when it does."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import photographs
import pytest
import requests
from pymongo import MongoClient
from running import Servers, ensure_ready, start, wait_until
from web_side import WebSide
from workshop import Workshop

from clustr.database import Database
from clustr.domain.errors import StartUpError
from clustr.supervisor import servers as programs

USER, READER, PASSWORD = "librarian", "reader", "correct-horse"
ROLES = {USER: "readWriteAnyDatabase", READER: "readAnyDatabase"}


class Locked:
    """A MongoDB with users of its own, and a Redis."""

    def __init__(self, folder: Path, redis_url: str):
        for name in ("mongodb", "log"):
            (folder / name).mkdir()
        self.port = programs.free_port()
        self.redis_url = redis_url
        self._passwords = programs.make_passwords(folder)
        program = programs.find_program(programs.MONGOD)
        self._arguments = programs.mongod_arguments(program, self.port, folder)
        self.start()
        for user, role in ROLES.items():
            self.command("createUser", user, pwd=PASSWORD, roles=[role])

    def start(self) -> None:
        self._process = start(self._arguments)
        ensure_ready(self.port, self._passwords)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def command(self, name: str, user: str, **options: Any) -> None:
        """Do something about a user."""
        key = self._passwords.mongodb_key
        root = MongoClient(
            "127.0.0.1", self.port, username="__system", password=key, authSource="local"
        )
        with root as client:
            client.admin.command(name, user, **options)

    def url(self, user: str) -> str:
        """With it MongoDB is asked more often whether it is well, and nobody waits ten seconds."""
        options = "authSource=admin&heartbeatFrequencyMS=500"
        return f"mongodb://{user}:{PASSWORD}@127.0.0.1:{self.port}/?{options}"

    @property
    def mongodb_url(self) -> str:
        return self.url(USER)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Locked]:
    running = Locked(tmp_path_factory.mktemp("locked"), servers.redis_url)
    yield running
    running.end()


@pytest.fixture
def workshop(tmp_path: Path, locked: Locked) -> Iterator[Workshop]:
    with Workshop(tmp_path, locked) as made:
        yield made


WEB = ("gunicorn", "-c", "python:clustr.supervisor.gunicorn_settings", "clustr.app:create_app()")
WORKER = ("clustr", "worker")
FSCK = ("clustr", "fsck")
GUNICORN_CANNOT_LOAD = 4


WRONG, NOBODY = f"{USER}:wrong-horse@", ""


@pytest.mark.parametrize(
    ("program", "new_store", "who"),
    [
        (WEB, True, WRONG),
        (WEB, False, NOBODY),
        (WORKER, True, NOBODY),
        (WORKER, False, WRONG),
        (FSCK, False, WRONG),
    ],
)
def test_D1_a_start_that_mongodb_refuses_says_so_in_one_line(
    workshop, locked, program, new_store, who
):
    if not new_store:
        assert workshop.upload()
    settings = {"MONGODB_URL": f"mongodb://{who}127.0.0.1:{locked.port}", "WEB_WORKERS": "1"}
    ended = workshop.run("-m", *program, PORT=str(programs.free_port()), **settings)
    assert ended.process.wait(60) in (2, GUNICORN_CANNOT_LOAD), ended.output()
    [said] = [line for line in ended.output().splitlines() if line.startswith("clustr: ")]
    assert re.match("clustr: MONGODB_URL: MongoDB does not accept its user and password: .", said)
    assert "Traceback" not in ended.output()
    assert "wrong-horse" not in ended.output()


def test_D1_one_who_may_only_read_cannot_start_the_web_side(locked):
    database = Database(locked.url(READER), "clustr", "uploads", timeout_seconds=5)
    with closing(database), pytest.raises(StartUpError, match=r"^MONGODB_URL: .* not authorized"):
        database.make_indexes()


def take_the_role(locked: Locked) -> None:
    locked.command("revokeRolesFromUser", USER, roles=[ROLES[USER]])


def give_the_role(locked: Locked) -> None:
    locked.command("grantRolesToUser", USER, roles=[ROLES[USER]])


def change_the_password(locked: Locked) -> None:
    """As it is when MongoDB comes back with users of another day."""
    journaled = {"w": 1, "j": True}
    locked.command("updateUser", USER, pwd="another", writeConcern=journaled)
    locked.end()
    locked.start()


def change_it_back(locked: Locked) -> None:
    locked.command("updateUser", USER, pwd=PASSWORD)


@pytest.mark.parametrize(
    ("refuse", "accept"),
    [(take_the_role, give_the_role), (change_the_password, change_it_back)],
)
def test_D1_mongodb_that_refuses_is_answered_like_one_that_is_away_and_heals(
    workshop, locked, refuse, accept
):
    web = WebSide(workshop)
    assert upload(web).status_code == 201
    files = web.files()
    refuse(locked)
    try:
        refused, *answers = together(
            lambda: upload(web),
            *(lambda path=path: get(web, path) for path in ("/api/uploads", "/api/health", "/")),
            lambda: get(web, "/api/health/ready"),
        )
        uploads, health, root, ready = answers
        for answer in (refused, uploads):
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json()["title"] == "Database unavailable"
            assert "auth" not in answer.text.lower()
        assert (health.status_code, health.json()["status"]) == (200, "critical")
        assert health.json()["services"]["database"]["status"] == "unhealthy"
        assert (root.status_code, root.json()["database"]["status"]) == (200, "disconnected")
        assert ready.status_code == 503
        assert web.files() == files
        logged = [line for line in web.gunicorn.lines() if line["event"] == "database_refused"]
        assert logged
        assert all(re.search("auth", line["error"], re.IGNORECASE) for line in logged)
        assert PASSWORD not in web.gunicorn.output()
    finally:
        accept(locked)
    wait_until(lambda: upload(web).status_code == 201, 60, "an upload")
    assert get(web, "/api/health/ready").ok


def together(*calls: Callable[[], requests.Response]) -> list[requests.Response]:
    """Make these calls at once: each may wait for as long as a request may."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(lambda call: call(), calls))


def get(web: WebSide, path: str) -> requests.Response:
    return requests.get(f"{web.url}{path}", timeout=60)


def upload(web: WebSide) -> requests.Response:
    files = {"files": ("photograph.jpg", photographs.photograph())}
    return requests.post(f"{web.url}/api/upload", files=files, timeout=60)
