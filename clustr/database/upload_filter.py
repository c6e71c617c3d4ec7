"""Filters and orders of listings, as requests have them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from clustr.database.documents import DUPLICATE_FACETS
from clustr.database.duplicates import SAME_BYTES_INDEX
from clustr.database.local_dates import LOCAL_DATE, SORT_DATE, LocalDates
from clustr.database.result_conditions import Condition
from clustr.database.search_conditions import SearchPlan
from clustr.database.tag_keys import TagKeys
from clustr.domain.errors import BeingPrepared
from clustr.search.query import SearchQuery

# The sort orders, each with the field of the document.
SORTS = {
    "upload_time": "upload_time",
    "taken_at": "taken_at",
    "size": "size",
    "name": "original_name",
    "date": SORT_DATE,
    "updated_at": "updated_at",
}
# The types of the values of these fields.
VALUE_TYPES = {
    "upload_time": datetime,
    "taken_at": datetime | None,
    "size": int,
    "name": str,
    "date": datetime | None,
    "updated_at": datetime,
}
# The kinds of filters, each with the orders in which an index has the uploads that meet one.
INDEXED_SORTS = {
    "facets": ("upload_time", "taken_at", "size", "name", "date"),
    "tag_keys": ("upload_time", "size", "name", "date"),
    "analyses": ("upload_time", "size", "name", "date"),
}
# Those of the indexes that begin with an owner. By analyses there is only one: an upload is in each
# of these once for each of its analyses, and in those of all as well.
INDEXED_SORTS_OF_OWNERS = {**INDEXED_SORTS, "analyses": ("upload_time",)}
# The filters by a range, each with the field of the document.
RANGE_FIELDS = {
    "upload_time": "upload_time",
    "taken_at": "taken_at",
    "taken_at_local": LOCAL_DATE,
    "updated_at": "updated_at",
    "size": "size",
    "width": "dimensions.width",
    "height": "dimensions.height",
}


@dataclass(frozen=True, slots=True)
class RangeLimit:
    """A limit of a range.

    Attributes:
        field: one of `RANGE_FIELDS`.
        operator: `gte`, `lte` or `lt`.
        value: a time, bytes or pixels.
    """

    field: str
    operator: str
    value: Any

    @property
    def sort(self) -> str:
        """The order in which the uploads within the limit are a range."""
        return "date" if self.field == "taken_at_local" else self.field


@dataclass(frozen=True, slots=True)
class UploadFilter:
    """Which uploads are listed: those that meet all of these conditions. None is no condition.

    Attributes:
        tag_keys: the keys of tags, of which an upload needs all; see `clustr.database.tags`.
        excluded_tag_keys: the keys of tags, of which an upload has none.
        untagged: whether an upload has no tags.
        undated: whether only uploads without `taken_at` match. Those with one are a range.
        analysis: an analyzer and the state of its analysis.
        duplicate: whether there is an older upload with the same bytes.
        sha256: the SHA-256 of the bytes, in hexadecimal digits.
        ids: the ids of uploads, of which an upload has one.
        bounds: limits of ranges.
        conditions: conditions on the results of analyses.
        search: the words, phrases and dates of a search.
        search_plan: how the uploads are found that match it; None where MongoDB decides.
        unkeyed: whether uploads may lack the keys of their tags; no index answers for those.
        dated: whether no upload lacks its local date, so that an index answers for those.
    """

    status: str | None = None
    tag_keys: tuple[str, ...] = ()
    content_type: str | None = None
    analysis: tuple[str, str] | None = None
    duplicate: bool | None = None
    sha256: str | None = None
    ids: tuple[str, ...] = ()
    bounds: tuple[RangeLimit, ...] = ()
    conditions: tuple[Condition, ...] = ()
    excluded_tag_keys: tuple[str, ...] = ()
    untagged: bool | None = None
    undated: bool = False
    search: SearchQuery | None = None
    search_plan: SearchPlan | None = field(default=None, repr=False)
    unkeyed: bool = field(default=False, repr=False)
    dated: bool = field(default=False, repr=False, compare=False)

    @property
    def index_prefixes(self) -> list[str]:
        """The kinds of indexes for these filters, one for each filter, the most selective first."""
        return [
            *("tag_keys" for _ in self.tag_keys if not self.unkeyed),
            *(["analyses"] if self.analysis else []),
            *("facets" for _ in self.facets),
        ]

    @property
    def facets(self) -> list[str]:
        """The facets that match these filters; see `clustr.database.documents`."""
        duplicate = None if self.duplicate is None else DUPLICATE_FACETS[self.duplicate]
        return [facet for facet in (duplicate, self.status, self.content_type) if facet]

    def single_index_filters(self, sort: "Sort", owner: str | None) -> list["UploadFilter"]:
        """Wider filters that one index answers each, the most selective first.

        Args:
            owner: whose uploads are asked for; None: all are.
        """
        within = UploadFilter(
            bounds=tuple(bound for bound in self.bounds if bound.sort == sort.by),
            undated=self.undated and sort.by == "taken_at",
            dated=self.dated,
        )
        ways = [replace(within, tag_keys=(k,)) for k in self.tag_keys if not self.unkeyed]
        if self.analysis:
            ways.append(replace(within, analysis=self.analysis))
        if self.status:
            ways.append(replace(within, status=self.status))
        if self.content_type:
            ways.append(replace(within, content_type=self.content_type))
        if self.duplicate is not None:
            ways.append(replace(within, duplicate=self.duplicate))
        sorts = indexed_sorts(owner)
        indexed = [way for way in ways if sort.by in sorts[way.index_prefixes[0]]]
        return indexed or [within]

    @property
    def search_index(self) -> str | None:
        """The index to be read for a search with a plan; None where MongoDB chooses.

        Of a frequent word the index on terms has far more uploads than are asked for by their ids
        or bytes.
        """
        if self.search_plan is None:
            return None
        if self.ids:
            return "_id_"
        return SAME_BYTES_INDEX if self.sha256 else self.search_plan.index

    @property
    def is_only_search(self) -> bool:
        """Whether there is no other condition than a search."""
        return self == UploadFilter(search=self.search, search_plan=self.search_plan)

    def fingerprint(self, owner: str | None) -> bytes:
        """Four bytes that differ between filters, and between owners, for cursors."""
        whose = "" if owner is None else f" of {owner}"
        return hashlib.blake2b(f"{self!r}{whose}".encode(), digest_size=4).digest()


NO_FILTER = UploadFilter()


def indexed_sorts(owner: str | None) -> Mapping[str, tuple[str, ...]]:
    """The kinds of filters, each with the orders in which an index has what an owner sees."""
    return INDEXED_SORTS if owner is None else INDEXED_SORTS_OF_OWNERS


def include_unkeyed_uploads(upload_filter: UploadFilter, tag_keys: TagKeys) -> UploadFilter:
    """The filter, set to match uploads without tag keys, too, while there may be some."""
    asked = upload_filter.tag_keys or upload_filter.excluded_tag_keys
    unkeyed = bool(asked) and not tag_keys.are_complete()
    return replace(upload_filter, unkeyed=True) if unkeyed else upload_filter


def require_dates(
    upload_filter: UploadFilter, sort: "Sort", local_dates: LocalDates
) -> UploadFilter:
    """The filter, set to be answered by an index of dates where no upload lacks them.

    Raises:
        BeingPrepared: the order is that of dates, and some uploads may lack them.
    """
    by_date = [bound for bound in upload_filter.bounds if bound.sort == "date"]
    if sort.by != "date" and not by_date:
        return upload_filter
    dated = local_dates.are_complete()
    if sort.by == "date" and not dated:
        raise BeingPrepared
    return replace(upload_filter, dated=dated)


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort order: by one of `SORTS`, then by id."""

    by: str = "upload_time"
    descending: bool = True

    @property
    def field(self) -> str:
        return SORTS[self.by]

    @property
    def keys(self) -> list[tuple[str, int]]:
        """The sort order in the form that PyMongo takes."""
        direction = -1 if self.descending else 1
        return [(self.field, direction), ("_id", direction)]

    def code(self) -> int:
        """A number for the order, for cursors."""
        return [*SORTS].index(self.by) * 2 + self.descending


DEFAULT_SORT = Sort()
