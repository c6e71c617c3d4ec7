"""Says whose key or session a request comes with, and what that may do."""

import hmac
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

from clustr import logs
from clustr.database import NOTED_EVERY, Key, Keys, now
from clustr.database.sessions import Session, Sessions
from clustr.domain.access import Access
from clustr.domain.errors import (
    DatabaseUnavailable,
    KeyExpired,
    KeyMistyped,
    KeyNotChecked,
    KeyRefused,
    SessionEnded,
)
from clustr.domain.key_text import hash_of, is_well_formed, prefix_of
from clustr.domain.session_token import new_session_token

log = logs.logger(__name__)

# A key that was revoked, or has another scope, is used as it was for this long at most.
CACHED_SECONDS = 3.0
MAX_CACHED = 10_000
# What a key that is not there is compared with, so that it takes as long as one that is.
NO_HASH = hash_of("")
# A session ends when it was not used for so long, and so long after its beginning in any case.
IDLE = timedelta(days=1)
LONGEST_SESSION = timedelta(days=30)


class Authentication:
    """Looks up keys and sessions, and remembers each for a few seconds."""

    def __init__(self, keys: Keys, sessions: Sessions):
        self._keys = keys
        self._sessions = sessions
        # By the hash of the text, whose time of comparison tells nothing of the text.
        self._of_keys: dict[str, tuple[float, Access]] = {}
        self._of_sessions: dict[str, tuple[float, Access]] = {}
        self._noting = ThreadPoolExecutor(1, "key-use")

    def access_of(self, text: str) -> Access:
        """What the key with this text may do.

        Raises:
            KeyMistyped: it cannot be a key.
            KeyRefused: there is no such key, or it was revoked.
            KeyExpired: it was valid until some time.
            KeyNotChecked: the database does not answer, and it was not used in the last seconds.
        """
        digest = sha256(text.encode()).hexdigest()
        until, access = self._of_keys.get(digest, (0.0, None))
        if access is None or until <= time.monotonic():
            began = time.monotonic()
            access = self._look_up_key(text, digest)
            _remember(self._of_keys, digest, began, access, access.expires_at)
        return access

    def access_of_session(self, token: str) -> Access:
        """What the session with this token may do, which is what its key may.

        Raises:
            SessionEnded: there is no such session any more, or its key is not valid any more.
            KeyNotChecked: the database does not answer, and it was not used in the last seconds.
        """
        digest = sha256(token.encode()).hexdigest()
        until, access = self._of_sessions.get(digest, (0.0, None))
        if access is None or until <= time.monotonic():
            began = time.monotonic()
            access, valid_until = self._look_up_session(digest)
            _remember(self._of_sessions, digest, began, access, valid_until)
        return access

    def begin_session(self, text: str) -> tuple[str, Access]:
        """Begin a session with a key; the token of the session, and what it may do until when.

        Raises:
            the same as `access_of`, and DatabaseUnavailable.
        """
        access = self.access_of(text)
        ends_at = _earlier(now() + LONGEST_SESSION, access.expires_at)
        session = Session(prefix_of(text), _earlier(now() + IDLE, ends_at), ends_at)
        token = new_session_token()
        self._sessions.add(sha256(token.encode()).hexdigest(), session)
        return token, replace(access, expires_at=ends_at)

    def end_session(self, token: str) -> None:
        """End a session, if there is one; other processes know within `CACHED_SECONDS`."""
        digest = sha256(token.encode()).hexdigest()
        self._sessions.remove(digest)
        self._of_sessions.pop(digest, None)

    def _look_up_key(self, text: str, digest: str) -> Access:
        if not is_well_formed(text):
            raise KeyMistyped
        try:
            found = self._keys.find(text)
        except DatabaseUnavailable as error:
            raise KeyNotChecked from error
        is_same = hmac.compare_digest(found.hash if found else NO_HASH, digest)
        if found is None or not is_same:
            raise KeyRefused
        key = found.key()
        if key.revoked_at:
            raise KeyRefused
        if found.expires_at is not None and found.expires_at <= now():
            raise KeyExpired
        self._note_use(key)
        return _access(key, found.expires_at)

    def _look_up_session(self, digest: str) -> tuple[Access, datetime]:
        """What a session may do, and until when it does so if it is not used until then."""
        try:
            session = self._sessions.find(digest)
            found = self._keys.find(session.key_prefix) if session else None
        except DatabaseUnavailable as error:
            raise KeyNotChecked from error
        if session is None or found is None or (key := found.key()).revoked_at:
            raise SessionEnded
        ends_at = _earlier(session.ends_at, found.expires_at)
        valid_until = _earlier(session.expires_at, ends_at)
        if valid_until <= now():
            raise SessionEnded
        self._note_use(key)
        prolonged = _earlier(now() + IDLE, ends_at)
        if prolonged - session.expires_at > NOTED_EVERY:
            self._note(lambda: self._sessions.prolong(digest, prolonged), key)
        return _access(key, ends_at), valid_until

    def _note_use(self, key: Key) -> None:
        if key.last_used_at is None or now() - key.last_used_at > NOTED_EVERY:
            self._note(lambda: self._keys.note_use(key.id), key)

    def _note(self, write: Callable[[], None], key: Key) -> None:
        """Note that a key or its session is used, in a thread, so that no request waits for it."""

        def try_to_write() -> None:
            try:
                write()
            except DatabaseUnavailable as error:
                log.info("key_use_not_noted", key_id=key.id, reason=str(error))

        self._noting.submit(try_to_write)


def _access(key: Key, expires_at: datetime | None) -> Access:
    return Access(
        key.id, key.name, key.scopes, key.own_only, key.rate, key.bytes_per_day, expires_at
    )


def _remember(
    cached: dict[str, tuple[float, Access]],
    digest: str,
    began: float,
    access: Access,
    valid_until: datetime | None,
) -> None:
    """Remember what was looked up for a few seconds, counted from before it was."""
    valid_seconds = CACHED_SECONDS if valid_until is None else (valid_until - now()).total_seconds()
    if len(cached) >= MAX_CACHED:
        cached.clear()
    cached[digest] = (began + min(CACHED_SECONDS, valid_seconds), access)


def _earlier(moment: datetime, other: datetime | None) -> datetime:
    return moment if other is None else min(moment, other)
