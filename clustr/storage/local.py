"""Originals in a folder of the file system.

A file arrives under a temporary name in the folder `.incoming` and is renamed into its place once
it is complete and on the disk, so that a reader or a crash never sees half of it. An original lies
at `<first four digits of the id>/<filename>`. Ids begin with the time: such a folder holds the
uploads of about eighteen hours, and all files of one request go into the same.

Thumbnails of an original lie beside it in the folder `.thumbnails/<first four digits>/<id>`, a file
for each size and format, and are renamed into it from `.incoming`, too. Those that are made while
it is in the trash begin with `trashed-` there: they are not those of an upload. They can be made
again:
nothing waits for them to be on the disk, where they cannot be kept they are done without, and a
folder of theirs whose original is gone is removed, not put aside. Who takes an original away moves
that first and forgets its thumbnails then; who keeps a thumbnail looks for the original after that:
so that none outlives its original, whatever happens at once. Only one makes thumbnails of an
original: he holds a lock on one of the 256 files `.thumbnails/lock-<two digits>`, by the id. They
are files of their own and always the same, so that none is ever removed under somebody's lock, and
flock(2) works on them over NFS, too. Who waits for a thumbnail says so by a lock on a byte of the
file `.thumbnails/lock-wanted` (F_OFD_SETLK, fcntl(2)), so that whoever makes others makes it, too.
When a process dies, its locks go with it.

Nothing is read or written through a link in the store, which could lead out of it; the folder
itself may be one.

A folder that is made here is for its owner, and for its group to read: nginx can be in that. What
is in the folder can be read by whoever can read the folder itself, whatever the umask is.

The file `.clustr-store` tells the folder from the empty one that is there while its file system is
not mounted. Where it is missing nothing is ever written.
"""

import errno
import fcntl
import hashlib
import os
import re
import struct
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from clustr import logs
from clustr.domain.errors import (
    BeingMade,
    DatabaseUnavailable,
    NotFound,
    StartUpError,
    StorageFull,
    StorageUnavailable,
)
from clustr.storage.trash import TRASH, TrashFolder

log = logs.logger(__name__)

MARKER = ".clustr-store"
MARKED = """In this folder Clustr keeps its originals. By this file it tells the folder from the
empty one that is there while its file system is not mounted: please leave it where it is.
"""
INCOMING = ".incoming"
QUARANTINE = ".quarantine"
THUMBNAILS = ".thumbnails"
# The last comes with Clustr's own repository.
OURS = (MARKER, INCOMING, QUARANTINE, THUMBNAILS, TRASH, ".gitkeep")

# In the marker, of which installation the store is.
OWNER = re.compile(r"installation: ([0-9a-f]{24})")

FOLDER = re.compile(r"[0-9a-f]{4}")
ID = re.compile(r"[0-9a-f]{24}")
ORIGINAL = re.compile(r"([0-9a-f]{24})\.[a-z]{3,4}")

FOLDER_MODE = 0o750

CHECKED_SECONDS = 5

LOCKS = 256
FLOCK = struct.Struct("hhqqi4x")
LOOK_AGAIN_SECONDS = 0.01


@contextmanager
def writing() -> Iterator[None]:
    """Turn every reason for which something cannot be written into `StorageFull`."""
    try:
        yield
    except OSError as error:
        log.error("storage_not_written", error=f"{type(error).__name__}: {error}")
        raise StorageFull from error


@contextmanager
def reading() -> Iterator[None]:
    """Turn every reason for which something cannot be read into `StorageUnavailable`."""
    try:
        yield
    except OSError as error:
        log.error("storage_not_read", error=f"{type(error).__name__}: {error}")
        raise StorageUnavailable from error


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """How much can still be written.

    Attributes:
        inodes: how many files; None where they are not counted.
    """

    bytes: int
    inodes: int | None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What lies somewhere in the store.

    Attributes:
        key: where, below the folder.
        upload_id: of which upload it is the original by its name; None for one of another name.
        since: when it was written or came to be there.
    """

    key: str
    upload_id: str | None
    since: datetime


def is_open_to_others(folder: Path) -> bool:
    """Whether every account of the machine can read what is in a folder, or reach it by name."""
    above = all(parent.stat().st_mode & 0o001 for parent in folder.resolve().parents)
    return above and bool(folder.stat().st_mode & 0o005)


class IncomingFile:
    """A file that is being received: hashed and counted while it is written.

    Beyond `max_bytes` nothing more is written and what there is is dropped, while the request is
    read on to the files that follow; a file of more than twice as many bytes is `hopeless`.

    Attributes:
        path: where it is for now.
        size: bytes received, also those beyond the limit.
        kept: whether it has been put into its place.

    Args:
        mode: that of the file.
    """

    def __init__(self, path: Path, max_bytes: int, mode: int):
        self.path = path
        self.size = 0
        self.kept = False
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        with writing():
            self._file: BinaryIO = path.open("x+b")
            os.fchmod(self._file.fileno(), mode)

    @property
    def too_large(self) -> bool:
        return self.size > self._max_bytes

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def hopeless(self) -> bool:
        """Whether so much was sent that the rest of the request is not read either."""
        return self.size > 2 * self._max_bytes

    def write(self, data: bytes | bytearray) -> None:
        if self.too_large:
            self.size += len(data)
            return
        self.size += len(data)
        with writing():
            if self.too_large:
                self._file.truncate(0)
            else:
                self._hash.update(data)
                self._file.write(data)

    def content(self) -> BinaryIO:
        """What was written, open for reading."""
        with writing():
            self._file.flush()
        return self._file

    def sync(self) -> None:
        """Wait until every byte is on the disk."""
        with writing():
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close it; unless it was kept it is gone by that."""
        with suppress(OSError):  # On a full disk it cannot write the rest, which nobody wants.
            self._file.close()
        if not self.kept:
            with suppress(OSError):  # What is left here is removed by `clean`.
                self.path.unlink(missing_ok=True)


class LocalStorage:
    """The folder of originals."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._marker = folder / MARKER
        self._checked_until = 0.0
        self._claimed = False
        self._is_another_ones = False
        self._incoming = folder / INCOMING
        self.trash = TrashFolder(folder, self._make_folder)

    def is_there(self) -> bool:
        """Whether the folder is the store, and not the one below a mount that is missing.

        Raises:
            StorageUnavailable: that cannot be seen.
        """
        with reading():
            return self._marker.exists()

    def prepare(self, in_use: Callable[[], bool]) -> None:
        """See that the store is there, and make it where there is none yet.

        One that is full or read-only will do: what is in it can be read.

        Args:
            in_use: whether the database has uploads; asked only when the marker is missing.

        Raises:
            StartUpError: the store looks unmounted, or cannot be made.
        """
        try:
            if not self._marker.exists():
                self._make(in_use)
        except OSError as error:
            raise StartUpError(
                f"UPLOAD_FOLDER: cannot write to {self._folder}: {error.strerror}"
            ) from error
        with suppress(StorageFull), writing():  # That has been logged, and health says so, too.
            if not self._incoming.exists():
                self._make_folder(INCOMING)

    def warn_if_open(self) -> None:
        """Log that every account of the machine can read the store, which is done at a start."""
        with suppress(OSError):
            if is_open_to_others(self._folder):
                log.warning(
                    "upload_folder_open_to_others",
                    setting="UPLOAD_FOLDER",
                    folder=str(self._folder),
                )

    def claim(self, installation_id: Callable[[], str]) -> None:
        """Mark the store as this installation's, unless this object has done so before.

        Args:
            installation_id: gives the id of the installation; what it raises is not caught.

        Raises:
            StartUpError: it is another's, of whose files none would be known here; from then on
                `check` fails.
            StorageUnavailable: it cannot be read.
        """
        if self._claimed:
            return
        installation = installation_id()
        with reading():
            owner = OWNER.search(self._marker.read_text())
        if owner is None:
            with suppress(StorageFull), writing():  # One that is read-only stays without a mark.
                owner = self._mark(installation)
        if owner is not None and owner[1] != installation:
            self._is_another_ones = True
            raise StartUpError(
                f"UPLOAD_FOLDER={self._folder} is that of another installation of Clustr, whose "
                "database is another one: choose another folder, or its database with MONGODB_URL "
                f"and MONGODB_DATABASE (if that is gone, remove the line `{owner[0]}` from the "
                f"file {MARKER} in the folder)"
            )
        self._is_another_ones = False
        self._claimed = True

    def _mark(self, installation: str) -> "re.Match[str] | None":
        """Write the mark, unless another process has by now; that is returned then."""
        with self._marker.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            owner = OWNER.search(file.read())
            if owner is None:
                file.write(f"installation: {installation}\n")
                file.flush()
                os.fsync(file.fileno())
        return owner

    def _mode(self, most: int) -> int:
        """What is in the folder is as readable as that, but no more than this mode says."""
        return most & (self._folder.stat().st_mode | 0o700)

    def _make(self, in_use: Callable[[], bool]) -> None:
        without = f"UPLOAD_FOLDER={self._folder} has no file {MARKER}"
        try:
            used = in_use()
        except DatabaseUnavailable as error:
            raise StartUpError(
                f"{without}, and while MongoDB does not answer "
                "it cannot be told whether it is new or not mounted"
            ) from error
        # Another process may have made it, and taken uploads in, a moment ago.
        if used and not self._marker.exists():
            raise StartUpError(
                f"{without}, but the database has uploads: it looks as if it is not mounted"
            )
        with suppress(FileExistsError):
            self._folder.mkdir(FOLDER_MODE, parents=True)
            self._folder.chmod(FOLDER_MODE)
        with self._marker.open("w") as file:
            file.write(MARKED)
            file.flush()
            os.fchmod(file.fileno(), self._mode(0o644))
            os.fsync(file.fileno())
        for folder in (self._folder, self._folder.parent):
            _sync_folder(folder)

    @contextmanager
    def _present(self) -> Iterator[int]:
        """The folder, open for things to be made in it, and in nothing else that is there by then.

        Raises:
            OSError: it is not the store, but perhaps the folder below a mount that is missing.
        """
        store = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.stat(MARKER, dir_fd=store)
            yield store
        finally:
            os.close(store)

    def _make_folder(self, name: str) -> None:
        """Make a folder in the store, and wait until its name is on the disk."""
        with self._present() as store:
            self._make_folders_in(store, name)
            os.fsync(store)

    def _make_folders_in(self, store: int, *names: str) -> None:
        mode = self._mode(0o755)
        for name in names:
            with suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=store)
                os.chmod(name, mode, dir_fd=store)

    def receive(self, max_bytes: int) -> IncomingFile:
        """Open a temporary file for what a client sends."""
        with writing():
            mode = self._mode(0o644)
        return IncomingFile(self._incoming / token_hex(16), max_bytes, mode)

    def keep(self, files: Sequence[tuple[IncomingFile, str]]) -> None:
        """Put received files into their places, so that a power cut cannot take them away.

        Args:
            files: each with its file name, `<id>.<extension>`.

        Raises:
            StorageFull: none of them is kept.
        """
        kept: list[Path] = []
        try:
            for incoming, filename in files:
                incoming.sync()
                kept.append(self._place(incoming.path, filename))
                incoming.kept = True
            with writing():
                for folder in {path.parent for path in kept}:
                    _sync_folder(folder)
        except BaseException:
            for path in kept:
                with suppress(OSError):  # No record will name what is left here: fsck finds it.
                    path.unlink(missing_ok=True)
            raise

    def _place(self, source: Path, filename: str) -> Path:
        key = self.key(filename)
        target = self.path(key)
        with writing():
            if self._is_linked(key):
                raise OSError(errno.ELOOP, "there is a link in the way", str(target))
            try:
                source.rename(target)
            except FileNotFoundError:  # It is the first file of these eighteen hours.
                self._make_folder(target.parent.name)
                source.rename(target)
        return target

    def remove(self, filename: str) -> None:
        """Take an original away, if it is there."""
        with writing():
            self.path(self.key(filename)).unlink(missing_ok=True)

    def key(self, filename: str) -> str:
        """Where an original lies, below the folder."""
        return f"{filename[:4]}/{filename}"

    def path(self, key: str) -> Path:
        return self._folder / key

    def path_of(self, filename: str) -> Path:
        """Where an original is, for those who open it themselves.

        Raises:
            NotFound: there is a link instead.
        """
        key = self.key(filename)
        with reading():
            if self._is_linked(key):
                log.warning("link_not_followed", key=key)
                raise NotFound(f"There is no file {filename}.")
        return self.path(key)

    def _is_linked(self, key: str) -> bool:
        """Whether a link is at a place in the store, or on the way to it."""
        places = (Path(key), *Path(key).parents[:-1])
        return any(self.path(str(place)).is_symlink() for place in places)

    def _open(self, key: str) -> BufferedReader | None:
        """Open a file in the store for reading; None when there is none, or a link instead.

        Raises:
            OSError: it cannot be read.
        """
        *folders, name = key.split("/")
        within = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
                os.close(within)
                within = inner
            return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=within), "rb")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            if self._is_linked(key):
                log.warning("link_not_followed", key=key)
            return None
        finally:
            os.close(within)

    def has(self, filename: str) -> bool:
        """Whether an original is in its place.

        Raises:
            StorageUnavailable: that cannot be seen.
        """
        with reading():
            return self.path(self.key(filename)).exists()

    def open(self, filename: str) -> BufferedReader:
        """Open an original for reading.

        Raises:
            NotFound: there is none of this name.
            StorageUnavailable: it cannot be read.
        """
        with reading():
            file = self._open(self.key(filename))
            if file is None and not self.is_there():
                raise FileNotFoundError(errno.ENOENT, "the store is not there", str(self._marker))
        if file is None:
            raise NotFound(f"There is no file {filename}.")
        return file

    def open_trashed(self, filename: str) -> BufferedReader:
        """Open an original of the trash for reading, also while it is being moved there.

        Raises:
            NotFound: there is none of this name.
            StorageUnavailable: it cannot be read.
        """
        with reading():
            file = self._open(self.trash.key(filename))
        return file or self.open(filename)

    def thumbnail_key(self, upload_id: str, name: str) -> str:
        """Where a thumbnail lies, below the folder; the id must be one."""
        return f"{THUMBNAILS}/{upload_id[:4]}/{upload_id}/{name}"

    def open_thumbnail(self, key: str) -> BinaryIO | None:
        """Open a thumbnail for reading; None when it was not made, or the store is away.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        with reading():
            try:
                return self._open(key)
            except FileNotFoundError:  # The store is away.
                return None

    @contextmanager
    def making_thumbnails(
        self, key: str, others: Collection[str], seconds: float
    ) -> Iterator[Callable[[], list[str]]]:
        """Be the only one who makes thumbnails of an original, of all threads and processes.

        Args:
            key: the thumbnail that is waited for.
            others: the keys of all that there can be of this original.
            seconds: how long to wait at most.

        Yields:
            what says which are waited for at that moment and are not there, this one first.

        Raises:
            BeingMade: another makes some, and took longer than this.
            StorageFull: nothing can be written here, not even a lock.
        """
        number = zlib.crc32(key.rpartition("/")[0].encode()) % LOCKS
        with ExitStack() as opened:
            wanted = self._open_lock(opened, "lock-wanted")
            with writing():
                fcntl.fcntl(wanted, fcntl.F_OFD_SETLK, _lock_of_byte(fcntl.F_RDLCK, key))
            _wait_for(self._open_lock(opened, f"lock-{number:02x}"), time.monotonic() + seconds)

            def waited_for() -> list[str]:
                keys = [each for each in others if each != key and _is_locked(wanted, each)]
                return [key, *(each for each in keys if not self.path(each).exists())]

            yield waited_for

    def _open_lock(self, opened: ExitStack, name: str) -> int:
        """Open a file to lock; what is locked on it is given back when it is closed."""
        path = self.path(f"{THUMBNAILS}/{name}")
        with writing():
            try:
                lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:  # It is the first thumbnail.
                self._make_thumbnail_folders(THUMBNAILS)
                lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        opened.callback(os.close, lock)
        return lock

    def keep_thumbnail(
        self, key: str, filename: str, content: bytes, trashed: bool = False
    ) -> bool:
        """Put a thumbnail into its place; False when the original is gone by now.

        Args:
            filename: of the original.
            trashed: whether that is in the trash.

        Raises:
            StorageFull: it is not kept.
        """
        place = self.path(key)
        incoming = self._incoming / token_hex(16)
        with writing():
            try:
                incoming.write_bytes(content)
                incoming.chmod(self._mode(0o644))
                try:
                    incoming.rename(place)
                except FileNotFoundError:
                    top, middle, last = key.split("/")[:3]
                    folders = (top, f"{top}/{middle}", f"{top}/{middle}/{last}")
                    self._make_thumbnail_folders(*folders)
                    incoming.rename(place)
            except BaseException:
                with suppress(OSError):  # What is left here is removed by `clean`.
                    incoming.unlink(missing_ok=True)
                raise
        if self.trash.has(filename) if trashed else self.has(filename):
            return True
        self.forget_thumbnails(filename)
        return False

    def _make_thumbnail_folders(self, *names: str) -> None:
        """Make folders in the store, each in the one before; nobody waits for the disk."""
        with self._present() as store:
            self._make_folders_in(store, *names)

    def forget_thumbnails(self, filename: str) -> bool:
        """Remove all thumbnails of an original, which is gone already; whether there were any.

        Args:
            filename: of the original; its id will do.

        Raises:
            StorageFull: they cannot be removed.
        """
        upload_id = filename.partition(".")[0]
        key = self.thumbnail_key(upload_id, "")
        folder = self.path(key)
        with writing():
            if self._is_linked(key):
                return False
            try:
                found = list(folder.iterdir())
            except FileNotFoundError:
                return False
            for path in found:
                path.unlink(missing_ok=True)
            with suppress(OSError):  # Two do this at once, or another was made at this moment.
                folder.rmdir()
        return True

    def thumbnails(self) -> Iterator[StoredFile]:
        """For each upload with thumbnails the folder in which they are, in no order."""
        with reading():
            try:
                tops = sorted((self._folder / THUMBNAILS).iterdir())
            except FileNotFoundError:  # There never was one.
                return
            for top in tops:
                if FOLDER.fullmatch(top.name):
                    yield from self._thumbnails(top)

    def _thumbnails(self, folder: Path) -> Iterator[StoredFile]:
        with os.scandir(folder) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    if ID.fullmatch(entry.name):
                        since = _moment(entry.stat(follow_symlinks=False).st_ctime)
                        key = f"{THUMBNAILS}/{folder.name}/{entry.name}"
                        yield StoredFile(key, entry.name, since)

    def check(self) -> None:
        """See whether files can be written now; what was written is believed for `CHECKED_SECONDS`.

        Raises:
            StorageFull: they cannot, or the store is another installation's.
        """
        if self._is_another_ones:
            raise StorageFull
        with writing():
            self._marker.stat()
            if time.monotonic() < self._checked_until:
                return
            probe = self._incoming / f"probe-{token_hex(8)}"
            try:
                probe.write_bytes(b"probe")
            finally:
                probe.unlink(missing_ok=True)
        self._checked_until = time.monotonic() + CHECKED_SECONDS

    def room(self) -> FreeSpace:
        """How much can still be written."""
        with reading():
            found = os.statvfs(self._folder)
        # Some file systems, such as Btrfs, have no inodes to count.
        return FreeSpace(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)

    def clean(self, before: datetime) -> int:
        """Remove temporary files that a process left behind when it died before that moment."""
        return sum(self.discard(entry.key, before) for entry in self.left_behind(before))

    def left_behind(self, before: datetime) -> Iterator[StoredFile]:
        """The temporary files that nobody has written to since that moment."""
        with reading(), os.scandir(self._incoming) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    since = _moment(entry.stat().st_mtime)
                    if entry.is_file() and since < before:
                        yield StoredFile(f"{INCOMING}/{entry.name}", None, since)

    def discard(self, key: str, before: datetime) -> bool:
        """Remove a temporary file, unless it is gone or was written to since; whether it was."""
        path = self.path(key)
        with writing(), suppress(FileNotFoundError):
            if _moment(path.stat().st_mtime) < before:
                path.unlink()
                return True
        return False

    def entries(self) -> Iterator[StoredFile]:
        """Everything in the store that is not Clustr's own, folder by folder, in no other order."""
        with reading():
            for top in sorted(self._folder.iterdir()):
                if FOLDER.fullmatch(top.name) and top.is_dir() and not top.is_symlink():
                    yield from self._entries(top)
                elif top.name not in OURS:
                    with suppress(FileNotFoundError):
                        yield StoredFile(top.name, None, _moment(top.lstat().st_ctime))

    def _entries(self, folder: Path) -> Iterator[StoredFile]:
        with os.scandir(folder) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    name = ORIGINAL.fullmatch(entry.name)
                    of_folder = name and entry.name.startswith(folder.name)
                    in_place = of_folder and entry.is_file(follow_symlinks=False)
                    yield StoredFile(
                        f"{folder.name}/{entry.name}",
                        name[1] if name and in_place else None,
                        # A rename sets this time, too: it is when the file came to its place.
                        _moment(entry.stat(follow_symlinks=False).st_ctime),
                    )

    def entry(self, key: str) -> StoredFile | None:
        """What lies at a place now."""
        with reading(), suppress(FileNotFoundError):
            path = self.path(key)
            name = ORIGINAL.fullmatch(path.name)
            return StoredFile(key, name[1] if name else None, _moment(path.lstat().st_ctime))
        return None

    def quarantine(self, key: str, kind: str) -> bool:
        """Put a file aside into `.quarantine/<kind>/`; False when it is not there any more.

        Raises:
            StorageFull: it cannot be moved.
        """
        place = self._folder / QUARANTINE / kind
        with writing():
            self._make_folder(QUARANTINE)
            self._make_folder(f"{QUARANTINE}/{kind}")
            target = place / Path(key).name
            if target.exists():  # It was quarantined, put back by somebody, and is bad again.
                target = target.with_name(f"{target.name}.{token_hex(4)}")
            try:
                self.path(key).rename(target)
            except FileNotFoundError:
                return False
        return True


def _lock_of_byte(kind: int, key: str) -> bytes:
    """A lock of the byte that stands for a thumbnail: a `struct flock` (fcntl(2))."""
    return FLOCK.pack(kind, os.SEEK_SET, zlib.crc32(key.encode()), 1, 0)


def _is_locked(file: int, key: str) -> bool:
    """Whether anybody else has locked the byte that stands for a thumbnail."""
    asked = _lock_of_byte(fcntl.F_WRLCK, key)
    kind: int = FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def _wait_for(lock: int, until: float) -> None:
    """Take the lock on an open file; it has no time limit of its own.

    Raises:
        BeingMade: another still has it at that moment, on the clock of `time.monotonic()`.
    """
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise BeingMade from None
            time.sleep(LOOK_AGAIN_SECONDS)
        else:
            return


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
