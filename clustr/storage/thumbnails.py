"""Thumbnails, in the folder `.thumbnails` of the store.

Those of an upload are in `.thumbnails/<first four digits of the id>/<id>`, a file for each size and
format. The names of those that are made while the upload is in the trash begin with `trashed-`.
Copies of the original without metadata lie beside them.

A thumbnail can be made again: nothing waits until it is on the disk, and where it cannot be stored,
it is answered without. A folder whose original is gone is removed. Whoever removes an original
removes its thumbnails after it, and whoever stores a thumbnail looks for its original after that:
so no thumbnail outlives its original, in whatever order this happens.

One thread of one process makes the thumbnails of an upload: it holds a lock on one of 256 files
`.thumbnails/lock-<two digits>`, chosen by the id. These files always stay, so that none is removed
while somebody holds its lock, and flock(2) works over NFS, too. A thread that waits for a thumbnail
locks a byte of the file `.thumbnails/lock-wanted` (F_OFD_SETLK, fcntl(2)), so that whoever makes
others makes it as well. When a process dies, its locks end.
"""

import fcntl
import os
import struct
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from clustr.domain.errors import BeingMade
from clustr.storage.folder import (
    ID,
    StoredFile,
    StoreFolder,
    is_prefix_folder,
    reading,
    to_datetime,
    writing,
)
from clustr.storage.incoming import incoming_folder

THUMBNAILS = ".thumbnails"
LOCKS = 256
FLOCK = struct.Struct("hhqqi4x")
POLL_SECONDS = 0.01


class ThumbnailFolder:
    """The thumbnails of a store.

    Args:
        folder: the store.
        has_original: whether an original is in the store, by its file name and whether it is in the
            trash.
    """

    def __init__(self, folder: StoreFolder, has_original: Callable[[str, bool], bool]):
        self._folder = folder
        self._has_original = has_original

    def key(self, upload_id: str, name: str) -> str:
        """The path of a thumbnail, relative to the store."""
        return f"{THUMBNAILS}/{upload_id[:4]}/{upload_id}/{name}"

    def open(self, key: str) -> BinaryIO | None:
        """Open a thumbnail for reading; None when there is none, or the store is not mounted.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        with reading():
            try:
                return self._folder.open_key(key)
            except FileNotFoundError:  # The store is not mounted.
                return None

    @contextmanager
    def making(
        self, key: str, others: Collection[str], seconds: float
    ) -> Iterator[Callable[[], list[str]]]:
        """Keep all other threads and processes from making thumbnails of the same upload.

        Args:
            key: the thumbnail that is needed.
            others: the keys of all thumbnails that the upload can have.
            seconds: how long to wait for another that makes some, at most.

        Yields:
            a function that returns the keys of the missing thumbnails that are needed by anybody at
            that moment, `key` first.

        Raises:
            BeingMade: another took longer than `seconds`.
            StorageFull: nothing can be written, not even a lock.
        """
        number = zlib.crc32(key.rpartition("/")[0].encode()) % LOCKS
        with ExitStack() as opened:
            wanted = self._open_lock(opened, "lock-wanted")
            with writing():
                fcntl.fcntl(wanted, fcntl.F_OFD_SETLK, _lock_of_byte(fcntl.F_RDLCK, key))
            _wait_for(self._open_lock(opened, f"lock-{number:02x}"), time.monotonic() + seconds)

            def needed() -> list[str]:
                keys = [other for other in others if other != key and _is_locked(wanted, other)]
                return [key, *(other for other in keys if not self._folder.path(other).exists())]

            yield needed

    def _open_lock(self, opened: ExitStack, name: str) -> int:
        """Open a file to lock; its locks end when `opened` closes it."""
        path = self._folder.path(f"{THUMBNAILS}/{name}")
        with writing():
            try:
                lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:  # This is the first thumbnail of the store.
                self._folder.make_folders(THUMBNAILS, sync=False)
                lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        opened.callback(os.close, lock)
        return lock

    def store(
        self, key: str, filename: str, content: Iterable[bytes], trashed: bool = False
    ) -> bool:
        """Store a thumbnail; False when its original is gone by now.

        Args:
            filename: of the original.
            content: in chunks.
            trashed: whether the original is in the trash.

        Raises:
            StorageFull: it cannot be stored.
        """
        path = self._folder.path(key)
        with writing():
            incoming = incoming_folder(self._folder) / token_hex(16)
            try:
                with incoming.open("wb") as file:
                    file.writelines(content)
                incoming.chmod(self._folder.mode(0o644))
                self._rename(incoming, path, key)
            except BaseException:
                with suppress(OSError):  # `LocalStorage.clean` removes what stays here.
                    incoming.unlink(missing_ok=True)
                raise
        if self._has_original(filename, trashed):
            return True
        self.remove(filename)
        return False

    def _rename(self, incoming: Path, path: Path, key: str) -> None:
        try:
            incoming.rename(path)
        except FileNotFoundError:
            top, prefix, upload_id, _ = key.split("/")
            folders = (top, f"{top}/{prefix}", f"{top}/{prefix}/{upload_id}")
            self._folder.make_folders(*folders, sync=False)
            incoming.rename(path)

    def remove(self, filename: str) -> bool:
        """Remove all thumbnails of an original that was removed; return whether there were any.

        Args:
            filename: of the original; the id of the upload is enough.

        Raises:
            StorageFull: they cannot be removed.
        """
        key = self.key(filename.partition(".")[0], "")
        path = self._folder.path(key)
        with writing():
            if self._folder.has_link(key):
                return False
            try:
                found = list(path.iterdir())
            except FileNotFoundError:
                return False
            for thumbnail in found:
                thumbnail.unlink(missing_ok=True)
            with suppress(OSError):  # Another process removes it, too, or has just stored one.
                path.rmdir()
        return True

    def entries(self) -> Iterator[StoredFile]:
        """For each upload with thumbnails the folder that contains them, in no order."""
        with reading():
            try:
                prefixes = sorted(self._folder.path(THUMBNAILS).iterdir())
            except FileNotFoundError:  # No thumbnail was ever made.
                return
            for prefix in prefixes:
                if is_prefix_folder(prefix):
                    yield from self._entries_of_prefix(prefix)

    def _entries_of_prefix(self, prefix: Path) -> Iterator[StoredFile]:
        with os.scandir(prefix) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    if ID.fullmatch(entry.name):
                        since = to_datetime(entry.stat(follow_symlinks=False).st_ctime)
                        key = f"{THUMBNAILS}/{prefix.name}/{entry.name}"
                        yield StoredFile(key, entry.name, since)


def _lock_of_byte(kind: int, key: str) -> bytes:
    """A lock of the byte that stands for a thumbnail: a `struct flock` (fcntl(2))."""
    return FLOCK.pack(kind, os.SEEK_SET, zlib.crc32(key.encode()), 1, 0)


def _is_locked(file: int, key: str) -> bool:
    """Whether anybody else has locked the byte that stands for a thumbnail."""
    lock = _lock_of_byte(fcntl.F_WRLCK, key)
    kind: int = FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, lock))[0]
    return kind != fcntl.F_UNLCK


def _wait_for(lock: int, until: float) -> None:
    """Lock an open file with flock(2), which has no time limit of its own.

    Args:
        until: when to give up, on the clock of `time.monotonic()`.

    Raises:
        BeingMade: another still holds the lock then.
    """
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise BeingMade from None
            time.sleep(POLL_SECONDS)
        else:
            return
