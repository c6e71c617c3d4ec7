"""Child processes that end with the process that made them, and a supervisor that keeps them up.

Everything here is for a process without threads: it forks, and a fork of a process with threads
can hang on a lock that nobody holds any more. Children are made from the main thread because the
kernel ends them when the *thread* that forked them ends (prctl(2), PR_SET_PDEATHSIG).
"""

import collections
import contextlib
import ctypes
import dataclasses
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from clustr import logs
from clustr.domain.errors import StartUpError

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)  # now, so that a forked child need not load anything

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 10.0
STEADY_SECONDS = 30.0  # a child that lived this long is started again without a longer delay
POLL_SECONDS = 0.05
LONGEST_LINE_BYTES = 64 * 1024
# What a child logs into a file is kept up to this size, in this many files besides the newest.
LARGEST_LOG_BYTES = 10 * 1024 * 1024
OLD_LOGS = 3
LOG_CHECK_SECONDS = 10.0
COLOURS = (36, 35, 33, 32, 34)  # cyan, magenta, yellow, green, blue (ECMA-48)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends.

    A fork clears this, an exec keeps it.

    Args:
        parent_pid: the process that made this one; when it has ended already, so does this one.
    """
    if _libc.prctl(PR_SET_PDEATHSIG, *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent_pid:
        os._exit(1)


class Started(NamedTuple):
    """A process that runs, and the reading end of the pipe that it writes to, if it has one."""

    pid: int
    output: int | None = None


Start = Callable[[], Started]


def command(
    arguments: Sequence[str], environment: Mapping[str, str], inherited: Sequence[int] = ()
) -> Start:
    """A way to start a program in a session of its own, its output going to a pipe.

    Args:
        arguments: the program's absolute path and its arguments.
        environment: all of its environment.
        inherited: file descriptors that it keeps besides its three standard ones.
    """

    def execute(output: int) -> int:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would keep that
        try:
            os.execve(arguments[0], arguments, environment)  # noqa: S606
        except OSError as error:
            os.write(2, f"{arguments[0]}: {error.strerror}\n".encode())
        return 127

    def start() -> Started:
        reading, writing = os.pipe()
        pid = _fork(lambda: execute(writing))
        os.close(writing)
        return Started(pid, reading)

    return start


def function(run: Callable[[], int]) -> Start:
    """A way to run a function in a fork, in a session of its own, with the output of this process.

    Args:
        run: returns the exit code.
    """
    return lambda: Started(_fork(run))


def _fork(run: Callable[[], int]) -> int:
    parent_pid = os.getpid()
    sys.stdout.flush()  # or the child would write once more what waits to be written
    sys.stderr.flush()
    # A signal that came in between would be handled in the child as if it were the parent.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid
    code = 1
    try:
        os.setsid()
        die_with_parent(parent_pid)
        _forget_signal_handlers()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        code = run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.stderr.write(f"{logs.short_traceback(sys.exc_info())}\n")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _forget_signal_handlers() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Notification:
    """A message from a child that it is ready: the protocol of systemd, see sd_notify(3).

    Called, it answers whether the message has come, as `Child.ready` has to; not to be called again
    after that. The child finds `address` in its environment as NOTIFY_SOCKET.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("")  # the kernel chooses a name that is no file
        self.address = "@" + self._socket.getsockname()[1:].decode()

    def __call__(self) -> bool:
        try:
            ready = b"READY=1" in self._socket.recv(4096).split(b"\n")
        except BlockingIOError:
            return False
        if ready:
            self._socket.close()
        return ready


def notify_ready() -> None:
    """Tell who started this process that it is ready, if they asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with sender, contextlib.suppress(OSError):  # nobody asked, or nobody listens any more
        sender.sendto(b"READY=1", address)


class Attempts:
    """Something to wait for that takes a while: a function, run in forks until one ends well.

    Called, it answers at once whether that has happened; as `Child.ready` it keeps the
    supervisor free of what the function does, threads for instance.
    """

    def __init__(self, run: Callable[[], int]):
        self._start = function(run)
        self._pid: int | None = None

    def __call__(self) -> bool:
        if self._pid is None:
            self._pid = self._start().pid
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        if not ended:
            return False
        self._pid = None
        return status == 0


@dataclasses.dataclass(frozen=True)
class Child:
    """A process to keep running.

    Args:
        name: what people call it.
        start: starts it; from `command` or `function`.
        ready: answers soon whether it does its work by now; without it, it does so from the start.
        ready_seconds: how long that may take.
        stop_seconds: how long it may take to end after SIGTERM, before it is killed.
        log_file: where it logs, if it does so by itself; its output is then not printed. This file
            is rotated once it is large.
        reopen_log: the signal that has it open that file anew; None when it does so for each line.
    """

    name: str
    start: Start
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 30.0
    stop_seconds: float = 2.0
    log_file: Path | None = None
    reopen_log: signal.Signals | None = None


def has_terminal() -> bool:
    """Whether this process has a terminal that can close on it (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def old_log(log_file: Path, number: int) -> Path:
    """The name of a log file that was moved aside; the newest has the number 1."""
    return log_file.with_name(f"{log_file.name}.{number}")


class _State:
    """What the supervisor knows of one child."""

    def __init__(self, child: Child):
        self.child = child
        self.pid: int | None = None
        self.started_at = 0.0
        self.ended = ""
        self.restart_at: float | None = None
        self.delay_seconds = FIRST_DELAY_SECONDS
        self.last_lines: collections.deque[str] = collections.deque(maxlen=20)

    def signal(self, number: int) -> None:
        if self.pid is not None:
            os.kill(self.pid, number)

    def note_end(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self.ended = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        self.pid = None

    def put_off_restart(self) -> float:
        """Set when it shall be started again; the seconds until then."""
        now = time.monotonic()
        if now - self.started_at > STEADY_SECONDS:
            self.delay_seconds = FIRST_DELAY_SECONDS
        delay_seconds = self.delay_seconds
        self.restart_at = now + delay_seconds
        self.delay_seconds = min(2 * delay_seconds, LONGEST_DELAY_SECONDS)
        return delay_seconds

    def rotate_log(self) -> None:
        """Move the log file aside if it is large, with those that were moved aside before."""
        log_file = self.child.log_file
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

    def last_words(self) -> str:
        """What its output says last: a message of Clustr's own, or else the last line."""
        lines = [line for line in self.last_lines if line.strip()]
        own = [line.removeprefix("clustr: ") for line in lines if line.startswith("clustr: ")]
        words = f": {(own or lines)[-1].strip()}" if lines else ""
        where = f" (see {self.child.log_file})" if self.child.log_file else ""
        return words + where


class _Output:
    """The lines that come out of one pipe."""

    def __init__(self, state: _State, descriptor: int):
        self.state = state
        self.descriptor = descriptor
        self._rest = b""
        os.set_blocking(descriptor, False)

    def read(self) -> list[str] | None:
        """The lines that are complete by now; None when no more will come.

        Raises:
            BlockingIOError: nothing is there at the moment.
        """
        data = os.read(self.descriptor, LONGEST_LINE_BYTES)
        if not data and not self._rest:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > LONGEST_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return [line.decode(errors="replace") for line in lines]


class Supervisor:
    """Starts children in order, keeps them running, and stops them in reverse order.

    Args:
        children: in the order in which they are started; each waits until the one before is ready.
        report: takes sentences about what happens to them; by default they are printed.
        together: stop them all at the same time, because none of them needs another.

    Attributes:
        stopped_by: the signal that asked for the end, when there was one.
        terminal_closed: whether that was because the terminal is gone that there was.
    """

    def __init__(
        self,
        children: Sequence[Child],
        report: Callable[[str], None] | None = None,
        together: bool = False,
    ):
        self._states = [_State(child) for child in children]
        self._together = together
        self._report = report or (lambda text: self._print_for("clustr", text))
        self._selector = selectors.DefaultSelector()
        self._stop_requests = 0
        self._logs_checked_at = float("-inf")
        self._had_terminal = has_terminal()
        self.stopped_by: signal.Signals | None = None
        self.terminal_closed = False

    def run(self, when_started: Callable[[], None] = lambda: None) -> int:
        """Run until SIGTERM, SIGINT or SIGHUP; a second one kills what has not ended by then.

        SIGUSR1, by which daemons are told to open their logs again, changes nothing: what is logged
        goes to standard error.

        Args:
            when_started: called once, when all are ready.

        Returns:
            The exit code: 0 after an orderly end, 1 when a second signal cut it short.

        Raises:
            StartUpError: a child ended or did not become ready in time; all are stopped by then.
        """
        with self._signals():
            try:
                if self._start_all():
                    notify_ready()
                    when_started()
                while not self._stop_requests:
                    self._turn(self._seconds_to_next_task())
                    self._restart_the_dead()
                    self._rotate_logs()
            finally:
                self._stop_all()
        return 0 if self._stop_requests < 2 else 1

    def say(self, text: str) -> None:
        """Print text to standard output."""
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except OSError:  # whoever read it is gone, which is no reason to stop serving
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
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
        try:
            yield
        finally:
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

    def _start(self, state: _State) -> None:
        state.pid, output = state.child.start()
        state.started_at = time.monotonic()
        state.ended, state.restart_at = "", None
        if output is not None:
            self._selector.register(output, selectors.EVENT_READ, _Output(state, output))

    def _wait_until_ready(self, state: _State) -> None:
        child = state.child
        while not self._stop_requests:
            self._turn(POLL_SECONDS)
            for other in self._states:  # one that was ready before may have ended since
                if other.ended:
                    words = f"({other.ended}){other.last_words()}"
                    raise StartUpError(f"{other.child.name} ended while starting {words}")
            if child.ready is None or child.ready():
                return
            if time.monotonic() > state.started_at + child.ready_seconds:
                words = f"within {child.ready_seconds:g} seconds{state.last_words()}"
                raise StartUpError(f"{child.name} did not answer {words}")

    def _turn(self, seconds: float | None) -> None:
        """Wait for something to happen, at most so long; pass output on and notice deaths."""
        for key, _ in self._selector.select(seconds):
            if key.data is not None:
                self._pass_on(key.data)
                continue
            with contextlib.suppress(BlockingIOError):
                os.read(key.fd, 4096)  # one byte for each signal; they only had to wake us
        for state in self._states:
            if state.pid is not None:
                ended, status = os.waitpid(state.pid, os.WNOHANG)
                if ended:
                    state.note_end(status)
                    self._pass_on_the_rest(state)

    def _pass_on(self, output: _Output) -> bool:
        """Print what came out of a pipe; False when there is nothing at the moment, or no more."""
        try:
            lines = output.read()
        except BlockingIOError:
            return False
        if lines is None:
            self._selector.unregister(output.descriptor)
            os.close(output.descriptor)
            return False
        for line in lines:
            output.state.last_lines.append(line)
            if output.state.child.log_file is None:
                self._print_for(output.state.child.name, line)
        return True

    def _pass_on_the_rest(self, state: _State) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data is not None and key.data.state is state:
                while self._pass_on(key.data):
                    pass

    def _print_for(self, name: str, line: str) -> None:
        names = ["clustr", *(state.child.name for state in self._states)]
        label = f"{name:<{max(map(len, names))}} |"
        if sys.stdout.isatty():
            label = f"\x1b[{COLOURS[names.index(name) % len(COLOURS)]}m{label}\x1b[0m"
        self.say(f"{label} {line}")

    def _seconds_to_next_task(self) -> float | None:
        times = [state.restart_at for state in self._states if state.restart_at is not None]
        if any(state.child.log_file for state in self._states):
            times.append(self._logs_checked_at + LOG_CHECK_SECONDS)
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

    def _restart_the_dead(self) -> None:
        for state in self._states:
            if state.pid is not None:
                continue
            if state.restart_at is None:
                seconds = state.put_off_restart()
                name, words = state.child.name, f"({state.ended}){state.last_words()}"
                self._report(f"{name} ended {words}; it starts again in {seconds:g} seconds")
            elif time.monotonic() >= state.restart_at:
                self._start(state)

    def _stop_all(self) -> None:
        one_by_one = [[state] for state in reversed(self._states)]
        for states in [self._states] if self._together else one_by_one:
            self._stop(states)

    def _stop(self, states: Sequence[_State]) -> None:
        for state in states:
            state.signal(signal.SIGTERM)
        limit = time.monotonic() + max(state.child.stop_seconds for state in states)
        while any(state.pid for state in states):
            seconds_left = limit - time.monotonic()
            if seconds_left <= 0 or self._stop_requests > 1:
                for state in states:
                    state.signal(signal.SIGKILL)
                seconds_left = POLL_SECONDS
            self._turn(seconds_left)
        for state in states:
            self._pass_on_the_rest(state)
