"""A replica set that was never initiated, as that of a new mongod is, is named at every start."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import run_program
from pymongo import MongoClient
from running import start, wait_until

from clustr.supervisor import servers as programs

WEB = [
    "-m",
    "gunicorn",
    "-c",
    "python:clustr.supervisor.gunicorn_settings",
    "clustr.app:create_app()",
]


@pytest.fixture(scope="module")
def uninitiated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Runs a mongod that nobody has made a replica set of; gives its port."""
    folder, port = tmp_path_factory.mktemp("mongodb"), programs.free_port()
    program = programs.find_program(programs.MONGOD)
    arguments = ["--bind_ip", "127.0.0.1", "--port", str(port), "--replSet", "rs0"]
    arguments += ["--dbpath", str(folder), "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
    process = start([program, *arguments], stdout=subprocess.DEVNULL)
    try:
        with MongoClient("127.0.0.1", port, directConnection=True) as client:
            wait_until(lambda: client.admin.command("hello")["isreplicaset"], 60, "mongod")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "command, options, known_store",
    [
        ("worker", "", True),
        ("worker", "?replicaSet=rs0", False),
        ("worker", "?directConnection=true", True),
        ("web", "?replicaSet=rs0", False),
        ("web", "?replicaSet=rs0", True),
        ("fsck", "?replicaSet=rs0", False),
    ],
)
def test_it_is_named_before_anything_else_is_blamed(
    uninitiated: int, servers, tmp_path: Path, command, options, known_store
) -> None:
    if known_store:  # The web side could be started without its database, and would wait for ever.
        (tmp_path / "uploads").mkdir()
        (tmp_path / "uploads" / ".clustr-store").touch()
    environment = {
        "PATH": "",
        "PORT": str(programs.free_port()),
        "MONGODB_URL": f"mongodb://127.0.0.1:{uninitiated}/{options}",
        "REDIS_URL": servers.redis_url,
    }
    arguments = WEB if command == "web" else ["-m", "clustr", command]
    ended = run_program(arguments, environment, tmp_path)
    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if line.startswith("clustr: ")]
    assert said
    assert set(said) == {
        f"clustr: MONGODB_URL: the replica set of the MongoDB at 127.0.0.1:{uninitiated} was never "
        f"initiated; do that once with mongosh --host 127.0.0.1 --port {uninitiated} --eval "
        "'rs.initiate()'"
    }
