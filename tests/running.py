"""Running real processes in tests: servers, `clustr up`, and what can be known about them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fork_server import ForkedProgram, fork_server, run_program
from pymongo import MongoClient

from clustr.database.replica_set import ensure_primary
from clustr.supervisor import servers

T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float, what: str = "") -> T:
    """Wait until the condition holds, and return what it gave.

    The longer it takes, the more seldom it is asked: asking costs what others have to do.
    """
    began = time.monotonic()
    while not (found := condition()):
        passed = time.monotonic() - began
        assert passed < seconds, f"not within {seconds} seconds: {what or condition}"
        time.sleep(min(0.02 + passed / 20, 0.3))
    return found


class Process(NamedTuple):
    """A process, told from a later one with the same id by when it started."""

    pid: int
    parent_pid: int
    started_at: str
    command: str

    def alive(self) -> bool:
        """Whether it runs; one that has ended and was not waited for does not."""
        try:
            state, _, started_at = _status(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return started_at == self.started_at and state not in "ZX"

    def kill(self) -> None:
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)


def _status(pid: int) -> tuple[str, int, str]:
    """Its state, its parent's id and when it started: fields 3, 4 and 22 of proc_pid_stat(5)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return after_name[0], int(after_name[1]), after_name[19]


def all_processes() -> list[Process]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, parent_pid, started_at = _status(int(folder.name))
            arguments = (folder / "cmdline").read_bytes().rstrip(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        text = arguments.replace(b"\0", b" ").decode(errors="replace")
        found.append(Process(int(folder.name), parent_pid, started_at, text))
    return found


def descendants(pid: int) -> list[Process]:
    """The processes that this one made, and those that they made, and so on."""
    everything = all_processes()
    found: list[Process] = []
    parents = {pid}
    while parents:
        children = [process for process in everything if process.parent_pid in parents]
        found += children
        parents = {child.pid for child in children}
    return found


def child(pid: int, command_part: str) -> Process | None:
    """The living child of a process that has this in its command line."""
    for process in all_processes():
        if process.parent_pid == pid and command_part in process.command and process.alive():
            return process
    return None


# Tests start programs from a process that has threads, where a fork that runs Python could hang: so
# the program that is started first ties itself to this process, and then becomes what it shall be.
# Signals are its own again that whoever runs the tests ignores, as nohup does. Nothing of Clustr is
# imported for it, which would take ten times as long.
TIED = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) was refused")
if os.getppid() != int(sys.argv[1]):
    sys.exit("whoever started this has ended")
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


def start(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program that ends with this process; options are those of `subprocess.Popen`."""
    tied = [sys.executable, "-I", "-S", "-c", TIED, str(os.getpid())]
    return subprocess.Popen([*tied, *arguments], start_new_session=True, **options)


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Stop a program that `start` started; when this returns, none of its threads runs any more."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)


def moment(text: str) -> datetime:
    """A time of an answer."""
    return datetime.fromisoformat(text)


def ensure_ready(port: int, passwords: servers.Passwords, seconds: float = 60) -> None:
    """See that a `mongod` of ours is the primary of its replica set and has its user."""
    ensure_primary(
        servers.LOOPBACK,
        port,
        servers.REPLICA_SET,
        passwords.mongodb_key,
        servers.MONGODB_USER,
        passwords.mongodb,
        seconds,
    )


class Servers:
    """A real MongoDB, as a replica set of one, and a real Redis, with their data in a folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        for name in ("mongodb", "redis", "log"):
            (folder / name).mkdir(parents=True)
        self.mongodb_port = servers.free_port()
        self.redis_port = servers.free_port()
        self.passwords = servers.make_passwords(folder)
        self.mongodb_url = servers.mongodb_url(self.mongodb_port, self.passwords)
        self.redis_url = servers.redis_url(self.redis_port, self.passwords)
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._start_mongod()
        self._started.append(start(self.redis_arguments()))
        wait_until(lambda: servers.redis_answers(self.redis_port, self.passwords), 60, "Redis")

    def redis_arguments(self) -> list[str]:
        """The command line of Redis, with a database for each workshop."""
        redis = servers.find_program(servers.REDIS)
        arguments = servers.redis_arguments(redis, self.redis_port, self._folder)
        return [*arguments, "--databases", "4096"]

    def _start_mongod(self) -> None:
        mongod = servers.find_program(servers.MONGOD)
        self._started.insert(
            0, start(servers.mongod_arguments(mongod, self.mongodb_port, self._folder))
        )
        ensure_ready(self.mongodb_port, self.passwords)

    def kill_mongod(self) -> None:
        """End mongod as a loss of power does, and start it again."""
        killed = self._started.pop(0)
        killed.kill()
        killed.wait()
        self._start_mongod()

    @property
    def mongod_pid(self) -> int:
        return self._started[0].pid

    @contextmanager
    def frozen_mongod(self) -> Iterator[None]:
        """Keep mongod from doing anything for as long as the block takes."""
        freeze(self._started[0])
        try:
            yield
        finally:
            self._started[0].send_signal(signal.SIGCONT)

    @contextmanager
    def frozen_redis(self) -> Iterator[None]:
        """Keep Redis from doing anything for as long as the block takes."""
        redis = self._started[-1]
        freeze(redis)
        try:
            yield
        finally:
            redis.send_signal(signal.SIGCONT)

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()


class Up:
    """A `clustr up` in a folder of its own.

    Args:
        folder: its working directory.
        environment: settings besides HOST, PORT and DATA_FOLDER.
        arguments: more arguments of the command; without them, it runs one worker.
        own_python: whether each of its processes has a Python of its own, as for its users.
            Else they are forks of one in which Clustr has been imported.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        arguments: tuple[str, ...],
        own_python: bool = False,
    ):
        self.data = folder / "data"
        self._log = folder / f"output-{len(list(folder.glob('output-*')))}"
        port = environment.get("PORT") or str(servers.free_port())
        self.url = f"http://127.0.0.1:{port}"
        settings = {"HOST": "127.0.0.1", "PORT": port, "DATA_FOLDER": str(self.data)}
        settings["XDG_STATE_HOME"] = str(folder / "state")  # Others shall not find it.
        settings["WORKER_NICE"] = "0"  # Tests wait for workers, beside other tests.
        command = ["-m", "clustr", "up", *(arguments or ("--workers", "1"))]
        variables = {**_plain_environment(), **settings, **environment}
        self._process: subprocess.Popen[bytes] | ForkedProgram
        with self._log.open("ab") as output, Path(os.devnull).open() as nothing:
            if own_python:
                self._process = start(
                    [sys.executable, *command],
                    env=variables,
                    cwd=folder,
                    stdin=nothing,
                    stdout=output,
                    stderr=output,
                )
            else:
                streams = [nothing.fileno(), output.fileno(), output.fileno()]
                self._process = fork_server().start(command, variables, folder, streams)
        self.pid = self._process.pid
        self._folder = folder

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of Clustr, as somebody does beside it."""
        settings = {**_plain_environment(), "DATA_FOLDER": str(self.data)}
        return run_program(["-m", "clustr", *arguments], settings, self._folder)

    def mongodb(self) -> MongoClient[dict[str, Any]]:
        """A client of the MongoDB that it started."""
        addresses = json.loads((self.data / servers.ADDRESSES).read_text())
        return MongoClient(addresses["MONGODB_URL"], tz_aware=True)

    def output(self) -> str:
        """What it and its children have printed so far."""
        return self._log.read_text(errors="replace")

    def wait_until_started(self, seconds: float = 120) -> "Up":
        def started() -> bool:
            assert self._process.poll() is None, self.output()
            return "Things to try" in self.output()

        wait_until(started, seconds, self.output())
        return self

    def wait(self, seconds: float = 60) -> int:
        """Wait until it has ended, and return its exit code."""
        return self._process.wait(seconds)

    def stop(self) -> int:
        """Ask it to end, as a service manager does, and return its exit code."""
        self._process.terminate()
        return self.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End it and everything that it started, whatever happened before."""
        family = descendants(self.pid)
        if self._process.poll() is None:
            self.kill()
        for process in family:
            process.kill()


def _plain_environment() -> dict[str, str]:
    """The environment without settings, which would make the tests differ between machines."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ}
