"""The URLs in responses."""

from functools import lru_cache
from urllib.parse import urlsplit

from flask import request
from werkzeug.sansio.utils import get_current_url

from clustr.api.http.request_context import components
from clustr.services.thumbnails import DEFAULT_SIZE, VERSION


def url_of(filename: str) -> str:
    """Return the URL of an original, below `base_url()`."""
    return f"{base_url()}{components.settings.upload_url_path}/{filename}"


def thumbnail_url_of(upload_id: str) -> str:
    """Return the URL of an upload's thumbnail, which has a version and is cached for ever."""
    return f"{base_url()}/api/uploads/{upload_id}/thumbnail?size={DEFAULT_SIZE}&v={VERSION}"


def trashed_url_of(upload_id: str) -> str:
    """Return the URL of the original of an upload in the trash."""
    return f"{base_url()}/api/trash/{upload_id}/file"


def trashed_thumbnail_url_of(upload_id: str) -> str:
    """Return the URL of the thumbnail of an upload in the trash."""
    return f"{base_url()}/api/trash/{upload_id}/thumbnail?size={DEFAULT_SIZE}"


def public_path(path: str) -> str:
    """Prepend the path of `BASE_URL`, or the prefix of a proxy, to a path of the service."""
    return f"{urlsplit(base_url()).path}{path}"


def base_url() -> str:
    """Return `BASE_URL`, or else the host that the client called, without a slash at the end."""
    url = components.settings.base_url or request_base_url(
        request.scheme, request.host, request.root_path
    )
    return url.rstrip("/")


# Cached because building it takes longer than the rest of a response with an upload.
request_base_url = lru_cache(maxsize=100)(get_current_url)
