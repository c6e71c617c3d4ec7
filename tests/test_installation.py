"""One installation, and others beside it that share a Redis, a MongoDB or a folder with it."""

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import photographs
import pytest
from running import Servers, wait_until
from werkzeug.test import TestResponse
from workshop import Outage, Workshop

from clustr.settings import InvalidSettings
from clustr.supervisor import servers

Make = Callable[..., Workshop]
PROGRAMS = ("gunicorn", "clustr")


@pytest.fixture
def make(tmp_path: Path, servers: Servers) -> Iterator[Make]:
    """Makes installations on the same servers, each with a folder and a database of its own."""
    numbers = itertools.count()
    with ExitStack() as made:

        def make(**settings: str) -> Workshop:
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            return made.enter_context(Workshop(folder, servers, **settings))

        yield make


def refusal(workshop: Workshop, program: str) -> str:
    """What a web or worker process says that does not start, after its name."""
    arguments = {
        "gunicorn": ("-c", "python:clustr.supervisor.gunicorn_settings", "clustr.app:create_app()"),
        "clustr": ("worker",),
    }[program]
    port = str(servers.free_port())
    ended = workshop.run("-m", program, *arguments, PORT=port, WEB_WORKERS="1")
    assert ended.process.wait(60) != 0
    assert "Traceback" not in ended.output()
    [said] = [line for line in ended.output().splitlines() if line.startswith("clustr: ")]
    return said.removeprefix("clustr: ")


def test_two_on_one_redis_call_their_own_workers(make):
    first = make()
    second = make(REDIS_URL=first.environment["REDIS_URL"])
    for workshop in (first, second):
        workshop.analyzer("it", "return {}")
        workshop.upload()
    for workshop in (first, second):
        queue = f"rq:queue:clustr:{workshop.environment['MONGODB_DATABASE']}:default"
        wait_until(lambda queue=queue: first.redis.llen(queue) == 1, 60, "the bell")


def test_two_with_one_prefix_in_redis_do_not_start(make):
    first = make(REDIS_PREFIX="shared")
    second = make(REDIS_PREFIX="shared", REDIS_URL=first.environment["REDIS_URL"])
    assert first.upload()
    for program in PROGRAMS:
        said = refusal(second, program)
        assert "REDIS_URL: another installation of Clustr uses this Redis with the prefix" in said
        assert "give one of the two another REDIS_PREFIX" in said
        assert "shared:installation" in said
    first.redis.delete("shared:installation")
    assert second.upload()


def test_two_on_one_upload_folder_do_not_start(make):
    first = make()
    folder = first.settings.upload_folder
    second = make(UPLOAD_FOLDER=str(folder))
    assert first.upload()
    before = (folder / ".clustr-store").read_text()
    for program in PROGRAMS:
        said = refusal(second, program)
        assert f"UPLOAD_FOLDER={folder} is that of another installation of Clustr" in said
        assert "MONGODB_URL and MONGODB_DATABASE" in said
    assert (folder / ".clustr-store").read_text() == before
    [line] = [line for line in before.splitlines() if line.startswith("installation: ")]
    assert f"remove the line `{line}` from the file .clustr-store" in said
    (folder / ".clustr-store").write_text(before.replace(line, ""))
    assert second.upload()


def test_a_folder_of_the_version_before_is_marked_once(make):
    workshop = make()
    folder = workshop.settings.upload_folder
    folder.mkdir(parents=True)
    (folder / ".clustr-store").write_text("In this folder Clustr keeps its originals.\n")
    assert workshop.upload()
    worker = workshop.worker()  # which finds the mark
    wait_until(lambda: workshop.redis.exists("rq:workers"), 60, "the worker")
    assert worker.alive()
    assert (folder / ".clustr-store").read_text().count("installation: ") == 1


@pytest.mark.parametrize("prefix", ["", "a b", "ä", "a" * 101, "{a}"])
def test_a_prefix_has_letters_and_digits(make, prefix):
    workshop = make(REDIS_PREFIX=prefix)
    if prefix:
        with pytest.raises(InvalidSettings, match=r"REDIS_PREFIX=.*expected 1 to 100 letters"):
            _ = workshop.settings
    else:
        database = workshop.environment["MONGODB_DATABASE"]
        assert workshop.settings.redis_prefix == f"clustr:{database}"


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    """Servers that can be away when something starts; a test starts them again."""
    servers = Outage(tmp_path_factory.mktemp("outage"))
    try:
        servers.start()
        yield servers
    finally:
        servers.end()


def second_on(first: Workshop, outage: Outage, folder: Path, **settings: str) -> Workshop:
    """Another installation: a database of its own on other servers, and more in common."""
    folder.mkdir()
    return Workshop(folder, outage, **settings)


def test_an_upload_folder_is_looked_at_once_mongodb_is_there(make, outage, tmp_path):
    first = make()
    assert first.upload()
    folder = first.settings.upload_folder
    before = sorted(folder.rglob("*.jpg"))
    with second_on(first, outage, tmp_path / "second", UPLOAD_FOLDER=str(folder)) as second:
        outage.kill("mongod")
        client = second.app.test_client()  # it starts without MongoDB
        outage.start_again("mongod")

        def answer() -> TestResponse:
            files = {"files": (io.BytesIO(photographs.photograph()), "a.jpg")}
            return client.post("/api/upload", data=files)

        wait_until(lambda: answer().status_code != 503, 60, "MongoDB")
        assert answer().status_code == 507
        assert answer().get_json()["type"] == "urn:clustr:problem:storage_full"
        assert sorted(folder.rglob("*.jpg")) == before
        assert client.get("/api/health/storage").get_json()["status"] == "unhealthy"
        worker = second.worker()
        said = "is that of another installation of Clustr"
        wait_until(lambda: said in worker.output(), 60, "the reason")
        marker = folder / ".clustr-store"
        lines = marker.read_text().splitlines()
        marker.write_text("\n".join(line for line in lines if "installation:" not in line))
        assert answer().status_code == 201
        assert client.get("/api/health/storage").get_json()["status"] == "healthy"


def test_a_redis_is_looked_at_before_the_first_bell(make, outage, tmp_path):
    first = make(REDIS_PREFIX="shared")
    first.analyzer("it", "return {}")
    shared = {"REDIS_PREFIX": "shared", "REDIS_URL": first.environment["REDIS_URL"]}
    with second_on(first, outage, tmp_path / "second", **shared) as second:
        second.analyzer("it", "return {}")
        folder = second.settings.upload_folder
        folder.mkdir(parents=True)
        (folder / ".clustr-store").write_text("In this folder Clustr keeps its originals.\n")
        outage.kill("mongod")
        client = second.app.test_client()
        worker = second.worker()  # which does not take the bells of the other
        wait_until(lambda: "installation_not_checked" in worker.output(), 60, "its start")
        [upload] = first.upload()
        wait_until(lambda: first.redis.llen("rq:queue:shared:default") == 1, 60, "the bell")
        outage.start_again("mongod")
        said = "another installation of Clustr uses this Redis with the prefix shared"
        wait_until(lambda: said in worker.output(), 60, "the reason")

        def answer() -> int:
            files = {"files": (io.BytesIO(photographs.photograph()), "a.jpg")}
            return client.post("/api/upload", data=files).status_code

        assert wait_until(lambda: (code := answer()) != 503 and code, 60, "MongoDB") == 201
        assert first.redis.llen("rq:queue:shared:default") == 1
        assert first.state_of(upload, "it") == "queued"
        assert not worker.horses()
        worker.stop()
        first.worker()
        first.end_of(upload, "it")


def test_a_redis_that_was_away_at_the_start_is_marked_at_the_first_bell(make, outage):
    workshop = make(REDIS_URL=outage.redis_url)
    workshop.analyzer("it", "return {}")
    outage.kill("redis-server")
    assert workshop.app
    outage.start_again("redis-server")
    [upload] = workshop.upload()
    key = workshop.key("installation")
    wait_until(lambda: workshop.redis.exists(key), 60, "the mark")
    workshop.worker()
    workshop.end_of(upload, "it")


def test_what_is_marked_costs_no_look_at_a_request(make):
    workshop = make()
    assert workshop.app
    database = workshop.collection.database
    database.command("profile", 2)
    assert workshop.upload()
    assert workshop.upload()
    database.command("profile", 0)
    asked = database["system.profile"].distinct("ns")
    assert workshop.collection.full_name in asked
    assert f"{database.name}.installation" not in asked
