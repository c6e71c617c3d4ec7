"""Says whose key a request comes with, and what that key may do."""

import hmac
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from hashlib import sha256

from clustr import logs
from clustr.database import NOTED_EVERY, Key, Keys, now
from clustr.domain.access import Access
from clustr.domain.errors import (
    DatabaseUnavailable,
    KeyExpired,
    KeyMistyped,
    KeyNotChecked,
    KeyRefused,
)
from clustr.domain.key_text import hash_of, is_well_formed

log = logs.logger(__name__)

# A key that was revoked, or has another scope, is used as it was for this long at most.
CACHED_SECONDS = 3.0
MAX_CACHED = 10_000
# What a key that is not there is compared with, so that it takes as long as one that is.
NO_HASH = hash_of("")


class Authentication:
    """Looks up keys, and remembers each for a few seconds."""

    def __init__(self, keys: Keys):
        self._keys = keys
        # By the hash of the key, whose time of comparison tells nothing of the key.
        self._cached: dict[bytes, tuple[float, Access]] = {}
        self._noting = ThreadPoolExecutor(1, "key-use")

    def access_of(self, text: str) -> Access:
        """What the key with this text may do.

        Raises:
            KeyMistyped: it cannot be a key.
            KeyRefused: there is no such key, or it was revoked.
            KeyExpired: it was valid until some time.
            KeyNotChecked: the database does not answer, and it was not used in the last seconds.
        """
        digest = sha256(text.encode()).digest()
        until, access = self._cached.get(digest, (0.0, None))
        if access is None or until <= time.monotonic():
            access = self._look_up(text, digest)
        return access

    def _look_up(self, text: str, digest: bytes) -> Access:
        if not is_well_formed(text):
            raise KeyMistyped
        began = time.monotonic()
        try:
            found = self._keys.find(text)
        except DatabaseUnavailable as error:
            raise KeyNotChecked from error
        stored_hash = found[1].hash if found else NO_HASH
        is_same = hmac.compare_digest(stored_hash, digest.hex())
        if found is None or not is_same or found[0].revoked_at:
            raise KeyRefused
        key, secret = found
        valid_seconds = _seconds_until(secret.expires_at)
        if valid_seconds <= 0:
            raise KeyExpired
        access = Access(key.id, key.name, key.scopes, key.own_only, key.rate, key.bytes_per_day)
        if len(self._cached) >= MAX_CACHED:
            self._cached.clear()
        self._cached[digest] = (began + min(CACHED_SECONDS, valid_seconds), access)
        self._note_use(key)
        return access

    def _note_use(self, key: Key) -> None:
        """Note that a key is used, in a thread, so that no request waits for it."""
        if key.last_used_at is None or now() - key.last_used_at > NOTED_EVERY:
            self._noting.submit(self._try_to_note_use, key.id)

    def _try_to_note_use(self, key_id: str) -> None:
        try:
            self._keys.note_use(key_id)
        except DatabaseUnavailable as error:
            log.info("key_use_not_noted", key_id=key_id, reason=str(error))


def _seconds_until(moment: datetime | None) -> float:
    return CACHED_SECONDS if moment is None else (moment - now()).total_seconds()
