"""Files that are being received, in the folder `.incoming` of the store."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from clustr.storage.folder import StoreFolder, writing

INCOMING = ".incoming"


def incoming_folder(store: StoreFolder) -> Path:
    """The folder for files that are being received or made, which is made if it is missing.

    Raises:
        OSError: it cannot be made, or the store is not mounted.
    """
    folder = store.path(INCOMING)
    if not folder.exists():
        store.make_folders(INCOMING)
    return folder


class IncomingFile:
    """A file that is being received: it is hashed and counted while it is written.

    Beyond `max_bytes` nothing more is written and what was written is dropped, while the request is
    read on; of a request with no other file that ends once the file is `far_too_large`.

    Attributes:
        path: its temporary path.
        size: bytes received, including those beyond the limit.
        kept: whether it was moved to its final path.

    Args:
        mode: its mode (chmod(2)).
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
    def far_too_large(self) -> bool:
        """Whether it has more than twice as many bytes as it may have."""
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
        """Close the file, and remove it unless it was kept."""
        with suppress(OSError):  # On a full disk the rest cannot be written, which nobody needs.
            self._file.close()
        if not self.kept:
            with suppress(OSError):  # `LocalStorage.clean` removes what stays here.
                self.path.unlink(missing_ok=True)
