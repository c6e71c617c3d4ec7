"""The store: a folder of the file system, which belongs to one installation of Clustr.

The file `.clustr-store` tells the store from the empty folder that is in its place while its file
system is not mounted: where this marker is missing, nothing is ever written. It also has the id of
the installation.

No symbolic link in the store is followed, because it could lead out of it; the store itself may be
one.

A folder that is made here can be read by its owner and by its group, in which nginx can be. Whoever
can read the store can read what is in it, whatever the umask is.
"""

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path

from clustr import logs
from clustr.domain.errors import (
    DatabaseUnavailable,
    StartUpError,
    StorageFull,
    StorageUnavailable,
)

log = logs.logger(__name__)

MARKER = ".clustr-store"
MARKER_TEXT = """\
In this folder Clustr keeps its originals. By this file it tells the folder from the
empty one that is there while its file system is not mounted: please leave it where it is.
"""
# The line of the marker that says to which installation the store belongs.
INSTALLATION = re.compile(r"installation: ([0-9a-f]{24})")

ID_PREFIX = re.compile(r"[0-9a-f]{4}")
ID = re.compile(r"[0-9a-f]{24}")

FOLDER_MODE = 0o750


@contextmanager
def writing() -> Iterator[None]:
    """Raise `StorageFull` for whatever keeps the block from writing, and log the reason."""
    try:
        yield
    except OSError as error:
        log.error("storage_not_written", error=f"{type(error).__name__}: {error}")
        raise StorageFull from error


@contextmanager
def reading() -> Iterator[None]:
    """Raise `StorageUnavailable` for whatever keeps the block from reading, and log the reason."""
    try:
        yield
    except OSError as error:
        log.error("storage_not_read", error=f"{type(error).__name__}: {error}")
        raise StorageUnavailable from error


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file or folder in the store.

    Attributes:
        key: its path, relative to the store.
        upload_id: the upload to which it belongs by its name; None for any other name.
        since: when it was written or moved there.
    """

    key: str
    upload_id: str | None
    since: datetime


def is_world_readable(folder: Path) -> bool:
    """Whether every account of the machine can read what is in a folder, or reach it by name."""
    above = all(parent.stat().st_mode & 0o001 for parent in folder.resolve().parents)
    return above and bool(folder.stat().st_mode & 0o005)


def is_prefix_folder(path: Path) -> bool:
    """Whether this is a folder of what belongs to uploads whose ids begin with its name."""
    return bool(ID_PREFIX.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()


def to_datetime(timestamp: float) -> datetime:
    """The UTC time of a time stamp of stat(2), in seconds."""
    return datetime.fromtimestamp(timestamp, UTC)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StoreFolder:
    """The folder of the store: its marker, and safe ways to open files and make folders in it.

    Args:
        path: the folder, which need not exist yet.
    """

    def __init__(self, path: Path):
        self._path = path
        self._marker = path / MARKER
        self._is_claimed = False
        self._is_foreign = False

    def is_there(self) -> bool:
        """Whether the folder is the store, and not the folder below a missing mount.

        Raises:
            StorageUnavailable: its file system does not answer.
        """
        with reading():
            return self._marker.exists()

    def create_if_missing(self, in_use: Callable[[], bool]) -> None:
        """Create the store, unless it exists.

        Args:
            in_use: whether the database has uploads; called only when the marker is missing.

        Raises:
            StartUpError: the store looks unmounted, or cannot be created.
        """
        try:
            if not self._marker.exists():
                self._create(in_use)
        except OSError as error:
            raise StartUpError(
                f"UPLOAD_FOLDER: cannot write to {self._path}: {error.strerror}"
            ) from error

    def _create(self, in_use: Callable[[], bool]) -> None:
        without = f"UPLOAD_FOLDER={self._path} has no file {MARKER}"
        try:
            is_in_use = in_use()
        except DatabaseUnavailable as error:
            raise StartUpError(
                f"{without}, and while MongoDB does not answer "
                "it cannot be told whether it is new or not mounted"
            ) from error
        # Another process may have created it and accepted uploads a moment ago.
        if is_in_use and not self._marker.exists():
            raise StartUpError(
                f"{without}, but the database has uploads: it looks as if it is not mounted"
            )
        with suppress(FileExistsError):
            self._path.mkdir(FOLDER_MODE, parents=True)
            self._path.chmod(FOLDER_MODE)
        with self._marker.open("w") as file:
            file.write(MARKER_TEXT)
            file.flush()
            os.fchmod(file.fileno(), self.mode(0o644))
            os.fsync(file.fileno())
        for folder in (self._path, self._path.parent):
            sync_folder(folder)

    def warn_if_world_readable(self) -> None:
        """Log a warning when every account of the machine can read the store."""
        with suppress(OSError):
            if is_world_readable(self._path):
                log.warning(
                    "upload_folder_open_to_others",
                    setting="UPLOAD_FOLDER",
                    folder=str(self._path),
                )

    def claim(self, installation_id: Callable[[], str]) -> None:
        """Write the installation's id into the marker, unless this object has done so before.

        Args:
            installation_id: returns the id of the installation; its exceptions are not caught.

        Raises:
            StartUpError: the store belongs to another installation; from then on
                `require_marker` fails.
            StorageUnavailable: the marker cannot be read.
        """
        if self._is_claimed:
            return
        installation = installation_id()
        with reading():
            owner = INSTALLATION.search(self._marker.read_text())
        if owner is None:
            # The marker of a read-only store stays without an id.
            with suppress(StorageFull), writing():
                owner = self._write_owner(installation)
        if owner is not None and owner[1] != installation:
            self._is_foreign = True
            raise StartUpError(
                f"UPLOAD_FOLDER={self._path} is that of another installation of Clustr, whose "
                "database is another one: choose another folder, or its database with MONGODB_URL "
                f"and MONGODB_DATABASE (if that is gone, remove the line `{owner[0]}` from the "
                f"file {MARKER} in the folder)"
            )
        self._is_foreign = False
        self._is_claimed = True

    def _write_owner(self, installation: str) -> "re.Match[str] | None":
        """Write the installation's id, unless another process has written one; return that."""
        with self._marker.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            owner = INSTALLATION.search(file.read())
            if owner is None:
                file.write(f"installation: {installation}\n")
                file.flush()
                os.fsync(file.fileno())
        return owner

    def require_marker(self) -> None:
        """Check that this is the store of this installation.

        Raises:
            StorageFull: it belongs to another installation.
            OSError: the marker is missing.
        """
        if self._is_foreign:
            raise StorageFull
        self._marker.stat()

    def missing_error(self) -> OSError:
        """The error to raise when a file is missing because the store is."""
        return FileNotFoundError(errno.ENOENT, "the store is not there", str(self._marker))

    def mode(self, most: int) -> int:
        """The mode for something in the store: no more than `most`, and no more than the store."""
        return most & (self._path.stat().st_mode | 0o700)

    def path(self, key: str) -> Path:
        """The path of something in the store."""
        return self._path / key

    def has_link(self, key: str) -> bool:
        """Whether a key, or a folder on the way to it, is a symbolic link."""
        places = (Path(key), *Path(key).parents[:-1])
        return any(self.path(str(place)).is_symlink() for place in places)

    def open_key(self, key: str) -> BufferedReader | None:
        """Open a file for reading; None when there is none, or a symbolic link instead.

        Raises:
            OSError: it cannot be read.
        """
        *folders, name = key.split("/")
        within = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
                os.close(within)
                within = inner
            return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=within), "rb")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            if self.has_link(key):
                log.warning("link_not_followed", key=key)
            return None
        finally:
            os.close(within)

    def make_folders(self, *keys: str, sync: bool = True) -> None:
        """Make folders, each in the one before, and in no other folder than the store.

        Args:
            sync: whether to wait until the name of the first is on the disk.

        Raises:
            OSError: they cannot be made, or the store is not mounted.
        """
        store = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.stat(MARKER, dir_fd=store)
            mode = self.mode(0o755)
            for key in keys:
                with suppress(FileExistsError):
                    os.mkdir(key, mode, dir_fd=store)
                    os.chmod(key, mode, dir_fd=store)
            if sync:
                os.fsync(store)
        finally:
            os.close(store)
