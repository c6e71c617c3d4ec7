"""One installation, and others beside it that share a Redis, a MongoDB or a folder with it."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from running import Servers, wait_until
from workshop import Workshop

from clustr import servers
from clustr.settings import InvalidSettings

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
        "gunicorn": ("-c", "python:clustr.gunicorn_settings", "clustr.app:create_app()"),
        "clustr": ("worker",),
    }[program]
    port = str(servers.free_port())
    ended = workshop.run("-m", program, *arguments, PORT=port, WEB_WORKERS="1")
    assert ended.process.wait(30) != 0
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
        wait_until(lambda queue=queue: first.redis.llen(queue) == 1, 5, "the bell")


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
    wait_until(lambda: workshop.redis.exists("rq:workers"), 20, "the worker")
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
