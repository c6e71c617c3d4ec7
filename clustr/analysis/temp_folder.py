"""Scratch folders: one for a process's own use, which goes when that does, however it ends.

A process that is killed cannot remove its folder. The folder is locked for as long as the process
lives, by which others on this host can tell whether anybody needs it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "clustr-scratch-"


@contextmanager
def temp_folder() -> Iterator[Path]:
    """A new folder for the block."""
    made = Path(tempfile.mkdtemp(prefix=".clustr-"))
    lock = _opened(made)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = made.rename(made.with_name(f"{PREFIX}{made.name.removeprefix('.clustr-')}"))
        try:
            yield folder  # It has this name only since it is locked.
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        with suppress(OSError):  # A plugin may have closed everything.
            os.close(lock)


def remove_abandoned_folders() -> None:
    """Remove the folders of processes that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # It belongs to another user, or has been removed by now.
            lock = _opened(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                continue
            finally:
                os.close(lock)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
