"""The version of an upload, and its `ETag`, which begins with it.

The version changes when a person changes the upload, and is what `If-Match` compares, and so does
`If-None-Match` where something is changed; the rest of the tag is a digest of the whole answer, for
`If-None-Match` where it is read. docs/decisions/versions.md says why.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from flask import Response, request
from werkzeug.http import parse_etags

from clustr.database import Versions
from clustr.domain.errors import Outdated

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TAG = re.compile(r"([0-9a-f]{24})-([0-9a-f]{1,11})(?:\.[0-9a-f]{16})?")
NEVER_EDITED = 0


def version_of(upload_id: str, edited_at: datetime | None) -> str:
    """The version of an upload: its id and when a person last changed it, in UTC."""
    if edited_at is None:
        return f"{upload_id}-{NEVER_EDITED}"
    return f"{upload_id}-{(edited_at.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1):x}"


def tag_with(response: Response, version: str) -> Response:
    """Give an answer with an upload its strong `ETag`."""
    digest = blake2b(response.get_data(), digest_size=8).hexdigest()
    response.set_etag(f"{version}.{digest}")
    return response


def versions_of(headers: Mapping[str, str], upload_id: str) -> Versions:
    """The versions of an upload that `If-Match` and `If-None-Match` let be changed.

    Both name tags, or versions as they are in bodies. RFC 9110, 13.1.1 and 13.1.2: the first is
    compared strongly, so that a weak tag never matches; the second weakly.

    Args:
        headers: the conditions, in the shape of `ConditionSchema`.
    """
    only: list[datetime | None] | None = None
    none_of: list[datetime | None] | None = []
    if "if_match" in headers:
        tags = parse_etags(headers["if_match"])
        only = None if tags.star_tag else _versions_in(tags.as_set(), upload_id)
    if "if_none_match" in headers:
        tags = parse_etags(headers["if_none_match"])
        of_tags = _versions_in(tags.as_set(include_weak=True), upload_id)
        none_of = None if tags.star_tag else of_tags
    return Versions(only, none_of)


def _versions_in(tags: Iterable[str], upload_id: str) -> list[datetime | None]:
    found = [TAG.fullmatch(tag or "") for tag in tags]
    return [_edited_at(int(each[2], 16)) for each in found if each and each[1] == upload_id]


def _edited_at(milliseconds: int) -> datetime | None:
    if milliseconds == NEVER_EDITED:
        return None
    return EPOCH + timedelta(milliseconds=milliseconds)


def refuse_versions() -> None:
    """Refuse to change something on the condition of a version where nothing has one.

    It is done before the requests of a blueprint. RFC 9110, 13.1.1: without a representation the
    condition is false, and to ignore it would be to change what the client wanted left alone.

    Raises:
        Outdated: the request names a version.
    """
    if request.method not in ("GET", "HEAD", "OPTIONS") and "If-Match" in request.headers:
        raise Outdated("Nothing here has a version: If-Match is only for what changes one upload.")
