"""Starts programs of Clustr in forks of one process that has imported its modules already.

These imports take longer than most of what a test lets a worker or a command do. A program that is
started here is a process in a session of its own, with the arguments, the environment and the
folder that it would have after `python -m ...`, and it ends as that does. Of the variables that
Python itself reads, PYTHONPATH alone has an effect.

A module that such a program executes (execve(2)), as `clustr up` does, runs in the same process
without another Python, too.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import gunicorn.config

from clustr.supervisor.forking import die_with_parent

# What the programs import sooner or later. None of these starts a thread, opens a connection or
# reads the environment.
MODULES = (
    "clustr.app",
    "clustr.cli.analyze",
    "clustr.cli.config",
    "clustr.cli.export",
    "clustr.cli.fsck",
    "clustr.cli.import_folders",
    "clustr.cli.plugins",
    "clustr.cli.start",
    "clustr.worker.jobs",
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
    "pymongo.synchronous.auth",
)
LARGEST_REQUEST_BYTES = 128 * 1024
ROOM_FOR_ARGUMENTS = "-" * 4096  # for the command lines that programs show


class ForkedProgram:
    """A program that was started, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._waiting = threading.Lock()
        self._exit_code: int | None = None
        self.pid = int(connection.recv(20))
        # In a ring of garbage, `__del__` could come after the socket's own.
        weakref.finalize(self, connection.close)

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, seconds: float | None = None) -> int:
        """Wait until it has ended, and return its exit code."""
        with self._waiting:
            if self._exit_code is None:
                self._connection.settimeout(seconds)
                try:
                    self._exit_code = int(self._connection.recv(20))
                except (TimeoutError, BlockingIOError):
                    raise subprocess.TimeoutExpired(str(self.pid), seconds or 0) from None
                self._connection.close()
            return self._exit_code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that forks. It ends with this one, and the programs end with it."""

    def __init__(self) -> None:
        # The kernel ends it with the thread that started it.
        assert threading.current_thread() is threading.main_thread()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, __file__, str(os.getpid()), str(theirs.fileno())),
                    ROOM_FOR_ARGUMENTS,
                ],
                env={"PATH": os.environ["PATH"]},  # no PYTHONUNBUFFERED, which would be for all
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # or Python might take it for a terminal
                start_new_session=True,
            )
        atexit.register(self._end)

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        streams: Sequence[int],
    ) -> ForkedProgram:
        """Start a program.

        Args:
            arguments: those of `python`: `-m`, a module and its arguments, or `-c`, a program and
                its arguments.
            environment: all of its environment.
            folder: where it runs.
            streams: the descriptors of its standard input, output and error.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps([list(arguments), dict(environment), str(folder)])
        with theirs:
            descriptors = [theirs.fileno(), *streams]
            socket.send_fds(self._requests, [request.encode()], descriptors)
        return ForkedProgram(ours)

    def _end(self) -> None:
        self._requests.close()
        self._process.wait()


@functools.cache
def fork_server() -> ForkServer:
    """Return the one of this process; the first call is made in the main thread."""
    return ForkServer()


def run_program(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, seconds: float = 180
) -> subprocess.CompletedProcess[str]:
    """Run a program without a terminal to its end; arguments are those of `ForkServer.start`."""
    with (
        Path(os.devnull).open() as nothing,
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
    ):
        streams = [nothing.fileno(), output.fileno(), errors.fileno()]
        program = fork_server().start(arguments, environment, folder, streams)
        try:
            exit_code = program.wait(seconds)
        finally:
            program.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(list(arguments), exit_code, output.read(), errors.read())


# What follows runs in the process that forks, and in its forks.


def serve(requests: socket.socket) -> list[str]:
    """Fork for each request, until the other end is closed.

    Returns:
        only in the forks: the arguments of `python`.
    """
    own_pid = os.getpid()
    running: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor of the process
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    report_end(*running.pop(key.fd))
                    continue
                request, descriptors, _, _ = socket.recv_fds(requests, LARGEST_REQUEST_BYTES, 4)
                if not request:
                    sys.exit()
                if not (pid := os.fork()):
                    os.setsid()
                    die_with_parent(own_pid)
                    requests.close()
                    for descriptor, (_, connection) in running.items():
                        os.close(descriptor)
                        connection.close()
                    return become(json.loads(request), descriptors)
                connection = socket.socket(fileno=descriptors[0])
                for descriptor in descriptors[1:]:
                    os.close(descriptor)
                connection.send(b"%d" % pid)
                descriptor = os.pidfd_open(pid)
                running[descriptor] = pid, connection
                selector.register(descriptor, selectors.EVENT_READ)


def report_end(pid: int, connection: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    with connection, contextlib.suppress(BrokenPipeError):  # Nobody need wait for it.
        connection.send(b"%d" % os.waitstatus_to_exitcode(status))


def become(request: tuple[list[str], dict[str, str], str], descriptors: list[int]) -> list[str]:
    """Take over the environment, folder and streams of a program; return its arguments."""
    arguments, environment, folder = request
    for target, descriptor in enumerate(descriptors[1:]):
        os.dup2(descriptor, target)
    for descriptor in descriptors:
        os.close(descriptor)
    # Whoever runs the tests may ignore these, as nohup does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    gunicorn.config.Chdir.default = folder  # It is that of the import, or a variable leads there.
    return arguments


def run(arguments: list[str]) -> None:
    """Do what `python` does with these arguments."""
    option, program, *others = arguments
    sys.orig_argv = [sys.executable, *arguments]
    sys.argv = [option, *others]
    show_command_line(sys.orig_argv)
    searched = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = [str(Path.cwd()) if option == "-m" else "", *searched]
    if option == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


def show_command_line(arguments: Sequence[str]) -> None:
    """Write it where others read that of this process (proc_pid_cmdline(5))."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(after_name[45]), int(after_name[46])  # fields 48 and 49 of proc_pid_stat(5)
    text = b"\0".join(map(os.fsencode, arguments))[: end - begin - 1]
    ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


def open_files() -> set[int]:
    """The file descriptors of this process."""
    links = [*Path("/proc/self/fd").iterdir()]
    return {int(link.name) for link in links if link.is_symlink()}  # not that of the listing


_execve = os.execve
# What modules open when they are imported is theirs in each Python: the locks of decodes.
_files_of_modules: set[int] = set()


def execute(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Do what `os.execve` does; a module of Python runs without another Python."""
    if program != sys.executable or arguments[1] != "-m":
        _execve(program, arguments, environment)
    for number in open_files() - _files_of_modules:
        if not os.get_inheritable(number):
            os.close(number)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as each Python does
    os.environ.clear()
    os.environ.update(environment)
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(line_buffering=True)
    exit_code: object = None
    try:
        run([*arguments[1:]])
    except SystemExit as end:
        exit_code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        exit_code = 1
    if isinstance(exit_code, str):
        sys.stderr.write(f"{exit_code}\n")
    # It ends here, as a Python of its own does, and nothing that called this goes on.
    ctypes.pythonapi.Py_Exit(exit_code if isinstance(exit_code, int) else int(bool(exit_code)))
    raise AssertionError("it has ended")


if __name__ == "__main__":
    parent_pid, number = map(int, sys.argv[1:3])
    die_with_parent(parent_pid)
    before = open_files()
    for module in MODULES:
        importlib.import_module(module)
    _files_of_modules |= open_files() - before
    os.execve = execute
    gc.freeze()
    run(serve(socket.socket(fileno=number)))
