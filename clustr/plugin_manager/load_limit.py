"""A limit on how long the code of one plugin may take while it is loaded.

A timer interrupts the main thread. Code that does not react, such as C code that holds the
interpreter, is ended together with its process. The plugin's name was written down before, so that
the next process does not load it again.
"""

import faulthandler
import json
import os
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

from clustr import logs
from clustr.domain.secrets import without_secrets
from clustr.plugin_manager.discovery import code_hash

log = logs.logger(__name__)

# Code that does not react to the timer is ended so much later.
GRACE_SECONDS = 5.0
# Several plugins that hang mostly do so for one reason, such as a network that is away. After so
# many each of the others has only a part of the time, for a start would last for minutes.
FULL_WAITS = 3
PART = 0.2
# What `faulthandler` writes first when it ends a process: a note without it proves nothing, because
# the process may have been killed by somebody else.
TIMEOUT_MARK = "Timeout ("
LARGEST_NOTE_BYTES = 100_000


class TookTooLong(BaseException):
    """The time is up. Not an `Exception`: a plugin's `except Exception` shall not catch it."""


class LoadLimit:
    """The limit on each plugin, and the notes about plugins that ended their process.

    Args:
        seconds: how long one plugin may take; None for no limit.
        folder: where notes are kept; None for nowhere.
    """

    def __init__(self, seconds: float | None = None, folder: Path | None = None):
        self.seconds = seconds
        self._folder = folder
        self._hung: set[str] = set()

    @contextmanager
    def watch(self, name: str, file: Path | None) -> Iterator[None]:
        """Limit the block, in which code of the plugin runs.

        It has no effect in other threads than the main one, which alone gets signals.

        Args:
            file: the file of its code.

        Raises:
            TookTooLong: in the block, and again each second.
        """
        if self.seconds is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        is_short = len(self._hung) >= FULL_WAITS
        seconds = self.seconds * PART if is_short else self.seconds

        def stop(_signal: int, _frame: FrameType | None) -> None:
            self._hung.add(name)
            why = ", which is all that is left after others that hung" if is_short else ""
            raise TookTooLong(f"did not end within {seconds:g} seconds{why}")

        with self._note(name, file) as note:
            handler = signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
            faulthandler.dump_traceback_later(self.seconds + GRACE_SECONDS, exit=True, file=note)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                faulthandler.cancel_dump_traceback_later()
                signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)

    @contextmanager
    def _note(self, name: str, file: Path | None) -> Iterator[IO[bytes]]:
        """Write the name down for the block; yields a file to which a traceback can be added."""
        path = self._folder / f"{name}.{os.getpid()}" if self._folder else None
        about = {"file": str(file), "code": code_hash(file), "seconds": self.seconds}
        try:
            if path:
                path.write_text(f"{json.dumps(about)}\n")
        except OSError as error:
            log.warning("plugin_not_noted", plugin=name, reason=error.strerror)
            path = None
        with (path or Path(os.devnull)).open("ab") as note:
            try:
                yield note
            finally:
                if path:
                    path.unlink(missing_ok=True)

    def notes(self) -> Iterator[Path]:
        """The notes about plugins that ended their process."""
        for path in sorted(self._folder.iterdir()) if self._folder else ():
            with suppress(OSError):  # Another process has just removed it.
                if f"\n{TIMEOUT_MARK}".encode() in path.read_bytes():
                    yield path

    def traceback_of_end(self, name: str, file: Path | None) -> str | None:
        """Where the code of this plugin was when it ended a process; None if it did not.

        That counts as long as neither the code nor the limit has changed.
        """
        for path in self.notes():
            if path.name.rpartition(".")[0] != name:
                continue
            with suppress(OSError, ValueError):
                text = path.read_bytes()[:LARGEST_NOTE_BYTES].decode(errors="replace")
                head, _, trace = text.partition("\n")
                about = json.loads(head)
                if about["file"] != str(file):  # It is about a plugin of another installation.
                    continue
                if about["code"] == code_hash(file) and about["seconds"] >= (self.seconds or 0):
                    return without_secrets(trace.rstrip())
                path.unlink(missing_ok=True)
        return None


def notes_folder(environment: Mapping[str, str]) -> Path | None:
    """The folder of this account's notes on this host, which is made if it is not there.

    It outlives a process and not the host: what ended a process yesterday is tried again.

    Args:
        environment: a service manager names a folder in `RUNTIME_DIRECTORY` (systemd.exec(5)).

    Returns:
        None if there is none that only this account can write to.
    """
    parent = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0] or tempfile.gettempdir()
    folder = Path(parent) / f"clustr-plugins-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        log.warning("plugins_not_noted", reason=str(error.strerror))
        return None
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return folder if is_own and not found.st_mode & 0o022 else None
