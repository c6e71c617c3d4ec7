"""Persistent processes: a worker has one for each analyzer, which serves many calls.

The first call for an analyzer forks the process from the worker. It serves one call after the
other, with its own clients of MongoDB and Redis. When it dies, the current call is lost, and the
next call forks a new process. A process that gets no call for a while is ended.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from clustr import logs
from clustr.analysis.limits import Interrupted, Interruption
from clustr.supervisor.forking import function_starter

log = logs.logger(__name__)

CONTINUES, ENDS = b"again", b"ends"
LONGEST_CALL_BYTES = 4096
POLL_SECONDS = 0.5
STOP_SECONDS = 2.0


class IncomingCalls:
    """The calls that come to a persistent process: an iterator of the ids of runs.

    Args:
        connection: the process's end of the socket pair with its worker.
        interruption: ends the iteration when SIGTERM comes.
    """

    def __init__(self, connection: socket.socket, interruption: Interruption):
        self._connection = connection
        self._interruption = interruption

    def __iter__(self) -> Iterator[str]:
        """Yield one call after the other until the process has to end; `answer` each of them."""
        try:
            while True:
                with self._interruption:
                    call = self._connection.recv(LONGEST_CALL_BYTES)
                if not call:
                    return
                yield call.decode()
        except (Interrupted, OSError):  # SIGTERM came, or the worker is gone.
            return

    def answer(self, last: bool) -> None:
        """Report to the worker that the call is done, and whether this process ends after it."""
        self._connection.send(ENDS if last else CONTINUES)


@dataclass(slots=True)
class PersistentProcess:
    """A persistent process, as its worker sees it.

    Attributes:
        connection: the worker's end of the socket pair with it.
        idle_seconds: how long it is kept after a call; None for ever.
        called_at: when its last call began or ended, by `time.monotonic()`.
    """

    pid: int
    connection: socket.socket
    idle_seconds: float | None
    called_at: float = field(default_factory=time.monotonic)

    def is_idle(self) -> bool:
        """Whether its last call is longer ago than `idle_seconds`."""
        idle_for_seconds = time.monotonic() - self.called_at
        return self.idle_seconds is not None and idle_for_seconds > self.idle_seconds


class PersistentProcesses:
    """The persistent processes of one worker.

    Args:
        serve: runs in each process, with the analyzer's name and the process's end of the
            connection; returns the exit code.
    """

    def __init__(self, serve: Callable[[str, socket.socket], int]):
        self._serve = serve
        self._processes: dict[str, PersistentProcess] = {}
        self._ending: list[PersistentProcess] = []
        self._called_analyzer: str | None = None
        self._answered = False

    def call(self, analyzer: str, call: str, idle_seconds: float | None) -> int:
        """Send a call to the process of an analyzer; `wait` has to follow.

        Args:
            analyzer: its name.
            call: the id of the run.
            idle_seconds: how long the process is kept without another call; None for ever.

        Returns:
            the process id.
        """
        self._reap()
        process = self._processes.get(analyzer)
        if process is None or not self._send(process, call):
            self._let_end(analyzer)
            process = self._processes[analyzer] = self._start(analyzer, idle_seconds)
            self._send(process, call)
        self._called_analyzer = analyzer
        return process.pid

    def release_idle(self) -> None:
        """End the processes whose last call is longer ago than their `idle_seconds`."""
        for analyzer, process in list(self._processes.items()):
            if analyzer != self._called_analyzer and process.is_idle():
                self._let_end(analyzer)
        self._reap()

    def take_answer(self) -> bool:
        """Forget the current call; return whether it was answered."""
        called = self._called_analyzer
        if called is not None and (process := self._processes.get(called)):
            process.called_at = time.monotonic()
        answered, self._called_analyzer, self._answered = self._answered, None, False
        return answered

    def wait(self) -> int | None:
        """Wait until the current call is answered or its process has died.

        A signal handler may raise out of this method; it can then be called again.

        Returns:
            0 when it is answered, else the wait status (wait(2)); None when that is not known.
        """
        called = self._called_analyzer
        process = None if called is None else self._processes.get(called)
        if called is None or process is None:
            # It has died, and an earlier call has returned its status.
            return None
        while True:
            readable, _, _ = select.select([process.connection], [], [], POLL_SECONDS)
            # The answer is peeked at, not taken: an exception from a signal handler could lose it.
            answer = self._peek(process) if readable else None
            if answer:
                if answer == ENDS:
                    self._let_end(called)
                self._answered = True
                return 0
            closed = answer == b""
            if closed:  # It is dying, or has closed its connection and cannot be called.
                _kill(process)
            ended, status = _poll_exit(process, wait=closed)
            if ended:
                self._let_end(called)
                return status

    def _peek(self, process: PersistentProcess) -> bytes:
        try:
            return process.connection.recv(LONGEST_CALL_BYTES, socket.MSG_PEEK)
        except OSError:
            return b""

    def _send(self, process: PersistentProcess, call: str) -> bool:
        """Discard the answer to the call before, and send; False when the process is gone."""
        try:
            if select.select([process.connection], [], [], 0)[0]:
                process.connection.recv(LONGEST_CALL_BYTES)
            process.connection.send(call.encode())
        except OSError:
            return False
        return True

    def _start(self, analyzer: str, idle_seconds: float | None) -> PersistentProcess:
        worker_end, process_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def serve() -> int:
            worker_end.close()
            for process in (*self._processes.values(), *self._ending):
                process.connection.close()
            return self._serve(analyzer, process_end)

        pid = function_starter(serve)().pid
        process_end.close()
        log.debug("process_kept", analyzer=analyzer, pid=pid)
        return PersistentProcess(pid, worker_end, idle_seconds)

    def _let_end(self, analyzer: str) -> None:
        """Close the connection of a process, so that it ends by itself."""
        if process := self._processes.pop(analyzer, None):
            process.connection.close()
            self._ending.append(process)

    def _reap(self) -> None:
        self._ending = [process for process in self._ending if not _poll_exit(process)[0]]

    def stop(self) -> None:
        """Ask all of them to end, and kill those that have not after `STOP_SECONDS`."""
        for analyzer in list(self._processes):
            self._let_end(analyzer)
        self._reap()
        for process in self._ending:
            os.kill(process.pid, signal.SIGTERM)
        ends_at = time.monotonic() + STOP_SECONDS
        while self._ending and time.monotonic() < ends_at:
            time.sleep(0.02)
            self._reap()
        for process in self._ending:
            _kill(process)


def _kill(process: PersistentProcess) -> None:
    """Kill a process and the others of its process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _poll_exit(process: PersistentProcess, wait: bool = False) -> tuple[bool, int | None]:
    """Whether a process has ended, and its wait status, or None if that was collected before."""
    try:
        ended, status = os.waitpid(process.pid, 0 if wait else os.WNOHANG)
    except ChildProcessError:  # That was seen before.
        return True, None
    return bool(ended), status
