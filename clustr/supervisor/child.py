"""A child of the supervisor: what to run, its state, its output and its logs."""

import collections
import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from clustr.supervisor.forking import Starter

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 10.0
STEADY_SECONDS = 30.0  # a child that lived this long is started again without a longer delay
LONGEST_LINE_BYTES = 64 * 1024
# What a child logs into a file is kept up to this size, in this many files besides the newest.
LARGEST_LOG_BYTES = 10 * 1024 * 1024
OLD_LOGS = 3


@dataclasses.dataclass(frozen=True)
class Child:
    """A process to keep running.

    Args:
        name: its name in the output.
        start: starts it; from `command_starter` or `function_starter`.
        ready: returns quickly whether the child is ready; None if it is ready from the start.
        ready_seconds: how long it may take to become ready.
        starts_again: returns whether a child that ended while starting is to be started again;
            None if it is not.
        stop_seconds: how long it may take to end after SIGTERM, before it is killed.
        log_file: the file in which it logs, if it does; its output is then not printed. The
            supervisor rotates this file once it is large.
        copy_to: a file that gets what is printed of it, too; the supervisor writes and rotates it.
        reopen_log: the signal that makes it open that file again; None if it does so for each line.
        reload_by: the signal that makes it load its code anew, when that has changed.
    """

    name: str
    start: Starter
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 30.0
    starts_again: Callable[[], bool] | None = None
    stop_seconds: float = 2.0
    log_file: Path | None = None
    copy_to: Path | None = None
    reopen_log: signal.Signals | None = None
    reload_by: signal.Signals | None = None


def old_log(log_file: Path, number: int) -> Path:
    """The name of a log file that was moved aside; the newest has the number 1."""
    return log_file.with_name(f"{log_file.name}.{number}")


class ChildState:
    """The state of one child of the supervisor."""

    def __init__(self, child: Child):
        self.child = child
        self.pid: int | None = None
        self.started_at = 0.0
        self.exit_description = ""
        self.restart_at: float | None = None
        self.delay_seconds = FIRST_DELAY_SECONDS
        self.last_lines: collections.deque[str] = collections.deque(maxlen=20)

    def signal(self, number: int) -> None:
        if self.pid is not None:
            os.kill(self.pid, number)

    def record_exit(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self.exit_description = (
            f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        )
        self.pid = None

    def schedule_restart(self) -> float:
        """Set the time of the next start; return the seconds until then."""
        now = time.monotonic()
        if now - self.started_at > STEADY_SECONDS:
            self.delay_seconds = FIRST_DELAY_SECONDS
        delay_seconds = self.delay_seconds
        self.restart_at = now + delay_seconds
        self.delay_seconds = min(2 * delay_seconds, LONGEST_DELAY_SECONDS)
        return delay_seconds

    def rotate_log(self) -> None:
        """Move the log file aside if it is large, with those that were moved aside before."""
        log_file = self.child.log_file or self.child.copy_to
        if log_file is None or self.pid is None or not log_file.exists():
            return
        if log_file.stat().st_size < LARGEST_LOG_BYTES:
            return
        for number in range(OLD_LOGS - 1, 0, -1):
            older = old_log(log_file, number)
            if older.exists():
                older.replace(old_log(log_file, number + 1))
        log_file.replace(old_log(log_file, 1))
        if self.child.reopen_log:
            self.signal(self.child.reopen_log)

    def last_output(self) -> str:
        """The end of its output, for a message: an error of Clustr's own, or the last line."""
        lines = [line for line in self.last_lines if line.strip()]
        own_errors = [
            line.removeprefix("clustr: ") for line in lines if line.startswith("clustr: ")
        ]
        last_line = f": {(own_errors or lines)[-1].strip()}" if lines else ""
        hint = f" (see {self.child.log_file})" if self.child.log_file else ""
        return last_line + hint


class OutputPipe:
    """The lines that come out of one pipe."""

    def __init__(self, state: ChildState, descriptor: int):
        self.state = state
        self.descriptor = descriptor
        self._incomplete_line = b""
        os.set_blocking(descriptor, False)

    def read(self) -> list[str] | None:
        """The lines that are complete by now; None when no more will come.

        Raises:
            BlockingIOError: nothing is there at the moment.
        """
        data = os.read(self.descriptor, LONGEST_LINE_BYTES)
        if not data and not self._incomplete_line:
            return None
        *lines, self._incomplete_line = (self._incomplete_line + data).split(b"\n")
        if not data or len(self._incomplete_line) > LONGEST_LINE_BYTES:
            lines.append(self._incomplete_line)
            self._incomplete_line = b""
        return [line.decode(errors="replace") for line in lines]
