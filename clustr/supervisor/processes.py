"""Child processes that end with their parent, and a supervisor that keeps them running.

Everything here is for a process without threads: it forks, and a fork of a process with threads
can hang on a lock whose owner does not exist in the fork. Children are forked from the main thread
because the kernel ends them when the *thread* that forked them ends (prctl(2), PR_SET_PDEATHSIG).
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
CODE_CHECK_SECONDS = 1.0
# The kernel lets unprivileged users change the priority of one session in this time.
AUTOGROUP_SECONDS = 0.1
AUTOGROUP_ATTEMPTS = 20
AUTOGROUP = Path("/proc/self/autogroup")
COLORS = (36, 35, 33, 32, 34)  # cyan, magenta, yellow, green, blue (ECMA-48)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends.

    A fork clears this, an exec keeps it.

    Args:
        parent_pid: the process that forked this one; when it has ended already, this one exits.

    Raises:
        OSError: the kernel refuses.
    """
    if _libc.prctl(PR_SET_PDEATHSIG, *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent_pid:
        os._exit(1)


def lower_priority(by: int) -> None:
    """Lower the priority of this process (nice(2)), and of those that it forks afterwards.

    Args:
        by: how much lower, from 0 to 19.
    """
    os.nice(by)
    _give_session_its_priority()


def _give_session_its_priority() -> None:
    """Give the session of this process the priority of the process itself.

    Linux may share the processor between sessions first and look at the priority of processes
    within one session only: see "The autogroup feature" in sched(7).
    """
    priority = os.getpriority(os.PRIO_PROCESS, 0)
    for _ in range(AUTOGROUP_ATTEMPTS if priority else 0):
        try:
            AUTOGROUP.write_text(str(priority))
        except BlockingIOError:  # Another process of an unprivileged user has just done it.
            time.sleep(AUTOGROUP_SECONDS)
        except OSError:  # This kernel has no such feature.
            return
        else:
            return


def start_time(pid: int) -> str | None:
    """When a process of this host started: field 22 of proc_pid_stat(5); None if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


class StartedProcess(NamedTuple):
    """A running process, and the reading end of the pipe that it writes to, if it has one."""

    pid: int
    output: int | None = None


Starter = Callable[[], StartedProcess]


def command_starter(
    arguments: Sequence[str], environment: Mapping[str, str], inherited: Sequence[int] = ()
) -> Starter:
    """Make a function that starts a program in a session of its own, with its output in a pipe.

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
            os.execve(arguments[0], [*arguments], environment)  # noqa: S606
        except OSError as error:
            os.write(2, f"{arguments[0]}: {error.strerror}\n".encode())
        return 127

    def start() -> StartedProcess:
        reading, writing = os.pipe()
        pid = _fork(lambda: execute(writing))
        os.close(writing)
        return StartedProcess(pid, reading)

    return start


def function_starter(run: Callable[[], int]) -> Starter:
    """Make a function that forks a process, in a session of its own, which calls `run`.

    The fork has the standard output and error of this process.

    Args:
        run: returns the exit code.
    """
    return lambda: StartedProcess(_fork(run))


def _fork(run: Callable[[], int]) -> int:
    parent_pid = os.getpid()
    sys.stdout.flush()  # or the child would write the buffered text once more
    sys.stderr.flush()
    # Or a signal that comes between the fork and the reset would run the parent's handlers.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid
    code = 1
    try:
        os.setsid()
        _give_session_its_priority()
        die_with_parent(parent_pid)
        _reset_signal_handlers()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        code = run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        raised = (type(error), error, error.__traceback__)
        sys.stderr.write(f"{logs.short_traceback(raised)}\n")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _reset_signal_handlers() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Notification:
    """A message from a child that it is ready: the protocol of systemd, see sd_notify(3).

    A call returns whether the message has come, as `Child.ready` has to; after a true answer it
    must not be called again. The child needs `address` in its environment as NOTIFY_SOCKET.
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
    """Tell the supervisor of this process that it is ready, if it set NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with sender, contextlib.suppress(OSError):  # it is not set, or nobody listens
        sender.sendto(b"READY=1", address)


class ForkedCheck:
    """A slow check for `Child.ready`: a function that runs in forks until one exits with 0.

    A call returns at once whether that has happened. The fork keeps away from the supervisor what
    the function does, such as starting threads.
    """

    def __init__(self, run: Callable[[], int]):
        self._start = function_starter(run)
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


def has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def old_log(log_file: Path, number: int) -> Path:
    """The name of a log file that was moved aside; the newest has the number 1."""
    return log_file.with_name(f"{log_file.name}.{number}")


class _ChildState:
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


class _OutputPipe:
    """The lines that come out of one pipe."""

    def __init__(self, state: _ChildState, descriptor: int):
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
        self._states = [_ChildState(child) for child in children]
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
        """Print text to standard output."""
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except OSError:  # the reader is gone, which is no reason to stop serving
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

    def _start(self, state: _ChildState) -> None:
        state.pid, output = state.child.start()
        state.started_at = time.monotonic()
        state.exit_description, state.restart_at = "", None
        if output is not None:
            self._selector.register(output, selectors.EVENT_READ, _OutputPipe(state, output))

    def _wait_until_ready(self, state: _ChildState) -> None:
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

    def _print_output(self, output: _OutputPipe) -> bool:
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

    def _print_remaining_output(self, state: _ChildState) -> None:
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
                seconds = state.schedule_restart()
                name, reason = state.child.name, f"({state.exit_description}){state.last_output()}"
                self._report(f"{name} ended {reason}; it starts again in {seconds:g} seconds")
            elif time.monotonic() >= state.restart_at:
                self._start(state)

    def _stop_all(self) -> None:
        one_by_one = [[state] for state in reversed(self._states)]
        for states in [self._states] if self._stop_together else one_by_one:
            self._stop(states)

    def _stop(self, states: Sequence[_ChildState]) -> None:
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
