"""The versions of an upload: which of them a change may be made to.

A version is the moment at which a person last changed the upload, which is in its document as
`edited_at`; it is None while nobody has, also in documents that were written before there was such
a field. What analyzers write leaves it as it is.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from clustr.catalog.connection import Document
from clustr.errors import Outdated

Versions = Sequence[datetime | None] | None  # None stands for any version.

NO_VERSION = (
    "If-Match names no version of this upload; send its `version`, or its ETag, as you read it, "
    'in double quotes and without `W/`: If-Match: "<version>".'
)


def of_version(versions: Versions) -> Document:
    """The part of a query that only an upload of one of these versions meets."""
    return {} if versions is None else {"edited_at": {"$in": [*versions]}}


def require_version(document: Mapping[str, Any], versions: Versions) -> None:
    """See that an upload, as it was read, is of one of these versions.

    Raises:
        Outdated: it is of another one.
    """
    if versions is None or document.get("edited_at") in versions:
        return
    raise Outdated if versions else Outdated(NO_VERSION)
