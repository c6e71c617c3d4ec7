"""Who makes the current request."""

from flask import g

from clustr.domain.access import UNRESTRICTED, Access


def current_access() -> Access:
    """Who makes the current request, and what they may do."""
    access: Access = g.get("access", UNRESTRICTED)
    return access
