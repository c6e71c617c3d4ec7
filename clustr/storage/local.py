"""Originals in a folder of the file system.

A file is received under a temporary name in the folder `.incoming`, and is renamed to its final
path once it is complete and on the disk, so that no reader and no crash ever sees half of it. The
path of an original is `<first four digits of the id>/<filename>`. Ids begin with the time: such a
folder has the uploads of about eighteen hours, and all files of one request are in the same.
"""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from secrets import token_hex

from clustr import logs
from clustr.domain.errors import NotFound, StorageFull
from clustr.storage.folder import (
    MARKER,
    StoredFile,
    StoreFolder,
    is_prefix_folder,
    reading,
    sync_folder,
    to_datetime,
    writing,
)
from clustr.storage.incoming import INCOMING, IncomingFile, incoming_folder
from clustr.storage.thumbnails import THUMBNAILS, ThumbnailFolder
from clustr.storage.trash import TRASH, TrashFolder, key_of

log = logs.logger(__name__)

QUARANTINE = ".quarantine"
# The last one is in Clustr's own repository.
OWN_NAMES = (MARKER, INCOMING, QUARANTINE, THUMBNAILS, TRASH, ".gitkeep")

ORIGINAL = re.compile(r"([0-9a-f]{24})\.[a-z]{3,4}")

# After a test file was written, the store is taken to be writable for this long.
WRITABLE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """How much can still be written.

    Attributes:
        bytes: in files.
        inodes: the number of files; None where the file system does not limit it.
    """

    bytes: int
    inodes: int | None


class LocalStorage(StoreFolder):
    """The originals in a folder, with their thumbnails and trash.

    Args:
        folder: the store; `prepare` creates it.

    Attributes:
        thumbnails: the thumbnails of the originals.
        trash: the originals of uploads in the trash.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._writable_until = 0.0
        self.trash = TrashFolder(self)
        self.thumbnails = ThumbnailFolder(self, self._has_original)

    def prepare(self, in_use: Callable[[], bool]) -> None:
        """Create the store where there is none.

        A full or read-only store is accepted: its originals can be read.

        Args:
            in_use: whether the database has uploads; called only when the marker is missing.

        Raises:
            StartUpError: the store looks unmounted, or cannot be created.
        """
        self.create_if_missing(in_use)
        with suppress(StorageFull), writing():  # It is logged, and shown in health.
            incoming_folder(self)

    def receive(self, max_bytes: int) -> IncomingFile:
        """Open a temporary file for what a client sends."""
        with writing():
            path, mode = incoming_folder(self) / token_hex(16), self.mode(0o644)
        return IncomingFile(path, max_bytes, mode)

    def keep(self, files: Sequence[tuple[IncomingFile, str]]) -> None:
        """Move received files to their final paths, so that a power cut cannot lose them.

        Args:
            files: each with its file name, `<id>.<extension>`.

        Raises:
            StorageFull: none of them is kept.
        """
        kept: list[Path] = []
        try:
            for incoming, filename in files:
                incoming.sync()
                kept.append(self._move_to_place(incoming.path, filename))
                incoming.kept = True
            with writing():
                for folder in {path.parent for path in kept}:
                    sync_folder(folder)
        except BaseException:
            for path in kept:
                with suppress(OSError):  # No record will name what stays here: fsck finds it.
                    path.unlink(missing_ok=True)
            raise

    def _move_to_place(self, source: Path, filename: str) -> Path:
        key = key_of(filename)
        target = self.path(key)
        with writing():
            if self.has_link(key):
                raise OSError(errno.ELOOP, "there is a link in the way", str(target))
            try:
                source.rename(target)
            except FileNotFoundError:  # This is the first file of these eighteen hours.
                self.make_folders(target.parent.name)
                source.rename(target)
        return target

    def remove(self, filename: str) -> None:
        """Remove an original, if there is one."""
        with writing():
            self.path(key_of(filename)).unlink(missing_ok=True)

    def key(self, filename: str) -> str:
        """The path of an original, relative to the store."""
        return key_of(filename)

    def path_of(self, filename: str) -> Path:
        """The path of an original, for callers that open it themselves.

        Raises:
            NotFound: there is a symbolic link instead.
        """
        key = key_of(filename)
        with reading():
            if self.has_link(key):
                log.warning("link_not_followed", key=key)
                raise NotFound(f"There is no file {filename}.")
        return self.path(key)

    def has(self, filename: str) -> bool:
        """Whether an original is in its place.

        Raises:
            StorageUnavailable: the file system does not answer.
        """
        with reading():
            return self.path(key_of(filename)).exists()

    def _has_original(self, filename: str, trashed: bool) -> bool:
        return self.trash.has(filename) if trashed else self.has(filename)

    def open(self, filename: str) -> BufferedReader:
        """Open an original for reading.

        Raises:
            NotFound: there is none of this name.
            StorageUnavailable: it cannot be read.
        """
        with reading():
            file = self.open_key(key_of(filename))
            if file is None and not self.is_there():
                raise self.missing_error()
        if file is None:
            raise NotFound(f"There is no file {filename}.")
        return file

    def open_trashed(self, filename: str) -> BufferedReader:
        """Open an original in the trash for reading, also while it is being moved there.

        Raises:
            NotFound: there is none of this name.
            StorageUnavailable: it cannot be read.
        """
        with reading():
            file = self.open_key(self.trash.key(filename))
        return file or self.open(filename)

    def check(self) -> None:
        """Check that files can be written, at most once in `WRITABLE_SECONDS`.

        Raises:
            StorageFull: they cannot, or the store is that of another installation.
        """
        with writing():
            self.require_marker()
            if time.monotonic() < self._writable_until:
                return
            probe = incoming_folder(self) / f"probe-{token_hex(8)}"
            try:
                probe.write_bytes(b"probe")
            finally:
                probe.unlink(missing_ok=True)
        self._writable_until = time.monotonic() + WRITABLE_SECONDS

    def free_space(self) -> FreeSpace:
        """How much can still be written."""
        with reading():
            found = os.statvfs(self.path(""))
        # Some file systems, such as Btrfs, have no inodes to count.
        return FreeSpace(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)

    def clean(self, before: datetime) -> int:
        """Remove temporary files that were last written before a time; return how many."""
        removed = 0
        for file in self.temporary_files(before):
            with suppress(StorageFull):  # It is logged; the others may be removed all the same.
                removed += self.discard(file.key, before)
        return removed

    def temporary_files(self, before: datetime) -> Iterator[StoredFile]:
        """The temporary files that were last written before a time: their processes have died."""
        with reading():
            try:
                found = list(self.path(INCOMING).iterdir())
            except FileNotFoundError:
                if not self.is_there():
                    raise
                return
            for path in found:
                with suppress(FileNotFoundError):
                    since = to_datetime(path.stat().st_mtime)
                    if path.is_file() and since < before:
                        yield StoredFile(f"{INCOMING}/{path.name}", None, since)

    def discard(self, key: str, before: datetime) -> bool:
        """Remove a temporary file, unless it was written since; return whether it was removed."""
        path = self.path(key)
        with writing(), suppress(FileNotFoundError):
            if to_datetime(path.stat().st_mtime) < before:
                path.unlink()
                return True
        return False

    def entries(self) -> Iterator[StoredFile]:
        """Everything in the store that is not Clustr's own, folder by folder, in no other order."""
        with reading():
            for top in sorted(self.path("").iterdir()):
                if is_prefix_folder(top):
                    yield from self._entries_of_prefix(top)
                elif top.name not in OWN_NAMES:
                    with suppress(FileNotFoundError):
                        yield StoredFile(top.name, None, to_datetime(top.lstat().st_ctime))

    def _entries_of_prefix(self, folder: Path) -> Iterator[StoredFile]:
        with os.scandir(folder) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    name = ORIGINAL.fullmatch(entry.name)
                    has_prefix = name and entry.name.startswith(folder.name)
                    is_original = has_prefix and entry.is_file(follow_symlinks=False)
                    yield StoredFile(
                        f"{folder.name}/{entry.name}",
                        name[1] if name and is_original else None,
                        # A rename sets this time, too: the file is in its place since then.
                        to_datetime(entry.stat(follow_symlinks=False).st_ctime),
                    )

    def entry(self, key: str) -> StoredFile | None:
        """The file or folder of this key; None when there is none."""
        with reading(), suppress(FileNotFoundError):
            path = self.path(key)
            name = ORIGINAL.fullmatch(path.name)
            return StoredFile(key, name[1] if name else None, to_datetime(path.lstat().st_ctime))
        return None

    def quarantine(self, key: str, kind: str) -> bool:
        """Move a file into `.quarantine/<kind>/`; False when it is gone.

        Raises:
            StorageFull: it cannot be moved.
        """
        with writing():
            self.make_folders(QUARANTINE)
            self.make_folders(f"{QUARANTINE}/{kind}")
            target = self.path(f"{QUARANTINE}/{kind}/{Path(key).name}")
            if target.exists():  # It was moved here before, put back by somebody, and is bad again.
                target = target.with_name(f"{target.name}.{token_hex(4)}")
            try:
                self.path(key).rename(target)
            except FileNotFoundError:
                return False
        return True
