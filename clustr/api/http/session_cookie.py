"""The cookie of a session of a page; it goes to no other origin and no script can read it."""

from datetime import datetime

from flask import Response, request

NAME = "clustr_session"
# Behind TLS: browsers take such a cookie from this very host alone, and send it nowhere else.
SECURE_NAME = f"__Host-{NAME}"
CSRF_HEADER = "X-CSRF-Token"


def sent_session() -> str | None:
    """The token in the cookie of the current request."""
    return request.cookies.get(_name()) or None


def set_session(response: Response, token: str, expires_at: datetime) -> None:
    response.set_cookie(
        _name(),
        token,
        expires=expires_at,
        path="/",
        secure=request.is_secure,
        httponly=True,
        samesite="Strict",
    )


def remove_session(response: Response) -> None:
    response.delete_cookie(
        _name(), path="/", secure=request.is_secure, httponly=True, samesite="Strict"
    )


def _name() -> str:
    return SECURE_NAME if request.is_secure else NAME
