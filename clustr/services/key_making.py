"""Makes keys, renews them, and checks what is asked of a new one."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from clustr.database import Key, Keys, now
from clustr.domain.access import OWN, Rate, Scope
from clustr.domain.errors import InvalidInput
from clustr.domain.key_text import new_key

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# How long the text that a key had before goes on, unless something else is asked for.
GRACE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key with its text, which nobody can be told again."""

    key: Key
    text: str


def audit_details(key: Key) -> dict[str, str]:
    """What the audit log says of a key that was made or rotated; nothing of it is secret."""
    details = {"name": key.name, "scopes": ",".join(key.scope_names)}
    if key.expires_at is not None:
        details["expires_at"] = key.expires_at.isoformat()
    if key.rate is not None:
        details["rate"] = str(key.rate)
    if key.bytes_per_day is not None:
        details["bytes_per_day"] = str(key.bytes_per_day)
    return details


class KeyMaking:
    """Makes keys, and renews them."""

    def __init__(self, keys: Keys):
        self._keys = keys

    def create(
        self,
        name: str,
        scopes: Iterable[str],
        *,
        expires_at: datetime | None = None,
        rate: Rate | None = None,
        bytes_per_day: int | None = None,
        text: str | None = None,
    ) -> IssuedKey:
        """Make a key.

        Args:
            scopes: what it may do; `own` among them narrows that down to its own uploads.
            text: a new text that was kept somewhere before; by default another new one.

        Raises:
            InvalidInput: there is no such key.
            NameTaken: a key of this name exists that is not revoked.
        """
        given = set(scopes)
        _check(name, given, expires_at)
        text = text or new_key()
        key = self._keys.add(
            text,
            name,
            frozenset(map(Scope, given - {OWN})),
            own_only=OWN in given,
            expires_at=expires_at,
            rate=rate,
            bytes_per_day=bytes_per_day,
        )
        return IssuedKey(key, text)

    def rotate(
        self, name: str, grace: timedelta = GRACE, expires_at: datetime | None = None
    ) -> IssuedKey:
        """Give a key another text; the one that it had is valid for `grace` still.

        Args:
            expires_at: until when the new one is valid; by default for as long as the one before.

        Raises:
            InvalidInput: it would have expired already.
            NotFound: there is no key of this name that is not revoked.
        """
        key = self._keys.get(name)
        if expires_at is None and key.expires_at is not None:
            expires_at = now() + (key.expires_at - key.renewed_at)
        _check_expiry(expires_at)
        text = new_key()
        return IssuedKey(self._keys.rotate(name, text, expires_at, now() + grace), text)


def _check(name: str, scopes: set[str], expires_at: datetime | None) -> None:
    if NAME.fullmatch(name) is None:
        raise InvalidInput(
            {"name": ["Expected 1 to 64 letters, digits and . _ @ -, the first no sign."]}
        )
    known = [*Scope, OWN]
    if unknown := sorted(scopes.difference(known)):
        there_are = f"There are {', '.join(known)}."
        raise InvalidInput({"scopes": [f"There is no scope {', '.join(unknown)}. {there_are}"]})
    if not scopes - {OWN}:
        beside = f"; {OWN} goes beside them, and allows nothing by itself" if scopes else ""
        raise InvalidInput({"scopes": [f"Name one or more of {', '.join(Scope)}{beside}."]})
    if {OWN, Scope.ADMIN} <= scopes:
        raise InvalidInput(
            {"scopes": ["A key with admin can make others, so it cannot be held to its own."]}
        )
    _check_expiry(expires_at)


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= now():
        raise InvalidInput({"expires_at": ["Expected a time that is still to come."]})
