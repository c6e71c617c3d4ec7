"""Kept processes: a worker has one for each analyzer, which answers many calls.

A process is made at the first call for its analyzer, as a fork of the worker, and answers one call
after the other, with clients of MongoDB and Redis of its own. When it dies, the call under way is
lost, and the next one makes a new process. One that nobody has called for a while is let go.
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
from clustr.supervisor.processes import function

log = logs.logger(__name__)

AGAIN, ENDS = b"again", b"ends"
LONGEST_CALL_BYTES = 4096
POLL_SECONDS = 0.5
STOP_SECONDS = 2.0


class IncomingCalls:
    """The calls that come to a kept process.

    Args:
        line: to the worker.
    """

    def __init__(self, line: socket.socket, interruption: Interruption):
        self._line = line
        self._interruption = interruption

    def __iter__(self) -> Iterator[str]:
        """One call after the other, each to be answered; until the process shall end."""
        try:
            while True:
                with self._interruption:
                    call = self._line.recv(LONGEST_CALL_BYTES)
                if not call:
                    return
                yield call.decode()
        except (Interrupted, OSError):  # It shall end, or its worker is gone.
            return

    def answer(self, last: bool) -> None:
        """Say that a call has been answered, and whether this process then ends."""
        self._line.send(ENDS if last else AGAIN)


@dataclass(slots=True)
class PersistentProcess:
    """A process that is kept, and the line to it.

    Attributes:
        idle_seconds: how long it is kept after a call; None for ever.
    """

    pid: int
    line: socket.socket
    idle_seconds: float | None
    called_at: float = field(default_factory=time.monotonic)

    def is_idle(self) -> bool:
        """Whether nobody has called it for longer than it is kept."""
        kept_seconds = time.monotonic() - self.called_at
        return self.idle_seconds is not None and kept_seconds > self.idle_seconds


class PersistentProcesses:
    """The kept processes of one worker.

    Args:
        serve: what such a process does: it is given the name of the analyzer and a line, and
            returns the exit code.
    """

    def __init__(self, serve: Callable[[str, socket.socket], int]):
        self._serve = serve
        self._processes: dict[str, PersistentProcess] = {}
        self._ending: list[PersistentProcess] = []
        self._called: str | None = None
        self._answered = False

    def call(self, analyzer: str, call: str, idle_seconds: float | None) -> int:
        """Hand a call to the process of an analyzer; the process id. `wait` has to follow.

        Args:
            idle_seconds: how long the process is kept without another call; None for ever.
        """
        self._reap()
        process = self._processes.get(analyzer)
        if process is None or not self._send(process, call):
            self._forget(analyzer)
            process = self._processes[analyzer] = self._start(analyzer, idle_seconds)
            self._send(process, call)
        self._called = analyzer
        return process.pid

    def release_idle(self) -> None:
        """Let go of the processes that nobody has called for longer than they are kept."""
        for analyzer, process in list(self._processes.items()):
            if analyzer != self._called and process.is_idle():
                self._forget(analyzer)
        self._reap()

    def take_answer(self) -> bool:
        """Whether the call under way was answered; it then is no more, in any case."""
        if process := self._processes.get(self._called):
            process.called_at = time.monotonic()
        answered, self._called, self._answered = self._answered, None, False
        return answered

    def wait(self) -> int | None:
        """Wait until the call is answered or its process has died.

        It may be left by an exception, as a signal raises one, and be called again.

        Returns:
            0 when it is answered, else the wait status; None when nobody knows.
        """
        process = self._processes.get(self._called)
        if process is None:  # It has died, and that was said before.
            return None
        while True:
            readable, _, _ = select.select([process.line], [], [], POLL_SECONDS)
            # It is looked at and not taken, or an exception could come in between and lose it.
            answer = self._peek(process) if readable else None
            if answer:
                if answer == ENDS:
                    self._forget(self._called)
                self._answered = True
                return 0
            gone = answer == b""
            if gone:  # It dies, or has closed the line and cannot be reached any more.
                _kill(process)
            ended, status = _look_for_end(process, wait=gone)
            if ended:
                self._forget(self._called)
                return status

    def _peek(self, process: PersistentProcess) -> bytes:
        try:
            return process.line.recv(LONGEST_CALL_BYTES, socket.MSG_PEEK)
        except OSError:
            return b""

    def _send(self, process: PersistentProcess, call: str) -> bool:
        """Take the answer to the call before, and send; False when nobody is there."""
        try:
            if select.select([process.line], [], [], 0)[0]:
                process.line.recv(LONGEST_CALL_BYTES)
            process.line.send(call.encode())
        except OSError:
            return False
        return True

    def _start(self, analyzer: str, idle_seconds: float | None) -> PersistentProcess:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def serve() -> int:
            ours.close()
            for process in (*self._processes.values(), *self._ending):
                process.line.close()
            return self._serve(analyzer, its)

        pid = function(serve)().pid
        its.close()
        log.debug("process_kept", analyzer=analyzer, pid=pid)
        return PersistentProcess(pid, ours, idle_seconds)

    def _forget(self, analyzer: str | None) -> None:
        """Let a process end by itself; its line ends, too."""
        if process := self._processes.pop(analyzer, None):
            process.line.close()
            self._ending.append(process)

    def _reap(self) -> None:
        self._ending = [process for process in self._ending if not _look_for_end(process)[0]]

    def stop(self) -> None:
        """Ask all of them to end, and kill what has not after a moment."""
        for analyzer in list(self._processes):
            self._forget(analyzer)
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
    """Kill a process, with those that it made."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _look_for_end(process: PersistentProcess, wait: bool = False) -> tuple[bool, int | None]:
    """Whether a process has ended, and its wait status if that is known."""
    try:
        ended, status = os.waitpid(process.pid, 0 if wait else os.WNOHANG)
    except ChildProcessError:  # That was seen before.
        return True, None
    return bool(ended), status
