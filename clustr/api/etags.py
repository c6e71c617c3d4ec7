"""The version of an upload that a client has seen, as an `ETag`."""

import re
from datetime import UTC, datetime, timedelta

from flask import request
from werkzeug.http import parse_etags

from clustr.errors import Outdated

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


def refuse_versions() -> None:
    """Refuse to change something on the condition of a version where nothing has one.

    It is done before the requests of a blueprint. RFC 9110, 13.1.1: without a representation the
    condition is false, and to ignore it would be to change what the client wanted left alone.

    Raises:
        Outdated: the request names a version.
    """
    if request.method not in ("GET", "HEAD", "OPTIONS") and "If-Match" in request.headers:
        raise Outdated("Nothing here has a version: If-Match is only for what changes one upload.")
