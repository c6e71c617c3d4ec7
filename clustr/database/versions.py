"""Versions of an upload, for conditional changes (`If-Match`, `If-None-Match`: RFC 9110, 13.1).

A version is the time of the last edit by a person, the field `edited_at` of the document. It is
None before the first edit, and in documents of older versions. Analyzers do not change it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clustr.database.connection import Document
from clustr.domain.errors import Outdated


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of an upload to which a change may be made.

    Attributes:
        only: only these versions; None for any.
        none_of: none of these versions; None forbids a change of any existing upload.
    """

    only: Sequence[datetime | None] | None = None
    none_of: Sequence[datetime | None] | None = ()

    def allows(self, version: datetime | None) -> bool:
        """Whether a change may be made to this version."""
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


def version_query(versions: Versions) -> Document:
    """The part of a query that matches an upload only in one of these versions."""
    if versions.none_of is None:
        return {"edited_at": {"$in": []}}
    only = {} if versions.only is None else {"$in": [*versions.only]}
    other = {"$nin": [*versions.none_of]} if versions.none_of else {}
    return {"edited_at": only | other} if only or other else {}


def require_version(document: Mapping[str, Any], versions: Versions) -> None:
    """Check that a document of an upload has one of these versions.

    Raises:
        Outdated: it has another version.
    """
    version = document.get("edited_at")
    if versions.allows(version):
        return
    if versions.only is None or version in versions.only:
        raise Outdated(NOT_THIS_VERSION)
    raise Outdated if versions.only else Outdated(NO_VERSION)
