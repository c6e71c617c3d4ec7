"""The token of a session of a page: what its cookie holds, and what is derived from that.

It has nothing of the key with which the session was begun, and no log line shows it, because none
shows a cookie.
"""

import hmac
import secrets
from hashlib import sha256

RANDOM_BYTES = 32


def new_session_token() -> str:
    """Make a token that nobody can guess."""
    return secrets.token_urlsafe(RANDOM_BYTES)


def csrf_token_of(session_token: str) -> str:
    """What the scripts of a page send in a header, to show that they could read our answers.

    It is derived, so that it need not be stored; nobody can compute the session from it.
    """
    return hmac.digest(session_token.encode(), b"csrf", sha256).hex()
