"""Who makes a request, and what they may do."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a key may be allowed to do."""

    UPLOADS_READ = "uploads:read"
    UPLOADS_WRITE = "uploads:write"
    UPLOADS_DELETE = "uploads:delete"
    FILES_READ = "files:read"
    ANALYSES_RUN = "analyses:run"
    PLUGINS_READ = "plugins:read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Access:
    """Who makes a request, and what they may do.

    Attributes:
        key_id: the id of the key that the request came with; None when keys are not in use.
        name: the name of that key.
        scopes: what the request may do.
        own_only: whether it sees and changes only the uploads that its name brought.
    """

    key_id: str | None
    name: str | None
    scopes: frozenset[Scope]
    own_only: bool = False

    @property
    def only_uploads_of(self) -> str | None:
        """The name whose uploads are the only ones there are for this request; None: all are."""
        return self.name if self.own_only else None


# With `AUTH=off`, and for commands and workers.
UNRESTRICTED = Access(None, None, frozenset(Scope))
