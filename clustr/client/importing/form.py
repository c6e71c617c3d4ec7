"""The body of an upload of several files with what is said of them, sent as a stream."""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from clustr.client.importing.errors import UnreadableFile

READ_BYTES = 64 * 1024


class FormFile(NamedTuple):
    """A file of a form.

    Attributes:
        size_bytes: of the file as it was hashed; it is not sent when it has another now.
        words: the body of a `PATCH` of its upload; {}: nothing.
    """

    path: Path
    size_bytes: int
    words: dict[str, Any]


class Form:
    """A form (RFC 7578) with files, which are read while it is sent.

    Args:
        before_read: called again and again; what it raises ends the request.
        on_sent: called with how many bytes of files were read, each time some were.
    """

    def __init__(
        self,
        files: Sequence[FormFile],
        before_read: Callable[[], None],
        on_sent: Callable[[int], None],
    ):
        self._files = files
        self._before_read = before_read
        self._on_sent = on_sent
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._heads = [_head(boundary, file.path.name) for file in files]
        self._metadata = b""
        if any(file.words for file in files):
            said = json.dumps([file.words or None for file in files], ensure_ascii=False)
            self._metadata = _metadata(boundary, said.encode())
        self._end = f"--{boundary}--\r\n".encode()
        self._chunks = self._read_all()

    def __len__(self) -> int:
        """How many bytes it has; `requests` makes `Content-Length` of it."""
        files = sum(
            len(h) + f.size_bytes + 2 for h, f in zip(self._heads, self._files, strict=True)
        )
        return len(self._metadata) + files + len(self._end)

    def read(self, _size: int = -1) -> bytes:
        """Return the next bytes; none at the end.

        Raises:
            UnreadableFile: a file cannot be read, or has another size than it had.
        """
        self._before_read()
        return next(self._chunks, b"")

    def _read_all(self) -> Iterator[bytes]:
        unsent = self._metadata
        for head, file in zip(self._heads, self._files, strict=True):
            unsent += head
            for data in _contents(file):
                self._on_sent(len(data))
                # What is small goes together: each read becomes a system call.
                unsent += data
                if len(unsent) >= READ_BYTES:
                    yield unsent
                    unsent = b""
            unsent += b"\r\n"
        yield unsent + self._end


def _contents(file: FormFile) -> Iterator[bytes]:
    left = file.size_bytes
    try:
        with file.path.open("rb") as opened:
            if os.fstat(opened.fileno()).st_size != file.size_bytes:
                raise UnreadableFile("it was changed while it was imported; import it once more")
            while left:
                data = opened.read(min(READ_BYTES, left))
                if not data:
                    raise UnreadableFile("it became shorter while it was sent; import it once more")
                left -= len(data)
                yield data
    except OSError as error:
        raise UnreadableFile(error.strerror or str(error)) from error


def _head(boundary: str, name: str) -> bytes:
    """The beginning of a part with a file. The name may have any bytes."""
    encoded = quote(os.fsencode(name).decode("utf-8", "replace"), safe="")
    disposition = f"form-data; name=\"files\"; filename*=UTF-8''{encoded}"
    return f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()


def _metadata(boundary: str, said: bytes) -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
    return head.encode() + said + b"\r\n"
