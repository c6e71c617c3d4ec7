"""A supervisor: it starts children in order, keeps them running, and stops them.

It is for a process without threads, because it forks: see `clustr.supervisor.forking`.
"""

import contextlib
import errno
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from clustr.domain.errors import StartUpError
from clustr.supervisor.child import Child, ChildState, OutputPipe
from clustr.supervisor.readiness import notify_ready

POLL_SECONDS = 0.05
LOG_CHECK_SECONDS = 10.0
CODE_CHECK_SECONDS = 1.0
# What writing says when nothing reads a pipe or a terminal any more.
READER_IS_GONE = (errno.EPIPE, errno.EIO)
COLORS = (36, 35, 33, 32, 34)  # cyan, magenta, yellow, green, blue (ECMA-48)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Supervisor:
    """Starts children in order, keeps them running, and stops them in reverse order.

    Args:
        children: in the order in which they are started; each waits until the one before is ready.
        report: gets a sentence about each child that ends; by default it is printed.
        code_changed: returns whether code has changed since the last call; None if nobody cares.
        stop_together: whether to stop all at the same time, because none of them needs another.

    Attributes:
        stopped_by: the signal that asked to stop, if one did.
        terminal_closed: whether the terminal was closed when that signal came.
    """

    def __init__(
        self,
        children: Sequence[Child],
        report: Callable[[str], None] | None = None,
        stop_together: bool = False,
        code_changed: Callable[[], bool] | None = None,
    ):
        self._states = [ChildState(child) for child in children]
        self._stop_together = stop_together
        self._code_changed = code_changed
        self._code_checked_at = float("-inf")
        self._report = report or (lambda text: self._print_labeled("clustr", text))
        self._selector = selectors.DefaultSelector()
        self._stop_requests = 0
        self._logs_checked_at = float("-inf")
        self._had_terminal = has_terminal()
        self.stopped_by: signal.Signals | None = None
        self.terminal_closed = False

    def run(self, on_started: Callable[[], None] = lambda: None) -> int:
        """Run until SIGTERM, SIGINT or SIGHUP; a second one kills what has not ended by then.

        SIGUSR1, which asks daemons to reopen their logs, changes nothing: logs go to standard
        error.

        Args:
            on_started: called once, when all are ready.

        Returns:
            The exit code: 0 after an orderly end, 1 when a second signal cut it short.

        Raises:
            StartUpError: a child ended or did not become ready in time; all are stopped by then.
        """
        with self._handle_signals():
            try:
                if self._start_all():
                    notify_ready()
                    on_started()
                while not self._stop_requests:
                    self._poll(self._seconds_to_next_task())
                    self._restart_ended_children()
                    self._rotate_logs()
                    self._reload_changed_code()
            finally:
                self._stop_all()
        return 0 if self._stop_requests < 2 else 1

    def print_line(self, text: str) -> None:
        """Print text to standard output; that it cannot be written is no reason to stop serving."""
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except OSError as error:  # A disk that is full has room again some day.
            if error.errno in READER_IS_GONE:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @contextlib.contextmanager
    def _handle_signals(self) -> Iterator[None]:
        """Count requests to stop, and let every signal wake the selector."""

        def request_stop(number: int, _frame: object) -> None:
            self._stop_requests += 1
            self.stopped_by = self.stopped_by or signal.Signals(number)
            self.terminal_closed = self._had_terminal and not has_terminal()

        handlers: dict[int, Callable[..., None]] = dict.fromkeys(
            (signal.SIGCHLD, signal.SIGUSR1), lambda *_: None
        )
        handlers |= dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), request_stop)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup wants it ignored
            del handlers[signal.SIGHUP]
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(reading, selectors.EVENT_READ)
        old_wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
        try:
            yield
        finally:
            if self.stopped_by is signal.SIGHUP:
                # This program may start anew, and another SIGHUP would kill it until it has its
                # handlers: it is kept for them. An exec keeps what is blocked.
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_wakeup)
            self._selector.close()
            os.close(reading)
            os.close(writing)

    def _start_all(self) -> bool:
        """Start the children one after the other; False when a request to stop came first."""
        for state in self._states:
            if self._stop_requests:
                break
            self._start(state)
            self._wait_until_ready(state)
        return not self._stop_requests

    def _start(self, state: ChildState) -> None:
        state.pid, output = state.child.start()
        state.started_at = time.monotonic()
        state.exit_description, state.restart_at = "", None
        if output is not None:
            self._selector.register(output, selectors.EVENT_READ, OutputPipe(state, output))

    def _wait_until_ready(self, state: ChildState) -> None:
        child = state.child
        while not self._stop_requests:
            self._poll(POLL_SECONDS)
            if state.exit_description and child.starts_again and child.starts_again():
                self._report(f"{child.name} ended ({state.exit_description}); it starts again")
                self._start(state)
            for other in self._states:  # one that was ready before may have ended since
                if other.exit_description:
                    reason = f"({other.exit_description}){other.last_output()}"
                    raise StartUpError(f"{other.child.name} ended while starting {reason}")
            if child.ready is None or child.ready():
                return
            if time.monotonic() > state.started_at + child.ready_seconds:
                reason = f"within {child.ready_seconds:g} seconds{state.last_output()}"
                raise StartUpError(f"{child.name} did not answer {reason}")

    def _poll(self, seconds: float | None) -> None:
        """Wait for output or a signal, at most so long; print output and record ended children."""
        for key, _ in self._selector.select(seconds):
            if key.data is not None:
                self._print_output(key.data)
                continue
            with contextlib.suppress(BlockingIOError):
                os.read(key.fd, 4096)  # one byte for each signal; they only had to wake us
        for state in self._states:
            if state.pid is not None:
                ended, status = os.waitpid(state.pid, os.WNOHANG)
                if ended:
                    state.record_exit(status)
                    self._print_remaining_output(state)

    def _print_output(self, output: OutputPipe) -> bool:
        """Print what came out of a pipe; False when there is nothing at the moment, or no more."""
        try:
            lines = output.read()
        except BlockingIOError:
            return False
        if lines is None:
            self._selector.unregister(output.descriptor)
            os.close(output.descriptor)
            return False
        child = output.state.child
        for line in lines:
            output.state.last_lines.append(line)
            if child.log_file is None:
                self._print_labeled(child.name, line)
        if child.copy_to:
            with contextlib.suppress(OSError), child.copy_to.open("a") as copy:  # It is printed.
                copy.writelines(f"{line}\n" for line in lines)
        return True

    def _print_remaining_output(self, state: ChildState) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data is not None and key.data.state is state:
                while self._print_output(key.data):
                    pass

    def _print_labeled(self, name: str, line: str) -> None:
        names = ["clustr", *(state.child.name for state in self._states)]
        label = f"{name:<{max(map(len, names))}} |"
        if sys.stdout.isatty():
            label = f"\x1b[{COLORS[names.index(name) % len(COLORS)]}m{label}\x1b[0m"
        self.print_line(f"{label} {line}")

    def _seconds_to_next_task(self) -> float | None:
        times = [state.restart_at for state in self._states if state.restart_at is not None]
        if any(state.child.log_file or state.child.copy_to for state in self._states):
            times.append(self._logs_checked_at + LOG_CHECK_SECONDS)
        if self._code_changed:
            times.append(self._code_checked_at + CODE_CHECK_SECONDS)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _rotate_logs(self) -> None:
        if time.monotonic() < self._logs_checked_at + LOG_CHECK_SECONDS:
            return
        self._logs_checked_at = time.monotonic()
        for state in self._states:
            try:
                state.rotate_log()
            except OSError as error:
                self._report(f"{error.filename} cannot be rotated: {error.strerror}")

    def _reload_changed_code(self) -> None:
        if not self._code_changed or time.monotonic() < self._code_checked_at + CODE_CHECK_SECONDS:
            return
        self._code_checked_at = time.monotonic()
        if self._code_changed():
            reloading = [state for state in self._states if state.child.reload_by and state.pid]
            names = " and ".join(state.child.name for state in reloading)
            self._report(f"code has changed, and is loaded anew by {names}")
            for state in reloading:
                assert state.child.reload_by is not None
                state.signal(state.child.reload_by)

    def _restart_ended_children(self) -> None:
        for state in self._states:
            if state.pid is not None:
                continue
            if state.restart_at is None:
                self._restart_later(state)
            elif time.monotonic() >= state.restart_at:
                try:
                    self._start(state)
                except OSError as error:  # There may be room for a process again in a while.
                    state.exit_description = f"could not be started: {error.strerror}"
                    self._restart_later(state)

    def _restart_later(self, state: ChildState) -> None:
        seconds = state.schedule_restart()
        name, reason = state.child.name, f"({state.exit_description}){state.last_output()}"
        self._report(f"{name} ended {reason}; it starts again in {seconds:g} seconds")

    def _stop_all(self) -> None:
        one_by_one = [[state] for state in reversed(self._states)]
        for states in [self._states] if self._stop_together else one_by_one:
            self._stop(states)

    def _stop(self, states: Sequence[ChildState]) -> None:
        for state in states:
            state.signal(signal.SIGTERM)
        limit = time.monotonic() + max(state.child.stop_seconds for state in states)
        while any(state.pid for state in states):
            seconds_left = limit - time.monotonic()
            if seconds_left <= 0 or self._stop_requests > 1:
                for state in states:
                    state.signal(signal.SIGKILL)
                seconds_left = POLL_SECONDS
            self._poll(seconds_left)
        for state in states:
            self._print_remaining_output(state)
