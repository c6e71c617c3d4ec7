"""The addresses that clients are told."""

from functools import lru_cache
from urllib.parse import urlsplit

from flask import request
from werkzeug.sansio.utils import get_current_url

from clustr.api.http.request_context import components
from clustr.services.thumbnails import DEFAULT_SIZE, VERSION


def url_of(filename: str) -> str:
    """Where clients find an original: below `BASE_URL`, or else the host that they called."""
    return f"{base_url()}{components.settings.upload_url_path}/{filename}"


def thumbnail_url_of(upload_id: str) -> str:
    """Where clients find a thumbnail of an upload, by an address that is cached for ever."""
    return f"{base_url()}/api/uploads/{upload_id}/thumbnail?size={DEFAULT_SIZE}&v={VERSION}"


def trashed_url_of(upload_id: str) -> str:
    """Where clients find the original of an upload of the trash."""
    return f"{base_url()}/api/trash/{upload_id}/file"


def trashed_thumbnail_url_of(upload_id: str) -> str:
    """Where clients find a thumbnail of an upload of the trash."""
    return f"{base_url()}/api/trash/{upload_id}/thumbnail?size={DEFAULT_SIZE}"


def path_to(path: str) -> str:
    """The path of something as clients find it, below that of `BASE_URL` or of a proxy."""
    return f"{urlsplit(base_url()).path}{path}"


def base_url() -> str:
    """Where clients find everything: `BASE_URL`, or else the host that they called."""
    url = components.settings.base_url or called_url(
        request.scheme, request.host, request.root_path
    )
    return url.rstrip("/")


# To write it takes longer than the rest of an upload's answer.
called_url = lru_cache(maxsize=100)(get_current_url)
