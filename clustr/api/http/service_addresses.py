"""Addresses of the services that analyzers call, which are for operators."""

import re

from clustr.api.http.access import current_access
from clustr.domain.access import Scope

ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>]*[^\s\"'<>.,:;!?)]", re.IGNORECASE)
HIDDEN = "[hidden]"


def without_addresses(text: str) -> str:
    """Return a text without the addresses in it, unless the request has the scope `admin`."""
    if Scope.ADMIN in current_access().scopes:
        return text
    return ADDRESS.sub(HIDDEN, text)
