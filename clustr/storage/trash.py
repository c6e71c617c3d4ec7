"""Originals of uploads that are in the trash: moved aside into `.trash`, so that nobody is served.

There they lie as they did before: `.trash/<first four digits of the id>/<filename>`. To move one
that is there already changes nothing, so that whoever goes on after a crash just does it again.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

TRASH = ".trash"


class TrashFolder:
    """The folder of what is in the trash.

    Args:
        folder: the store.
        make_folder: makes a folder in the store, and nowhere else should that be unmounted.
    """

    def __init__(self, folder: Path, make_folder: Callable[[str], None]):
        self._folder = folder
        self._make_folder = make_folder

    def key(self, filename: str) -> str:
        """Where an original lies while it is in the trash, below the store."""
        return f"{TRASH}/{filename[:4]}/{filename}"

    def has(self, filename: str) -> bool:
        """Whether it is there."""
        return self._trashed(filename).exists()

    def put(self, filename: str) -> bool:
        """Move an original aside; False when it is not in its place.

        Raises:
            OSError: it cannot be moved.
        """
        return self._move(self._place(filename), self._trashed(filename))

    def put_back(self, filename: str) -> bool:
        """Move an original back into its place; False when it is not in the trash.

        Raises:
            OSError: it cannot be moved.
        """
        return self._move(self._trashed(filename), self._place(filename))

    def remove(self, filename: str) -> None:
        """Remove an original, wherever it is.

        Raises:
            OSError: it cannot be removed.
        """
        for path in (self._place(filename), self._trashed(filename)):
            with suppress(FileNotFoundError):
                path.unlink()
                _sync(path.parent)

    def files(self) -> Iterator[tuple[str, datetime]]:
        """The file names of what is there, in no order, each with the time since when."""
        top = self._folder / TRASH
        for folder in sorted(top.iterdir()) if top.exists() else ():
            with os.scandir(folder) as found:
                for entry in found:
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        yield entry.name, datetime.fromtimestamp(status.st_ctime, UTC)

    def _place(self, filename: str) -> Path:
        return self._folder / filename[:4] / filename

    def _trashed(self, filename: str) -> Path:
        return self._folder / self.key(filename)

    def _move(self, source: Path, target: Path) -> bool:
        try:
            source.rename(target)
        except FileNotFoundError:
            if not source.exists():
                return False
            relative = target.parent.relative_to(self._folder)
            for folder in reversed([relative, *relative.parents][:-1]):
                self._make_folder(str(folder))
            source.rename(target)
        _sync(target.parent)  # first, so that a power cut leaves it in one place at least
        _sync(source.parent)
        return True


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
