"""Originals in a folder of the file system.

A file arrives under a temporary name in the folder `.incoming` and is renamed into its place once
it is complete and on the disk, so that a reader or a crash never sees half of it. An original lies
at `<first four digits of the id>/<filename>`. Ids begin with the time: such a folder holds the
uploads of about eighteen hours, and all files of one request go into the same.
"""

import errno
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from clustr import logs
from clustr.errors import NotFound, StartUpError, StorageFull, StorageUnavailable

log = logs.logger(__name__)

INCOMING = ".incoming"


@contextmanager
def storing() -> Iterator[None]:
    """Turn the system's errors into `StorageFull` or `StorageUnavailable`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        log.error("storage_failed", error=f"{type(error).__name__}: {error}")
        raise (StorageFull if full else StorageUnavailable)() from error


class Incoming:
    """A file that is being received: hashed and counted while it is written.

    It is what the multipart parser writes to. Beyond `max_bytes` nothing more is written and what
    there is is dropped, while the parser reads on to the files that follow.

    Attributes:
        path: where it is for now.
        size: bytes received, also those beyond the limit.
    """

    def __init__(self, path: Path, max_bytes: int):
        self.path = path
        self.size = 0
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        with storing():
            self._file: BinaryIO = path.open("xb")

    @property
    def too_large(self) -> bool:
        return self.size > self._max_bytes

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        self.size += len(data)
        with storing():
            if self.too_large:
                self._file.truncate(0)
            else:
                self._hash.update(data)
                self._file.write(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The parser rewinds what it has written; by then everything must be in the file."""
        with storing():
            self._file.flush()
            return self._file.seek(offset, whence)

    def sync(self) -> None:
        """Wait until every byte is on the disk."""
        with storing():
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close it; unless it was kept it is gone by that."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class LocalStorage:
    """The folder of originals."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._incoming = folder / INCOMING

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            StartUpError: the folder cannot be made or written.
        """
        probe = self._incoming / f"probe-{token_hex(8)}"
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StartUpError(
                f"UPLOAD_FOLDER: cannot write to {self._folder}: {error.strerror}"
            ) from error

    def receive(self, max_bytes: int) -> Incoming:
        """Open a temporary file for what a client sends."""
        return Incoming(self._incoming / token_hex(16), max_bytes)

    def keep(self, files: Sequence[tuple[Incoming, str]]) -> None:
        """Put received files into their places, so that a power cut cannot take them away.

        Args:
            files: each with its file name, `<id>.<extension>`.

        Raises:
            StorageFull, StorageUnavailable: none of them is kept.
        """
        kept: list[Path] = []
        try:
            for incoming, filename in files:
                incoming.sync()
                kept.append(self._place(incoming.path, filename))
            with storing():
                for folder in {path.parent for path in kept}:
                    _sync_folder(folder)
        except BaseException:
            for path in kept:
                path.unlink(missing_ok=True)
            raise

    def _place(self, source: Path, filename: str) -> Path:
        target = self.path(self.key(filename))
        with storing():
            try:
                source.rename(target)
            except FileNotFoundError:  # It is the first file of these eighteen hours.
                target.parent.mkdir(exist_ok=True)
                _sync_folder(self._folder)
                source.rename(target)
        return target

    def remove(self, filename: str) -> None:
        """Take an original away, if it is there."""
        with storing():
            self.path(self.key(filename)).unlink(missing_ok=True)

    def key(self, filename: str) -> str:
        """Where an original lies, below the folder."""
        return f"{filename[:4]}/{filename}"

    def path(self, key: str) -> Path:
        return self._folder / key

    def open(self, filename: str) -> BinaryIO:
        """Open an original for reading.

        Raises:
            NotFound: there is none of this name.
            StorageUnavailable: it cannot be read.
        """
        try:
            with storing():
                return self.path(self.key(filename)).open("rb")
        except StorageUnavailable as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise NotFound(f"There is no file {filename}.") from error
            raise

    def check(self) -> None:
        """See whether files can be written now.

        Raises:
            StorageFull, StorageUnavailable: they cannot.
        """
        probe = self._incoming / f"probe-{token_hex(8)}"
        with storing():
            probe.touch()
            probe.unlink()

    def clean(self, older_than: timedelta) -> int:
        """Remove temporary files that a process left behind when it died."""
        oldest = time.time() - older_than.total_seconds()
        removed = 0
        with storing():
            for path in self._incoming.iterdir():
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
