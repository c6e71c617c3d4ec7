"""The versions of an upload: which of them a change may be made to.

A version is the moment at which a person last changed the upload, which is in its document as
`edited_at`; it is None while nobody has, also in documents that were written before there was such
a field. What analyzers write leaves it as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clustr.database.connection import Document
from clustr.domain.errors import Outdated


@dataclass(frozen=True, slots=True)
class Versions:
    """Of which versions an upload may be for a change to be made to it.

    Attributes:
        only: one of these; None for any.
        none_of: none of these; None for a change that is to be made to no upload that there is.
    """

    only: Sequence[datetime | None] | None = None
    none_of: Sequence[datetime | None] | None = ()

    def allow(self, version: datetime | None) -> bool:
        """Whether a change may be made to an upload of this version."""
        if self.none_of is None or version in self.none_of:
            return False
        return self.only is None or version in self.only


ANY_VERSION = Versions()

NO_VERSION = (
    "If-Match names no version of this upload; send its `version`, or its ETag, as you read it, "
    'in double quotes and without `W/`: If-Match: "<version>".'
)


NOT_THIS_VERSION = (
    "If-None-Match is `*`, or names the version that the upload has: it was left as it is."
)


def of_version(versions: Versions) -> Document:
    """The part of a query that only an upload of one of these versions meets."""
    if versions.none_of is None:
        return {"edited_at": {"$in": []}}
    only = {} if versions.only is None else {"$in": [*versions.only]}
    other = {"$nin": [*versions.none_of]} if versions.none_of else {}
    return {"edited_at": only | other} if only or other else {}


def require_version(document: Mapping[str, Any], versions: Versions) -> None:
    """See that an upload, as it was read, is of one of these versions.

    Raises:
        Outdated: it is of another one.
    """
    version = document.get("edited_at")
    if versions.allow(version):
        return
    if versions.only is None or version in versions.only:
        raise Outdated(NOT_THIS_VERSION)
    raise Outdated if versions.only else Outdated(NO_VERSION)
