"""Temporary folders of processes, which are removed even when their process is killed.

A process that is killed cannot remove its folder. But it holds a lock on the folder while it
lives, so that other processes on this host can tell which folders are abandoned.
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
    """Make a folder for the block, and remove it afterwards."""
    unlocked = Path(tempfile.mkdtemp(prefix=".clustr-"))
    lock = _open_folder(unlocked)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = unlocked.rename(
            unlocked.with_name(f"{PREFIX}{unlocked.name.removeprefix('.clustr-')}")
        )
        try:
            yield folder  # Only a locked folder has this name.
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        with suppress(OSError):  # A plugin may have closed everything.
            os.close(lock)


def remove_abandoned_folders() -> None:
    """Remove the temporary folders of this host whose processes are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # It belongs to another user, or has been removed by now.
            lock = _open_folder(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                continue
            finally:
                os.close(lock)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
