"""The SHA-256 of files, remembered from one import to the next.

The service knows by hash what it has, so nothing else has to be remembered of an import that was
killed. Reading a large collection again takes minutes, though, so the hashes are kept in the
account's cache folder: they can be removed at any time.
"""

import hashlib
import os
import sqlite3
import threading
import time
from pathlib import Path

from clustr.client.importing.errors import UnreadableFile
from clustr.client.importing.walking import Picture

READ_BYTES = 1024 * 1024
SAVED_EVERY = 200
# A file that was changed as lately may be changed again without another time of its file system.
TOO_FRESH_NS = 2_000_000_000


def hashes_file() -> Path:
    """Where they are kept (XDG Base Directory)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return cache.expanduser() / "clustr" / "hashes.sqlite"
    except RuntimeError:  # The account has no home.
        return Path(os.devnull) / "hashes.sqlite"


class KnownHashes:
    """The hashes of files by path, size and time; may be used by several threads.

    Args:
        path: where they are kept; where that cannot be used, they are kept in memory.
    """

    def __init__(self, path: Path):
        self._lock = threading.Lock()
        self._unsaved: list[tuple[bytes, int, int, str]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._open(str(path))
        except (OSError, sqlite3.Error):
            self._database = self._open(":memory:")

    @staticmethod
    def _open(path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=30, check_same_thread=False)
        database.execute(
            "CREATE TABLE IF NOT EXISTS hashes"
            " (path BLOB PRIMARY KEY, size INTEGER, modified_ns INTEGER, sha256 TEXT)"
        )
        return database

    def close(self) -> None:
        with self._lock:
            self._save()
            self._database.close()

    def hash_of(self, picture: Picture) -> str:
        """Return the SHA-256 of a file in hexadecimal digits.

        Raises:
            UnreadableFile: it cannot be read, or was changed since it was found.
        """
        key = (os.fsencode(picture.path.absolute()), picture.size_bytes, picture.modified_ns)
        query = "SELECT sha256 FROM hashes WHERE path = ? AND size = ? AND modified_ns = ?"
        with self._lock:
            known = self._database.execute(query, key).fetchone()
        if known:
            return str(known[0])
        sha256 = _hash_file(picture)
        if time.time_ns() - picture.modified_ns > TOO_FRESH_NS:
            with self._lock:
                self._unsaved.append((*key, sha256))
                if len(self._unsaved) == SAVED_EVERY:
                    self._save()
        return sha256

    def _save(self) -> None:
        """Save all at once: other imports wait meanwhile, and must not for as long as this one."""
        try:
            with self._database:
                insert = "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)"
                self._database.executemany(insert, self._unsaved)
        except sqlite3.Error:  # Such as a full disk: the next import hashes these files again.
            self._database.close()
            self._database = self._open(":memory:")
        self._unsaved.clear()


def _hash_file(picture: Picture) -> str:
    digest = hashlib.sha256()
    try:
        with picture.path.open("rb") as file:
            while data := file.read(READ_BYTES):
                digest.update(data)
            status = os.fstat(file.fileno())
    except OSError as error:
        raise UnreadableFile(error.strerror or str(error)) from error
    if (status.st_size, status.st_mtime_ns) != (picture.size_bytes, picture.modified_ns):
        raise UnreadableFile("it changes while it is read; import it once more")
    return digest.hexdigest()
