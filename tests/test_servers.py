"""The servers that `clustr up` starts, and what has to be in order before."""

import importlib.metadata
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pymongo import MongoClient
from running import start, wait_until

from clustr import servers
from clustr.catalog.replica_set import ensure_primary
from clustr.errors import DatabaseUnavailable, StartUpError


class Wheel(importlib.metadata.Distribution):
    """An installed distribution with one file."""

    def __init__(self, folder: Path, file: str):
        self._folder = folder
        self._file = file

    def read_text(self, filename: str) -> str | None:
        return f"{self._file},,\n" if filename == "RECORD" else None

    def locate_file(self, path: object) -> Path:
        return self._folder / str(path)


def test_program_on_path_comes_first(tmp_path):
    program = tmp_path / "mongod"
    program.touch(mode=0o755)
    assert servers.find_program(servers.MONGOD, str(tmp_path)) == str(program)


@pytest.mark.parametrize("program", [servers.MONGOD, servers.REDIS])
def test_program_of_the_wheel_is_made_executable(tmp_path, program):
    file = tmp_path / program.file
    file.parent.mkdir(parents=True)
    file.touch(mode=0o644)
    wheel = Wheel(tmp_path, program.file)
    assert servers.find_program(program, "", lambda _: wheel.files) == str(file)
    assert file.stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("program", [servers.MONGOD, servers.REDIS])
def test_no_program_says_three_ways(program):
    def nothing_installed(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    with pytest.raises(StartUpError) as caught:
        servers.find_program(program, "", nothing_installed)
    message = str(caught.value)
    assert f"set {program.setting}" in message
    assert f"install {program.name} on PATH" in message
    assert "pip install 'clustr[local]'" in message
    assert "\n" not in message


def test_free_port_is_free_and_never_taken_by_outgoing_connections():
    port = servers.free_port()
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert port < int(ephemeral[0])
    servers.check_port("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_port_in_use_is_said(host):
    with socket.create_server((host, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(
            StartUpError, match=f"^{host}:{port} is already in use.* PORT or --port"
        ):
            servers.check_port(host, port)


def test_address_of_another_machine_is_refused():
    with pytest.raises(StartUpError, match="HOST"):
        servers.check_port("192.0.2.1", 5000)  # reserved for documentation (RFC 5737)
    with pytest.raises(StartUpError, match="HOST='no host'"):
        servers.check_port("no host", 5000)


@pytest.mark.parametrize("below", ["a file", "/proc"])
def test_unwritable_folder_names_its_setting(tmp_path, below):
    (tmp_path / "a file").touch()
    folder = tmp_path / below / "data"  # root, too, cannot write there
    with pytest.raises(StartUpError, match=r"^DATA_FOLDER=.*data cannot be written: "):
        servers.make_folder(folder, "DATA_FOLDER")


def test_locked_folder_is_in_use_until_all_who_share_the_lock_have_ended(tmp_path):
    lock = servers.lock_folder(tmp_path)
    try:
        waits = [sys.executable, "-c", "input()"]
        sharer = subprocess.Popen(waits, stdin=subprocess.PIPE, pass_fds=[lock])
    finally:
        os.close(lock)
    with sharer:
        with pytest.raises(StartUpError, match=r"^DATA_FOLDER=.* already in use.*--data$"):
            servers.lock_folder(tmp_path, seconds=0)
        sharer.kill()
    os.close(servers.lock_folder(tmp_path))


@contextmanager
def running(arguments: list[str]) -> Iterator[None]:
    """Run a program, and kill it with -9 in the end."""
    process = start(arguments, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def listens_on(port: int) -> set[str]:
    """The addresses, as /proc/net/tcp has them, on which something listens at this port."""
    lines = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    sockets = [line.split() for line in lines.splitlines() if ":" in line]
    listening = [fields[1].split(":") for fields in sockets if fields[3] == "0A"]
    return {address for address, number in listening if int(number, 16) == port}


def test_mongod_survives_kill_9_and_a_change_of_port(tmp_path):
    program = servers.find_program(servers.MONGOD)
    for folder in ("mongodb", "log"):
        (tmp_path / folder).mkdir()
    for written in range(3):
        port = servers.free_port()
        with running(servers.mongod_arguments(program, port, tmp_path)), ExitStack() as stack:
            ensure_primary("127.0.0.1", port, servers.REPLICA_SET, seconds=60)
            ensure_primary("127.0.0.1", port, servers.REPLICA_SET, seconds=5)  # changes nothing
            url = servers.mongodb_url(port)
            client = stack.enter_context(MongoClient(url, serverSelectionTimeoutMS=5000))
            assert client.test.things.count_documents({}) == written
            with client.start_session() as session:
                client.test.things.insert_one({"number": written}, session=session)
            assert listens_on(port) == {"0100007F"}


def test_no_primary_in_time_is_said():
    with pytest.raises(DatabaseUnavailable):
        ensure_primary("127.0.0.1", servers.free_port(), servers.REPLICA_SET, seconds=0.2)


def test_redis_listens_on_loopback_and_keeps_nothing_on_disk(tmp_path):
    for folder in ("redis", "log"):
        (tmp_path / folder).mkdir()
    port = servers.free_port()
    assert not servers.redis_answers(port)
    program = servers.find_program(servers.REDIS)
    with running(servers.redis_arguments(program, port, tmp_path)):
        wait_until(lambda: servers.redis_answers(port), 10)
        assert listens_on(port) == {"0100007F"}
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"SET a b\r\nSHUTDOWN\r\n")
            while connection.recv(1024):
                pass
    assert list((tmp_path / "redis").iterdir()) == []
