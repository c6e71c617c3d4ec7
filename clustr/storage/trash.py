"""Originals of uploads that are in the trash, in the folder `.trash` of the store.

Their paths there are `.trash/<first four digits of the id>/<filename>`. Moving an original that was
moved before changes nothing, so that an operation can simply be repeated after a crash.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath

from clustr.storage.folder import (
    StoreFolder,
    is_prefix_folder,
    reading,
    sync_folder,
    to_datetime,
)

TRASH = ".trash"


def key_of(filename: str) -> str:
    """The path of an original, relative to the store."""
    return f"{filename[:4]}/{filename}"


class TrashFolder:
    """The originals in the trash of a store.

    Args:
        folder: the store.
    """

    def __init__(self, folder: StoreFolder):
        self._folder = folder

    def key(self, filename: str) -> str:
        """The path of an original in the trash, relative to the store."""
        return f"{TRASH}/{key_of(filename)}"

    def has(self, filename: str) -> bool:
        """Whether an original is in the trash.

        Raises:
            StorageUnavailable: the file system does not answer.
        """
        with reading():
            return self._folder.path(self.key(filename)).exists()

    def put(self, filename: str) -> bool:
        """Move an original into the trash; False when it is not in its place.

        Raises:
            OSError: it cannot be moved.
        """
        return self._move(key_of(filename), self.key(filename))

    def put_back(self, filename: str) -> bool:
        """Move an original back into its place; False when it is not in the trash.

        Raises:
            OSError: it cannot be moved.
        """
        return self._move(self.key(filename), key_of(filename))

    def remove(self, filename: str) -> None:
        """Remove an original, whether or not it is in the trash.

        Raises:
            OSError: it cannot be removed.
        """
        for key in (key_of(filename), self.key(filename)):
            path = self._folder.path(key)
            with suppress(FileNotFoundError):
                path.unlink()
                sync_folder(path.parent)

    def files(self) -> Iterator[tuple[str, datetime]]:
        """The file names in the trash, in no order, each with the time when it was moved there.

        Raises:
            StorageUnavailable: they cannot be read.
        """
        top = self._folder.path(TRASH)
        with reading():
            for prefix in sorted(top.iterdir()) if top.exists() else ():
                if is_prefix_folder(prefix):
                    yield from self._files_of_prefix(prefix)

    def _files_of_prefix(self, prefix: Path) -> Iterator[tuple[str, datetime]]:
        with os.scandir(prefix) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    yield entry.name, to_datetime(entry.stat(follow_symlinks=False).st_ctime)

    def _move(self, source_key: str, target_key: str) -> bool:
        source, target = self._folder.path(source_key), self._folder.path(target_key)
        try:
            source.rename(target)
        except FileNotFoundError:
            if not source.exists():
                return False
            for key in _folders_of(target_key):
                self._folder.make_folders(key)
            source.rename(target)
        # The target is first, so that a power cut leaves the original in one of the two.
        for folder in (target.parent, source.parent):
            sync_folder(folder)
        return True


def _folders_of(key: str) -> list[str]:
    """The folders on the way to a file in the store, the outermost first."""
    return [str(parent) for parent in reversed(PurePosixPath(key).parents[:-1])]
