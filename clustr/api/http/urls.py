"""The URLs in responses."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from flask import Response, request
from werkzeug.sansio.utils import get_current_url

from clustr.api.http.request_context import components
from clustr.api.http.signatures import METADATA, SHARE, sent_metadata
from clustr.domain.models import FilesMetadata
from clustr.services.thumbnails import DEFAULT_SIZE, VERSION
from clustr.services.url_signing import EXPIRY

MOVED_RESPONSE: dict[str, Any] = {
    "description": "This is what it was called in Clustr's predecessor: ask the same at its new "
    "address.",
    "headers": {"Location": {"schema": {"type": "string"}, "description": "Where it is now."}},
}


class FileUrls:
    """The URLs of files for the answer to the current request, below `base_url()`.

    Where requests need a key, these are signed instead: browsers send no key for a picture in a
    page.
    """

    def __init__(self) -> None:
        settings = components.settings
        self._base = base_url()
        self._file = f"{settings.upload_url_path}/"
        self._file_query, self._thumbnail_query = "", f"?size={DEFAULT_SIZE}&v={VERSION}"
        self._sign: Callable[[str], str] | None = None
        if settings.auth == "keys":
            self._sign = components.url_signer.sign
            expiry = f"{EXPIRY}={components.url_signer.expiry()}"
            metadata = sent_metadata()
            differs = metadata != settings.files_metadata
            self._file_query = f"?{METADATA}={metadata}&{expiry}" if differs else f"?{expiry}"
            self._thumbnail_query += f"&{expiry}"

    def of_file(self, filename: str) -> str:
        """Return the URL of an original."""
        return self._complete(f"{self._file}{filename}{self._file_query}")

    def of_thumbnail(self, upload_id: str) -> str:
        """Return the URL of an upload's thumbnail, which has a version and is cached for ever."""
        return self._complete(f"/api/uploads/{upload_id}/thumbnail{self._thumbnail_query}")

    def _complete(self, address: str) -> str:
        return self._base + (self._sign(address) if self._sign else address)


def url_of(filename: str) -> str:
    """Return the URL of an original for the answer to the current request."""
    return FileUrls().of_file(filename)


def shared_file_url(filename: str, metadata: FilesMetadata, share_id: str, expires: int) -> str:
    """Return the URL of an original for those with whom it is shared.

    Args:
        metadata: what is sent of its metadata.
        expires: in seconds since 1970.
    """
    path = f"{components.settings.upload_url_path}/{filename}?{METADATA}={metadata}"
    return _shared(path, share_id, expires)


def shared_thumbnail_url(upload_id: str, size: int, share_id: str, expires: int) -> str:
    """Return the URL of a thumbnail for those with whom it is shared.

    Args:
        expires: in seconds since 1970.
    """
    path = f"/api/uploads/{upload_id}/thumbnail?size={size}&v={VERSION}"
    return _shared(path, share_id, expires)


def _shared(path: str, share_id: str, expires: int) -> str:
    address = f"{path}&{SHARE}={share_id}&{EXPIRY}={expires}"
    return base_url() + components.url_signer.sign(address)


def trashed_url_of(upload_id: str) -> str:
    """Return the URL of the original of an upload in the trash."""
    return f"{base_url()}/api/trash/{upload_id}/file"


def trashed_thumbnail_url_of(upload_id: str) -> str:
    """Return the URL of the thumbnail of an upload in the trash."""
    return f"{base_url()}/api/trash/{upload_id}/thumbnail?size={DEFAULT_SIZE}"


def public_path(path: str) -> str:
    """Prepend the path of `BASE_URL`, or the prefix of a proxy, to a path of the service."""
    return f"{urlsplit(base_url()).path}{path}"


def moved_response(path: str) -> Response:
    """Respond with another path, where the same is to be asked with the same query."""
    query = request.query_string.decode("latin-1")
    location = public_path(f"{path}?{query}" if query else path)
    return Response(status=308, headers={"Location": location})


def base_url() -> str:
    """Return `BASE_URL`, or else the host that the client called, without a slash at the end."""
    url = components.settings.base_url or request_base_url(
        request.scheme, request.host, request.root_path
    )
    return url.rstrip("/")


# Cached because building it takes longer than the rest of a response with an upload.
request_base_url = lru_cache(maxsize=100)(get_current_url)
