"""The body of an upload: a file that is sent as a stream, and tells how far it is."""

import os
from collections.abc import Callable
from typing import BinaryIO
from urllib.parse import quote

OnProgress = Callable[[int, int], None]


class FileBody:
    """A file as the body of a request, from its beginning to its end.

    Args:
        file: an open file that can seek.
        on_progress: called with the bytes that were read, and all of them.
    """

    def __init__(self, file: BinaryIO, on_progress: OnProgress | None):
        self._file = file
        self._on_progress = on_progress
        self._sent_bytes = 0
        self._size_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)

    def __len__(self) -> int:
        """How many bytes it has; `requests` makes `Content-Length` of it."""
        return self._size_bytes

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if data and self._on_progress:
            self._sent_bytes += len(data)
            self._on_progress(self._sent_bytes, self._size_bytes)
        return data


def disposition(name: str) -> str:
    """Return the header `Content-Disposition` for a file of any name (RFC 6266, RFC 8187)."""
    return f"attachment; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
