"""The version of an upload, and its `ETag`, which begins with it.

The version changes when a person changes the upload. `If-Match` compares it, and so does
`If-None-Match` in requests that change something. The rest of the tag is a digest of the whole
response, which `If-None-Match` compares in reads. docs/decisions/versions.md has the reasons.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from http import HTTPStatus

from flask import Response, request
from werkzeug.http import parse_etags

from clustr.api.http.compression import GZIP, compress, is_to_be_compressed
from clustr.database import Versions
from clustr.domain.errors import Outdated

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ETAG_PATTERN = re.compile(r"([0-9a-f]{24})-([0-9a-f]{1,11})(?:\.[0-9a-f]{16})?")
NEVER_EDITED = 0


def version_of(upload_id: str, edited_at: datetime | None) -> str:
    """Return the version of an upload: its id and the time of a person's last edit, in UTC."""
    if edited_at is None:
        return f"{upload_id}-{NEVER_EDITED}"
    return f"{upload_id}-{(edited_at.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1):x}"


def add_etag(response: Response, version: str) -> Response:
    """Set the strong `ETag` of a response with an upload."""
    response.set_etag(f"{version}.{_digest(response)}")
    return response


def send_page(response: Response) -> Response:
    """Send a response with several uploads, compressed if the client takes that.

    Its strong `ETag` differs by the form in which it is sent. It is 304 if the client has it.
    """
    is_compressed = is_to_be_compressed(response)
    response.set_etag(f"{_digest(response)}-{GZIP}" if is_compressed else _digest(response))
    response.vary.add("Accept-Encoding")
    send_unless_known(response)
    if is_compressed and response.status_code == HTTPStatus.OK:
        compress(response)
    return response


def send_unless_known(response: Response) -> Response:
    """Make a response 304 if its `ETag` is one that the client has."""
    # Without the header, `make_conditional` would take longer than writing the response.
    if request.if_none_match:
        response.make_conditional(request)
    return response


def _digest(response: Response) -> str:
    return blake2b(response.get_data(), digest_size=8).hexdigest()


def versions_from_headers(headers: Mapping[str, str], upload_id: str) -> Versions:
    """Return the versions of an upload that `If-Match` and `If-None-Match` allow to be changed.

    Both headers have tags, or versions as in bodies. RFC 9110, sections 13.1.1 and 13.1.2:
    `If-Match` compares strongly, so that a weak tag never matches; `If-None-Match` weakly.

    Args:
        headers: the conditions, in the shape of `ConditionSchema`.
    """
    allowed: list[datetime | None] | None = None
    excluded: list[datetime | None] | None = []
    if "if_match" in headers:
        tags = parse_etags(headers["if_match"])
        allowed = None if tags.star_tag else _versions_from_tags(tags.as_set(), upload_id)
    if "if_none_match" in headers:
        tags = parse_etags(headers["if_none_match"])
        versions = _versions_from_tags(tags.as_set(include_weak=True), upload_id)
        excluded = None if tags.star_tag else versions
    return Versions(allowed, excluded)


def _versions_from_tags(tags: Iterable[str], upload_id: str) -> list[datetime | None]:
    matches = [ETAG_PATTERN.fullmatch(tag or "") for tag in tags]
    return [_edited_at(int(match[2], 16)) for match in matches if match and match[1] == upload_id]


def _edited_at(milliseconds: int) -> datetime | None:
    if milliseconds == NEVER_EDITED:
        return None
    return EPOCH + timedelta(milliseconds=milliseconds)


def refuse_if_match() -> None:
    """Refuse `If-Match` on changes of resources that have no version.

    Blueprints run this before their requests. RFC 9110, section 13.1.1: without a representation
    the condition is false, so to ignore it would change what the client wanted left alone.

    Raises:
        Outdated: the request has `If-Match` and changes something.
    """
    if request.method not in ("GET", "HEAD", "OPTIONS") and "If-Match" in request.headers:
        raise Outdated("Nothing here has a version: If-Match is only for what changes one upload.")
