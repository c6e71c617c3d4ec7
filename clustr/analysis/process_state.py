"""What is around a plugin's code in its process, and is put right after it.

A plugin may print, change the folder, signals, warnings or the locale: the next image, and Clustr's
own code, find everything as it was.
"""

import ctypes
import locale
import os
import signal
import sys
import tempfile
import warnings

# That of `signal` looks for a name of what it finds, which takes 40 times as long.
from _signal import getsignal
from contextlib import suppress

from clustr import logs

log = logs.logger(__name__)

STANDARD_OUTPUT = 1
LONGEST_PRINTED = 10_000
SIGNALS = (signal.SIGTERM, signal.SIGCHLD)  # What the process itself depends on.

_libc = ctypes.CDLL(None)


class ProcessState:
    """Those of this process as they are now.

    What is printed from now on is logged, so that it does not get between the lines of the log. It
    goes into a file and not into a pipe, which would have to be read while C code holds everything.
    """

    def __init__(self) -> None:
        self._folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        self._handlers = {number: getsignal(number) for number in SIGNALS}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._locale = locale.setlocale(locale.LC_ALL)
        self._streams = sys.stdin, sys.stdout, sys.stderr
        self._keep_warnings()
        self._printed = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._output = os.dup(STANDARD_OUTPUT)
        self._file = os.fstat(self._printed.fileno())
        self._flush()
        self._redirect()

    def _keep_warnings(self) -> None:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        self._filters, self._show = warnings.filters[:], warnings.showwarning

    def _redirect(self) -> None:
        with suppress(OSError):
            if os.path.samestat(self._file, os.fstat(STANDARD_OUTPUT)):
                return
        os.dup2(self._printed.fileno(), STANDARD_OUTPUT)

    def put_right(self) -> None:
        """Make everything as it was, and log what was printed."""
        if warnings.filters != self._filters or warnings.showwarning is not self._show:
            self._caught.__exit__()
            self._keep_warnings()
        os.fchdir(self._folder)
        for number, handler in self._handlers.items():
            # A handler that is not Python's is None, and cannot be set again.
            if handler is not None and getsignal(number) != handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        self._flush()
        self._redirect()  # The plugin may have closed it.
        sys.stdin, sys.stdout, sys.stderr = self._streams
        self._flush()
        self._log_printed()

    def _flush(self) -> None:
        with suppress(Exception):  # There may be none, or one that the plugin put there or closed.
            sys.stdout.flush()

    def _log_printed(self) -> None:
        if not os.lseek(self._printed.fileno(), 0, os.SEEK_CUR):
            return
        self._printed.seek(0)
        printed = self._printed.read(LONGEST_PRINTED)
        self._printed.seek(0)
        self._printed.truncate()
        log.info("plugin_printed", text=printed.decode("utf-8", "replace"))

    def close(self) -> None:
        """Let standard output be what it was before."""
        _libc.fflush(None)  # C code has a buffer of its own.
        self._flush()
        self._log_printed()
        os.dup2(self._output, STANDARD_OUTPUT)
        self._caught.__exit__()
        for descriptor in (self._output, self._folder):
            os.close(descriptor)
        self._printed.close()
