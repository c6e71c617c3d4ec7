"""Processes that are forked from this one, and end with it.

Everything here is for a process without threads: a fork of a process with threads can hang on a
lock whose owner does not exist in the fork. Children are forked from the main thread because the
kernel ends them when the *thread* that forked them ends (prctl(2), PR_SET_PDEATHSIG).
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from clustr import logs

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)  # now, so that a forked child need not load anything

# The kernel lets unprivileged users change the priority of one session in this time.
AUTOGROUP_SECONDS = 0.1
AUTOGROUP_ATTEMPTS = 20
AUTOGROUP = Path("/proc/self/autogroup")


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

    The function raises OSError when there is no room for a process or a pipe.

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
        try:
            pid = _fork(lambda: execute(writing))
        except OSError:
            os.close(reading)
            raise
        finally:
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
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
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
