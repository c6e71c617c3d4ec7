"""The version of an upload that a client has seen, as an `ETag`."""

import re
from datetime import UTC, datetime, timedelta

from werkzeug.http import parse_etags

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
VERSION = re.compile(r"([0-9a-f]{24})-([0-9a-f]{1,11})")


def etag_of(upload_id: str, updated_at: datetime) -> str:
    """The `ETag` of an upload as it is now, without quotes: its id and when it last changed."""
    return f"{upload_id}-{(updated_at - EPOCH) // timedelta(milliseconds=1):x}"


def versions_of(if_match: str | None, upload_id: str) -> list[datetime] | None:
    """The versions of an upload, by `updated_at`, that an `If-Match` allows; None for any."""
    tags = parse_etags(if_match)
    if if_match is None or tags.star_tag:
        return None
    found = [VERSION.fullmatch(tag or "") for tag in tags.as_set()]
    return [
        EPOCH + timedelta(milliseconds=int(each[2], 16))
        for each in found
        if each and each[1] == upload_id
    ]
