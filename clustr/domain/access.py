"""Who makes a request, what they may do, and what a route needs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, TypeVar

View = TypeVar("View", bound=Callable[..., Any])


class Scope(StrEnum):
    """What a key may be allowed to do."""

    UPLOADS_READ = "uploads:read"
    UPLOADS_WRITE = "uploads:write"
    UPLOADS_DELETE = "uploads:delete"
    FILES_READ = "files:read"
    ANALYSES_RUN = "analyses:run"
    PLUGINS_READ = "plugins:read"
    ADMIN = "admin"

    @property
    def meaning(self) -> str:
        """What a key with it may do, in words."""
        return MEANINGS[self]


MEANINGS = {
    Scope.UPLOADS_READ: "see and search uploads, and get their files",
    Scope.UPLOADS_WRITE: "send uploads, change them, and restore them from the trash",
    Scope.UPLOADS_DELETE: "remove uploads",
    Scope.FILES_READ: "get originals with all their metadata, where `FILES_METADATA` takes some "
    "away",
    Scope.ANALYSES_RUN: "order analyses",
    Scope.PLUGINS_READ: "see which plugins there are",
    Scope.ADMIN: "manage keys, and see what is for operators",
}

# Given beside scopes, it narrows them down to the uploads that the key's name brought.
OWN = "own"

# What a route needs when no key is needed for it, and when any will do.
NOTHING: frozenset[Scope] = frozenset()
ANY_SCOPE = frozenset(Scope)

# The scope that each kind of job needs, to be ordered and to be cancelled.
SCOPE_OF_JOB: Mapping[str, Scope] = {
    "analyze": Scope.ANALYSES_RUN,
    "delete": Scope.UPLOADS_DELETE,
    "forget": Scope.ADMIN,
    "restore": Scope.UPLOADS_WRITE,
    "tag": Scope.UPLOADS_WRITE,
    "untag": Scope.UPLOADS_WRITE,
}

UNITS_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Rate:
    """How many requests are allowed in a time."""

    requests: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a rate such as `60/min`.

        Raises:
            ValueError: it is none; the message says what is expected.
        """
        match = re.fullmatch(rf"([1-9][0-9]{{0,8}})/({'|'.join(UNITS_SECONDS)})", text.strip())
        if match is None:
            units = ", ".join(UNITS_SECONDS)
            raise ValueError(f"expected a number of requests and a time ({units}): 60/min")
        return cls(int(match[1]), match[2])

    @property
    def seconds(self) -> int:
        """The time for which the number of requests holds."""
        return UNITS_SECONDS[self.unit]

    def __str__(self) -> str:
        return f"{self.requests}/{self.unit}"


@dataclass(frozen=True, slots=True)
class Access:
    """Who makes a request, and what they may do.

    Attributes:
        key_id: the id of the key that the request came with; None when keys are not in use.
        name: the name of that key.
        scopes: what the request may do.
        own_only: whether it sees and changes only the uploads that its name brought.
        rate: how many requests of this key are allowed; None: any number.
        bytes_per_day: how many bytes this key may send in a day; None: any number.
        expires_at: until when that is so; None: without end.
    """

    key_id: str | None
    name: str | None
    scopes: frozenset[Scope]
    own_only: bool = False
    rate: Rate | None = None
    bytes_per_day: int | None = None
    expires_at: datetime | None = None

    @property
    def only_uploads_of(self) -> str | None:
        """The name whose uploads are the only ones there are for this request; None: all are."""
        return self.name if self.own_only else None


# With `AUTH=off`, and for commands and workers.
UNRESTRICTED = Access(None, None, frozenset(Scope))

# For requests with a signed address, which is good for one file.
SIGNED = Access(None, None, frozenset({Scope.UPLOADS_READ}))

# For requests without a key. No upload is of a name without a letter, so they see none.
NOBODY = Access(None, "", frozenset(), own_only=True)


def needs(*scopes: Scope | str) -> Callable[[View], View]:
    """Mark a view with the scopes of which a request needs one; none: it needs no key.

    With `AUTH=keys` a request without such a key is refused before the view is called.

    Raises:
        ValueError: there is no such scope.
    """
    unknown = [str(scope) for scope in scopes if scope not in list(Scope)]
    if unknown:
        raise ValueError(f"there is no scope {', '.join(unknown)}; there are {', '.join(Scope)}")

    def mark(view: View) -> View:
        view.clustr_needs = frozenset(map(Scope, scopes))  # type: ignore[attr-defined]
        return view

    return mark


def marked_needs(view: Any) -> frozenset[Scope] | None:
    """The scopes with which a view is marked; None for one that is not."""
    marked: frozenset[Scope] | None = getattr(view, "clustr_needs", None)
    return marked
