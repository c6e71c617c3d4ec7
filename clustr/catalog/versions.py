"""The versions of an upload: which of them a change may be made to."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from clustr.catalog.connection import Document
from clustr.errors import Outdated

Versions = Sequence[datetime] | None  # None stands for any version.


def of_version(versions: Versions) -> Document:
    """The part of a query that only an upload of one of these versions meets."""
    return {} if versions is None else {"updated_at": {"$in": [*versions]}}


def require_version(document: Mapping[str, Any], versions: Versions) -> None:
    """See that an upload, as it was read, is of one of these versions.

    Raises:
        Outdated: it is of another one.
    """
    if versions is not None and document["updated_at"] not in versions:
        raise Outdated
