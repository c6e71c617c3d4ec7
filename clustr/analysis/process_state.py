"""Saves the state of the process and restores it after a plugin's code has run.

A plugin may print, or change the working directory, signal handlers, warnings or the locale. All
that is restored before the next image, and before Clustr's own code goes on.
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
LONGEST_PRINTED_BYTES = 10_000
SIGNALS = (signal.SIGTERM, signal.SIGCHLD)  # What the process itself depends on.

_libc = ctypes.CDLL(None)


class ProcessState:
    """The state of this process when this is made.

    From then on standard output goes to a file, from which it is logged, so that nothing gets
    between the lines of the log. A pipe would have to be read even while C code holds the
    interpreter; a file need not be.
    """

    def __init__(self) -> None:
        self._folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        self._handlers = {number: getsignal(number) for number in SIGNALS}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._locale = locale.setlocale(locale.LC_ALL)
        self._streams = sys.stdin, sys.stdout, sys.stderr
        self._save_warnings()
        self._printed_file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._original_output = os.dup(STANDARD_OUTPUT)
        self._printed_stat = os.fstat(self._printed_file.fileno())
        self._flush()
        self._redirect()

    def _save_warnings(self) -> None:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        self._filters, self._show = warnings.filters[:], warnings.showwarning

    def _redirect(self) -> None:
        with suppress(OSError):
            if os.path.samestat(self._printed_stat, os.fstat(STANDARD_OUTPUT)):
                return
        os.dup2(self._printed_file.fileno(), STANDARD_OUTPUT)

    def restore(self) -> None:
        """Restore the saved state, and log what was printed since."""
        if warnings.filters != self._filters or warnings.showwarning is not self._show:
            self._caught.__exit__(None, None, None)
            self._save_warnings()
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
        if not os.lseek(self._printed_file.fileno(), 0, os.SEEK_CUR):
            return
        self._printed_file.seek(0)
        printed = self._printed_file.read(LONGEST_PRINTED_BYTES)
        self._printed_file.seek(0)
        self._printed_file.truncate()
        log.info("plugin_printed", text=printed.decode("utf-8", "replace"))

    def close(self) -> None:
        """Restore standard output and warnings for good."""
        _libc.fflush(None)  # C code has a buffer of its own.
        self._flush()
        self._log_printed()
        os.dup2(self._original_output, STANDARD_OUTPUT)
        self._caught.__exit__(None, None, None)
        for descriptor in (self._original_output, self._folder):
            os.close(descriptor)
        self._printed_file.close()
