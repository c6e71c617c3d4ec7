"""Reads the files of a request straight into where they are stored: those of a form, or one alone.

The parser is the library `multipart`, which hands the bytes of a part on as they come, without
keeping or copying them; docs/decisions/multipart.md has the figures.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Generic, Protocol, TypeVar
from urllib.parse import unquote

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from clustr.domain import failure_messages

READ_BYTES = 256 * 1024

# A form for uploads has few other parts, and small ones. A part's header has the file's name, which
# some clients percent-encode: 16 KiB are enough for the longest that a file system can have.
OTHER_PARTS = 20
OTHER_BYTES = 64 * 1024
HEADER_BYTES = 16 * 1024
LONGEST_NAME = 100  # of a part that is not wanted, to tell the client

ENCODED_NAME = re.compile(r"filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)


class Unreadable(Exception):
    """This is no form, or it is cut off; the message says what it is instead."""


class TooMuch(Exception):
    """The form has more of something than is allowed; the message says of what."""


class File(Protocol):
    """Where a file is written to; when it is `hopeless` it need not even be read to its end."""

    @property
    def hopeless(self) -> bool: ...

    def write(self, data: bytes) -> None: ...


AnyFile = TypeVar("AnyFile", bound=File)


@dataclass(slots=True)
class Form(Generic[AnyFile]):
    """What was in a form.

    Attributes:
        files: those of the field that was asked for, with the names that the client gave them.
        others: the names of the other parts.
    """

    files: list[tuple[str, AnyFile]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def too_large(max_bytes: int) -> str:
    """What to say of a request that is larger than a request may be."""
    most = failure_messages.size_text(max_bytes)
    return f"The request is larger than {most}, the most that is accepted."


def read_form(
    stream: IO[bytes],
    content_type: str,
    wanted: str,
    open_file: Callable[[], AnyFile],
    max_files: int,
    max_bytes: int,
) -> Form[AnyFile]:
    """Read a form to its end, or as far as there is hope.

    There is none behind a file that is hopeless, nor in a large one that has another name than
    `wanted` and is the first: somebody does not know how to send it.

    Args:
        stream: the body; it ends where the body does.
        content_type: the header of that name.
        wanted: the name of the parts that are files to be kept; brackets may follow it, as PHP and
            axios name the parts of a list.
        open_file: called for each of them.
        max_files: how many of them there may be.
        max_bytes: how long the whole body may be.

    Raises:
        Unreadable: it is no form, or not a whole one.
        TooMuch: the body is too long, there are too many parts, or too much is in the others.
    """
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise Unreadable("no form" if kind != "multipart/form-data" else "a form without boundary")
    parser = PushMultipartParser(
        options["boundary"],
        max_header_size=HEADER_BYTES,
        max_segment_count=max_files + OTHER_PARTS,
        header_charset="latin-1",  # any bytes; `_text` says what they mean
    )
    reader = _Reader(wanted, open_file, max_files)
    left = max_bytes
    try:
        while not parser.closed and not reader.hopeless:
            data = _read(stream, min(READ_BYTES, left + 1))
            left -= len(data)
            if left < 0:
                raise TooMuch(too_large(max_bytes))
            for event in parser.parse(data):
                reader.take(event)
    except ParserLimitReached as error:
        parts = max_files + OTHER_PARTS
        reason = (
            f"A form may have at most {parts} parts, and each part at most "
            f"{failure_messages.size_text(HEADER_BYTES)} of headers."
        )
        raise TooMuch(reason) from error
    except MultipartError as error:
        raise Unreadable("a form that is cut off or malformed") from error
    return reader.form


def read_file(
    stream: IO[bytes], length: int | None, disposition: str, file: File, max_bytes: int
) -> str:
    """Read a body that is one file, to its end or until that is hopeless.

    Args:
        stream: the body; it ends where the body does.
        length: how many bytes of it there should be, if the client has said so.
        disposition: the header `Content-Disposition`, which may name the file.
        file: where it is written to.
        max_bytes: how long the body may be.

    Returns:
        the name that the client gave the file, empty when it gave none.

    Raises:
        Unreadable: it is cut off.
        TooMuch: it is too long.
    """
    count = 0
    while not file.hopeless and (data := _read(stream, READ_BYTES)):
        count += len(data)
        if count > max_bytes:
            raise TooMuch(too_large(max_bytes))
        file.write(data)
    if length is not None and count < length and not file.hopeless:
        raise Unreadable("a body that is cut off")
    _, options = parse_options_header(disposition)
    return _named(options.get("filename"), disposition) or ""


def _read(stream: IO[bytes], size: int) -> bytes:
    """Read from the client, which may go away, or may send what is no body."""
    try:
        return stream.read(size)
    except (OSError, ValueError) as error:
        raise Unreadable("a body that is cut off") from error


class _Reader(Generic[AnyFile]):
    """Takes what the parser finds: the head of a part, its bytes, then None at its end."""

    def __init__(self, wanted: str, open_file: Callable[[], AnyFile], max_files: int):
        self.form: Form[AnyFile] = Form()
        self._wanted = wanted
        self._is_wanted = re.compile(rf"{re.escape(wanted)}(\[[0-9]*\])?")
        self._open_file = open_file
        self._max_files = max_files
        self._file: AnyFile | None = None
        self._other_bytes = 0
        self._other_is_file = False
        self._misnamed = False

    @property
    def hopeless(self) -> bool:
        return self._misnamed or (self._file is not None and self._file.hopeless)

    def take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is None:
            self._file = None
        elif self._file is not None:
            self._file.write(event)
        else:
            self._pass_over(len(event))

    def _pass_over(self, count: int) -> None:
        self._other_bytes += count
        if self._other_bytes <= OTHER_BYTES:
            return
        if not self._other_is_file or self.form.files:
            most = failure_messages.size_text(OTHER_BYTES)
            raise TooMuch(
                f"Parts that are not named {self._wanted} may have {most} together; "
                f"there are more with the one named `{self.form.others[-1]}`."
            )
        self._misnamed = True

    def _begin(self, part: MultipartSegment) -> None:
        file_name = _file_name(part)
        if not self._is_wanted.fullmatch(part.name or "") or file_name is None:
            self.form.others.append(_text(part.name or "")[:LONGEST_NAME])
            self._other_is_file = file_name is not None
            return
        if len(self.form.files) == self._max_files:
            raise TooMuch(f"A request may have at most {self._max_files} files.")
        self._file = self._open_file()
        self.form.files.append((file_name, self._file))


def _file_name(part: MultipartSegment) -> str | None:
    """The name that the client gave a file.

    RFC 7578 forbids the form `filename*=`, but some clients send names outside of ASCII so.
    """
    return _named(part.filename, part.header("Content-Disposition", ""))


def _named(name: str | None, disposition: str) -> str | None:
    if name is not None:
        return _text(name)
    encoded = ENCODED_NAME.search(disposition)
    return unquote(encoded[1]) if encoded else None


def _text(value: str) -> str:
    """What a header's bytes, read as Latin-1, mean in UTF-8, whether or not they are that."""
    return value.encode("latin-1").decode("utf-8", "replace")
