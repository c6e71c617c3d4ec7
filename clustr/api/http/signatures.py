"""Signed addresses in requests: they stand in for a key, for what they name and for their time."""

from flask import Flask, g, request

from clustr.api.http.access import current_access, endpoints_with_signatures
from clustr.api.http.request_context import components
from clustr.domain.access import SIGNED, Scope
from clustr.domain.errors import AddressRevoked
from clustr.domain.models import FilesMetadata
from clustr.services.url_signing import EXPIRY

METADATA, SHARE = "metadata", "share"

CACHE_FOREVER = "public, max-age=31536000, immutable"
CACHE_FOR_MINUTES = "public, max-age=300"
# What a key may see can change at any time, and the next one that a browser sends may see less.
ASK_AGAIN = "private, no-cache"


def take_signatures(app: Flask) -> None:
    """Have signed addresses checked, on the routes that say they take them."""
    taking = endpoints_with_signatures(app)

    def check() -> None:
        query: str = request.environ.get("QUERY_STRING", "")
        if "signature=" in query and request.endpoint in taking:
            g.signed = components.url_signer.check(request.path, query)
            if SHARE in g.signed and not components.database.shares.has(g.signed[SHARE]):
                raise AddressRevoked
            g.access = SIGNED

    app.before_request(check)


def signed_metadata() -> FilesMetadata | None:
    """What the address of the current request says of metadata; None if it does not."""
    said = g.get("signed", {}).get(METADATA)
    return None if said is None else FilesMetadata(said)


def sent_metadata() -> FilesMetadata:
    """What is sent of the metadata of originals; without keys everybody is sent the same."""
    signed = signed_metadata()
    if signed is not None:
        return signed
    access = current_access()
    if access.key_id is not None and Scope.FILES_READ in access.scopes:
        return FilesMetadata.KEEP
    return FilesMetadata(components.settings.files_metadata)


def cache_control(is_final: bool) -> str:
    """The `Cache-Control` of a file that is sent in answer to the current request.

    Args:
        is_final: whether there will never be another answer at this address.
    """
    signed = g.get("signed")
    if signed is not None:
        if not is_final or SHARE in signed:  # A share can be revoked.
            return ASK_AGAIN
        seconds = components.url_signer.seconds_left(int(signed[EXPIRY]))
        return f"private, max-age={seconds}, immutable"
    if components.settings.auth == "keys":
        return ASK_AGAIN
    return CACHE_FOREVER if is_final else CACHE_FOR_MINUTES
