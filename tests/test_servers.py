"""The servers that `clustr up` starts, and what has to be in order before."""

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
from pymongo.errors import OperationFailure
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from running import ensure_ready, start, wait_until

from clustr.domain.errors import DatabaseUnavailable, StartUpError
from clustr.supervisor import servers

PASSWORDS = servers.Passwords("0" * 64, "1" * 64, "2" * 64)


@pytest.mark.parametrize("program", servers.PROGRAMS)
def test_program_on_path_comes_first(tmp_path, program):
    for file in (tmp_path / program.name, servers.installed_path(program, tmp_path)):
        file.parent.mkdir(exist_ok=True)
        file.touch(mode=0o755)
    assert servers.find_program(program, str(tmp_path), tmp_path) == str(tmp_path / program.name)
    installed = servers.installed_path(program, tmp_path)
    assert servers.find_program(program, "", tmp_path) == str(installed)


@pytest.mark.parametrize("program", servers.PROGRAMS)
def test_no_program_says_three_ways(tmp_path, program):
    with pytest.raises(StartUpError) as caught:
        servers.find_program(program, "", tmp_path)
    message = str(caught.value)
    assert f"set {program.setting}" in message
    assert f"install {program.name} on PATH" in message
    assert "run clustr install-servers" in message
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
    passwords = servers.make_passwords(tmp_path)
    for written in range(2):
        port = servers.free_port()
        with running(servers.mongod_arguments(program, port, tmp_path)), ExitStack() as stack:
            ensure_ready(port, passwords)
            ensure_ready(port, passwords)  # changes nothing
            client = stack.enter_context(MongoClient(servers.mongodb_url(port, passwords)))
            assert client.test.things.count_documents({}) == written
            with client.start_session() as session:
                client.test.things.insert_one({"number": written}, session=session)
            assert listens_on(port) == {"0100007F"}


def test_no_primary_in_time_is_said():
    with pytest.raises(DatabaseUnavailable):
        ensure_ready(servers.free_port(), PASSWORDS, seconds=0.2)


def test_redis_listens_on_loopback_and_keeps_nothing_on_disk(tmp_path):
    passwords = servers.make_passwords(tmp_path)
    with running_redis(tmp_path, passwords) as port, client_of(port, passwords) as client:
        assert listens_on(port) == {"0100007F"}
        client.set("a", "b")
        client.shutdown()
    assert list((tmp_path / "redis").iterdir()) == []


@contextmanager
def running_redis(folder: Path, passwords: servers.Passwords) -> Iterator[int]:
    """Run Redis as `clustr up` does; gives its port."""
    for name in ("redis", "log"):
        (folder / name).mkdir()
    port = servers.free_port()
    assert not servers.redis_answers(port, passwords)
    program = servers.find_program(servers.REDIS)
    with running(servers.redis_arguments(program, port, folder)):
        wait_until(lambda: servers.redis_answers(port, passwords), 60)
        yield port


def client_of(port: int, passwords: servers.Passwords) -> Redis:
    return Redis.from_url(servers.redis_url(port, passwords))


def test_redis_does_nothing_for_who_has_no_password(tmp_path):
    passwords = servers.make_passwords(tmp_path)
    with running_redis(tmp_path, passwords) as port:
        assert not servers.redis_answers(port, PASSWORDS)
        for command in ("PING", "CONFIG SET dir /tmp", "SAVE", "MODULE LIST", "FLUSHALL"):
            with (
                Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger,
                pytest.raises(RedisError, match=r"(?i)auth"),
            ):
                stranger.execute_command(*command.split())


def test_redis_has_no_commands_that_run_code_or_write_elsewhere(tmp_path):
    passwords = servers.make_passwords(tmp_path)
    with running_redis(tmp_path, passwords) as port, client_of(port, passwords) as client:
        for command in (
            *("CONFIG SET dir /tmp", "CONFIG GET dir", "MODULE LIST", "DEBUG SLEEP 0", "ACL LIST"),
        ):
            with pytest.raises(ResponseError, match="unknown command"):
                client.execute_command(*command.split())


def test_mongod_lets_nobody_in_without_a_password_from_its_first_moment(tmp_path):
    """Also before there is a user, when others let everybody of the machine make one."""
    program = servers.find_program(servers.MONGOD)
    for folder in ("mongodb", "log"):
        (tmp_path / folder).mkdir()
    passwords, port = servers.make_passwords(tmp_path), servers.free_port()
    with (
        running(servers.mongod_arguments(program, port, tmp_path)),
        MongoClient("127.0.0.1", port, directConnection=True) as stranger,
    ):
        members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
        settings = {"_id": servers.REPLICA_SET, "members": members}
        with pytest.raises(OperationFailure, match="requires authentication"):
            stranger.admin.command("replSetInitiate", settings)
        ensure_ready(port, passwords)
        for database, command in (
            ("admin", {"createUser": "me", "pwd": "me", "roles": ["root"]}),
            ("admin", {"listDatabases": 1}),
            ("clustr", {"find": "uploads"}),
            ("clustr", {"insert": "uploads", "documents": [{"filename": "../../secret"}]}),
        ):
            with pytest.raises(OperationFailure, match="requires authentication"):
                stranger[database].command(command)


def test_passwords_are_made_once_and_for_the_owner_alone(tmp_path):
    made = servers.make_passwords(tmp_path)
    assert len({*made}) == 3
    assert min(map(len, made)) == 64
    assert servers.make_passwords(tmp_path) == made
    folder = tmp_path / servers.PASSWORDS
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_password_that_was_copied_for_all_to_read_or_lost_is_put_right(tmp_path):
    made = servers.make_passwords(tmp_path)
    key, of_redis = (tmp_path / servers.PASSWORDS / name for name in ("mongodb_key", "redis"))
    key.chmod(0o644)
    of_redis.write_text("")
    again = servers.make_passwords(tmp_path)
    assert again[:2] == made[:2]
    assert len(again.redis) == 64
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_passwords_that_cannot_be_written_are_said(tmp_path):
    (tmp_path / servers.PASSWORDS).touch()
    with pytest.raises(StartUpError, match=rf"^DATA_FOLDER={tmp_path}: .* cannot be used: "):
        servers.make_passwords(tmp_path)
