"""Cursors of listings: the place of an upload in an order, in letters."""

import base64
import binascii
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from bson.errors import InvalidId

from clustr.database.upload_filter import VALUE_TYPES, Sort, UploadFilter
from clustr.domain.errors import InvalidInput

UNCOUNTED_TOTAL = 0xFFFFFFFF  # in a cursor: more uploads than are counted

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

INVALID_CURSOR = "This is no cursor; take the `next_cursor` of an answer."
CURSOR_MISMATCH = "This cursor is of another sort or of other filters; give those again beside it."


@dataclass(frozen=True, slots=True)
class CursorPosition:
    """Where the next page of a listing begins: after an upload.

    Attributes:
        value: the value of that upload in the sort field; None where it has none.
        key: the `_id` of that upload.
        total: how many uploads matched at the first page; None for too many to be counted.
    """

    value: Any
    key: ObjectId
    total: int | None


def cursor_writer(
    sort: Sort, upload_filter: UploadFilter, total: int | None, owner: str | None = None
) -> Callable[[Mapping[str, Any]], str]:
    """Make a function that writes the cursor for the page after an upload, given its document.

    A cursor has the sort order, filters, total and position. The function raises a `TypeError` if
    a foreign record has no value to sort by.

    Args:
        owner: whose uploads alone are listed; a cursor of all uploads is none of theirs.
    """
    counted = UNCOUNTED_TOTAL if total is None else total
    head = struct.pack(">BI", sort.code(), counted) + upload_filter.fingerprint(owner)

    def write(document: Mapping[str, Any]) -> str:
        value = document.get(sort.field)
        if not isinstance(value, VALUE_TYPES[sort.by]):
            raise TypeError(f"{sort.field} cannot be sorted by")
        packed = head + document["_id"].binary + _pack_value(value)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    return write


def _pack_value(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        return b"\0" + value.encode()  # so that an empty text differs from None
    if isinstance(value, datetime):
        value = (value.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    return struct.pack(">q", value)


def read_cursor(
    cursor: str, sort: Sort, upload_filter: UploadFilter, owner: str | None = None
) -> CursorPosition:
    """The position in a cursor; `owner` as for `cursor_writer`.

    Raises:
        InvalidInput: the cursor is invalid, or of another sort order or other filters.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        packed = base64.b64decode(padded, altchars=b"-_", validate=True)
        code, total = struct.unpack(">BI", packed[:5])
        fingerprint, key, value = packed[5:9], ObjectId(packed[9:21]), packed[21:]
        if (code, fingerprint) != (sort.code(), upload_filter.fingerprint(owner)):
            raise InvalidInput({"cursor": [CURSOR_MISMATCH]})
        return CursorPosition(
            _unpack_value(value, sort), key, None if total == UNCOUNTED_TOTAL else total
        )
    except (binascii.Error, ValueError, struct.error, OverflowError, InvalidId, TypeError) as error:
        raise InvalidInput({"cursor": [INVALID_CURSOR]}) from error


def _unpack_value(packed: bytes, sort: Sort) -> Any:
    if not packed and sort.by in ("taken_at", "date"):
        return None
    if sort.by == "name":
        return packed[1:].decode()
    (number,) = struct.unpack(">q", packed)
    return number if sort.by == "size" else EPOCH + timedelta(milliseconds=number)
