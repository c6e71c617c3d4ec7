"""Reads uploaded files from a request and writes them to storage as their bytes arrive.

The body is a form (RFC 7578) or one file. The library `multipart` parses forms, because it passes
the bytes of a part on without keeping or copying them; docs/decisions/multipart.md has the figures.
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

# A form for uploads has few and small parts that are no files. The headers of a part contain the
# file's name, which some clients percent-encode: 16 KiB hold the longest name of any file system.
MAX_OTHER_PARTS = 20
MAX_OTHER_BYTES = 64 * 1024
MAX_METADATA_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 16 * 1024
LONGEST_NAME = 100  # of an ignored part, in characters; the client is told these names

# A quotation mark that is not closed goes to the end: so no header is read twice.
QUOTED = re.compile(r'"(?:[^"\\]|\\.?)*(?:"|\Z)')
ENCODED_NAME = re.compile(r"filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)


class UnreadableBody(Exception):
    """The body is no form, or is cut off; the message says what it is instead."""


class LimitExceeded(Exception):
    """The body exceeds a limit; the message says which."""


class WritableFile(Protocol):
    """What a file is written to; of one that is `far_too_large` no byte is needed any more."""

    @property
    def far_too_large(self) -> bool: ...

    def write(self, data: bytes | bytearray) -> None: ...


AnyFile = TypeVar("AnyFile", bound=WritableFile)


@dataclass(slots=True)
class Form(Generic[AnyFile]):
    """The contents of a form.

    Attributes:
        files: the files of the field, each with the name that the client gave it.
        metadata: the content of the part with words about the files; None when there is none.
        other_names: the names of the other parts.
    """

    files: list[tuple[str, AnyFile]] = field(default_factory=list)
    metadata: bytearray | None = None
    other_names: list[str] = field(default_factory=list)


def too_large_message(max_bytes: int) -> str:
    """Return the error for a request of more than `max_bytes`."""
    max_size = failure_messages.format_size(max_bytes)
    return f"The request is larger than {max_size}, the most that is accepted."


def read_form(
    stream: IO[bytes],
    content_type: str,
    field_name: str,
    metadata_name: str,
    open_file: Callable[[], AnyFile],
    max_files: int,
    max_bytes: int,
) -> Form[AnyFile]:
    """Read a form to its end, or until the request is certain to be refused.

    A file that is far too large is read to its end, too: others may follow it. Reading stops at a
    large first file under another name than `field_name`: the client then used the wrong name, and
    no file follows.

    Args:
        stream: the body; it ends where the body does.
        content_type: the header `Content-Type`.
        field_name: the name of the parts that hold the files; brackets may follow it, as PHP and
            axios name the parts of a list.
        metadata_name: the name of the part with words about the files.
        open_file: called for each file; returns what it is written to.
        max_files: how many files the form may have.
        max_bytes: how long the whole body may be.

    Raises:
        UnreadableBody: it is no form, or it is cut off.
        LimitExceeded: the body, the number of parts or the size of the other parts is too large.
    """
    media_type, options = parse_options_header(content_type)
    if media_type != "multipart/form-data" or not options.get("boundary"):
        raise UnreadableBody(
            "no form" if media_type != "multipart/form-data" else "a form without boundary"
        )
    parser = PushMultipartParser(
        options["boundary"],
        max_header_size=MAX_HEADER_BYTES,
        max_segment_count=max_files + MAX_OTHER_PARTS,
        header_charset="latin-1",  # takes any bytes; `_decode_header` decodes them
    )
    reader = _FormReader(field_name, metadata_name, open_file, max_files)
    remaining_bytes = max_bytes
    try:
        while not parser.closed and not reader.misnamed:
            data = _read_chunk(stream, min(READ_BYTES, remaining_bytes + 1))
            remaining_bytes -= len(data)
            if remaining_bytes < 0:
                raise LimitExceeded(too_large_message(max_bytes))
            for event in parser.parse(data):
                reader.handle_event(event)
    except ParserLimitReached as error:
        max_parts = max_files + MAX_OTHER_PARTS
        reason = (
            f"A form may have at most {max_parts} parts, and each part at most "
            f"{failure_messages.format_size(MAX_HEADER_BYTES)} of headers."
        )
        raise LimitExceeded(reason) from error
    except MultipartError as error:
        raise UnreadableBody("a form that is cut off or malformed") from error
    return reader.form


def read_file(
    stream: IO[bytes], length: int | None, disposition: str, file: WritableFile, max_bytes: int
) -> str:
    """Read a body that is one file, to its end or until the file is refused anyway.

    Args:
        stream: the body; it ends where the body does.
        length: how many bytes of it there should be, if the client has said so.
        disposition: the header `Content-Disposition`, which may name the file.
        file: what the body is written to.
        max_bytes: how long the body may be.

    Returns:
        the name that the client gave the file, empty when it gave none.

    Raises:
        Unreadable: it is cut off.
        TooMuch: it is too long.
    """
    count = 0
    while not file.far_too_large and (data := _read_chunk(stream, READ_BYTES)):
        count += len(data)
        if count > max_bytes:
            raise LimitExceeded(too_large_message(max_bytes))
        file.write(data)
    if length is not None and count < length and not file.far_too_large:
        raise UnreadableBody("a body that is cut off")
    _, options = parse_options_header(disposition)
    return _name_from_disposition(options.get("filename"), disposition) or ""


def _read_chunk(stream: IO[bytes], size: int) -> bytes:
    """Read from the client, which may go away, or may send what is no body."""
    try:
        return stream.read(size)
    except (OSError, ValueError) as error:
        raise UnreadableBody("a body that is cut off") from error


class _FormReader(Generic[AnyFile]):
    """Handles the parser's events: the headers of a part, its bytes, then None at its end."""

    def __init__(
        self,
        field_name: str,
        metadata_name: str,
        open_file: Callable[[], AnyFile],
        max_files: int,
    ):
        self.form: Form[AnyFile] = Form()
        self.misnamed = False
        self._field_name = field_name
        self._field_pattern = re.compile(rf"{re.escape(field_name)}(\[[0-9]*\])?")
        self._metadata_name = metadata_name
        self._metadata: bytearray | None = None
        self._open_file = open_file
        self._max_files = max_files
        self._file: AnyFile | None = None
        self._other_bytes = 0
        self._other_is_file = False

    def handle_event(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        if isinstance(event, MultipartSegment):
            self._begin_part(event)
        elif event is None:
            self._file = self._metadata = None
        elif self._file is not None:
            self._file.write(event)
        elif self._metadata is not None:
            self._metadata += event
            self._limit_metadata(self._metadata)
        else:
            self._skip_bytes(len(event))

    def _limit_metadata(self, metadata: bytearray) -> None:
        if len(metadata) > MAX_METADATA_BYTES:
            max_size = failure_messages.format_size(MAX_METADATA_BYTES)
            raise LimitExceeded(f"The part {self._metadata_name} may have at most {max_size}.")

    def _skip_bytes(self, count: int) -> None:
        self._other_bytes += count
        if self._other_bytes <= MAX_OTHER_BYTES:
            return
        if not self._other_is_file or self.form.files:
            max_size = failure_messages.format_size(MAX_OTHER_BYTES)
            raise LimitExceeded(
                f"Parts that are not named {self._field_name} may have {max_size} together; "
                f"there are more with the one named `{self.form.other_names[-1]}`."
            )
        self.misnamed = True

    def _begin_part(self, part: MultipartSegment) -> None:
        file_name = _file_name(part)
        if part.name == self._metadata_name:
            if self.form.metadata is not None:
                raise LimitExceeded(f"A request may have one part named {self._metadata_name}.")
            self.form.metadata = self._metadata = bytearray()
            return
        if not self._field_pattern.fullmatch(part.name or "") or file_name is None:
            self.form.other_names.append(_decode_header(part.name or "")[:LONGEST_NAME])
            self._other_is_file = file_name is not None
            return
        if len(self.form.files) == self._max_files:
            raise LimitExceeded(f"A request may have at most {self._max_files} files.")
        self._file = self._open_file()
        self.form.files.append((file_name, self._file))


def _file_name(part: MultipartSegment) -> str | None:
    """Return the name that the client gave a file, or None.

    RFC 7578, section 4.2, forbids `filename*=`, but some clients use it for names outside of ASCII.
    """
    return _name_from_disposition(part.filename, part.header("Content-Disposition", ""))


def _name_from_disposition(name: str | None, disposition: str) -> str | None:
    # RFC 6266, section 4.3: of both, the encoded name is the one to take.
    if match := ENCODED_NAME.search(QUOTED.sub("", disposition)):
        return unquote(match[1])
    return None if name is None else _decode_header(name)


def _decode_header(value: str) -> str:
    """Decode a header as UTF-8 that was decoded as Latin-1; invalid bytes are replaced."""
    return value.encode("latin-1").decode("utf-8", "replace")
