"""Queries of listings: conditions, and the range of the index that answers them in an order."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bson import MaxKey, MinKey, ObjectId
from pymongo.cursor import Cursor
from pymongo.errors import OperationFailure

from clustr.database.analysis_updates import with_analysis
from clustr.database.connection import Document
from clustr.database.documents import ANY_FACET, FIRST_MOMENT
from clustr.database.listing_cursors import CursorPosition
from clustr.database.local_dates import LOCAL_DATE, SORT_DATE, local_date_condition
from clustr.database.result_conditions import result_conditions
from clustr.database.search_conditions import search_condition
from clustr.database.upload_filter import (
    INDEXED_SORTS,
    INDEXED_SORTS_OF_OWNERS,
    RANGE_FIELDS,
    SORTS,
    Sort,
    UploadFilter,
    indexed_sorts,
)
from clustr.database.uploads import NEWEST_INDEX

# The first fields of the indexes for each kind of filter.
INDEX_PREFIXES = {
    "facets": [("facets", 1)],
    "tag_keys": [("tag_keys", 1)],
    "analyses": [("analyses.name", 1), ("analyses.state", 1)],
}
# The indexes for tags leave out uploads without tags, as all uploads are at first.
PARTIAL_FILTERS = {"tag_keys": {"partialFilterExpression": {"tag_keys": {"$exists": True}}}}
# In the order of dates, those that fall back on the time of the upload are told from the others.
INDEX_SUFFIXES = {"date": [LOCAL_DATE]}
# The indexes for the orders in which all uploads are listed without any filter.
INDEXES_OF_ALL = {"upload_time": NEWEST_INDEX, "updated_at": "last_changed"}


def _indexes(sorts_by_lead: Mapping[str, Sequence[str]]) -> dict[str, Document]:
    """The indexes for these kinds of filters, each in these orders, and for no filter at all."""
    indexes: dict[str, Document] = {
        f"{lead}_by_{sort}": {
            "keys": [
                *INDEX_PREFIXES[lead],
                *((field, -1) for field in (SORTS[sort], "_id", *INDEX_SUFFIXES.get(sort, ()))),
            ],
            **PARTIAL_FILTERS.get(lead, {}),
        }
        for lead, sorts in sorts_by_lead.items()
        for sort in sorts
    }
    return indexes | {INDEXES_OF_ALL["updated_at"]: {"keys": [("updated_at", -1), ("_id", -1)]}}


INDEXES = _indexes(INDEXED_SORTS)
# Those that have another beside them for the uploads of one owner.
INDEXES_WITH_OWNERS = _indexes(INDEXED_SORTS_OF_OWNERS)

# MongoDB's error code for a range that ends before it begins.
EMPTY_RANGE = 51175


def index_for(upload_filter: UploadFilter, sort: Sort, owner: str | None) -> str | None:
    """The index that answers a filter by itself; None where MongoDB has to choose a plan.

    Args:
        owner: whose uploads are asked for; None: all are.
    """
    leads = upload_filter.index_prefixes
    of_others = [bound for bound in upload_filter.bounds if bound.sort != sort.by]
    is_undated = sort.by == "date" and upload_filter.bounds and not upload_filter.dated
    # Few uploads have the same SHA-256, or one of some ids: MongoDB finds and sorts them.
    if (
        len(leads) > 1
        or of_others
        or is_undated
        or (upload_filter.undated and sort.by != "taken_at")
        or upload_filter.excluded_tag_keys
        or upload_filter.untagged is not None
        or upload_filter.conditions
        or upload_filter.sha256
        or upload_filter.ids
        or upload_filter.search
        or upload_filter.unkeyed
    ):
        return None
    if not leads and sort.by in INDEXES_OF_ALL:
        return INDEXES_OF_ALL[sort.by]
    lead = leads[0] if leads else "facets"
    return f"{lead}_by_{sort.by}" if sort.by in indexed_sorts(owner)[lead] else None


IndexKey = list[tuple[str, Any]]


def index_range(
    upload_filter: UploadFilter, sort: Sort, position: CursorPosition | None = None
) -> tuple[IndexKey, IndexKey]:
    """The range of the index that holds the matching uploads, from a position on.

    Returns:
        the first key (inclusive) and the last key (exclusive). Every index is descending.
    """
    value_from: Any = MaxKey()
    id_from: Any = MaxKey()
    value_to: Any = MinKey()
    id_to: Any = MinKey()
    for bound in upload_filter.bounds:
        if bound.operator == "gte":
            value_to = bound.value
        else:
            value_from, id_from = bound.value, MaxKey() if bound.operator == "lte" else MinKey()
    if upload_filter.bounds and value_to == MinKey():
        value_to, id_to = None, MaxKey()  # Uploads without the field are in no range.
    if upload_filter.undated and sort.by == "taken_at":
        value_from = value_to = None
    if position and sort.descending:
        value_from, id_from = position.value, _preceding_id(position.key)
    elif position:
        value_to, id_to = position.value, position.key
    lead = _index_prefix(upload_filter, sort)
    return (
        [*lead, (sort.field, value_from), ("_id", id_from), *_index_suffix(sort)],
        [*lead, (sort.field, value_to), ("_id", id_to), *_index_suffix(sort)],
    )


def range_up_to(
    range: tuple[IndexKey, IndexKey],
    last: CursorPosition | None,
    upload_filter: UploadFilter,
    sort: Sort,
) -> tuple[IndexKey, IndexKey]:
    """A range of the index, cut at an upload in it; an ascending order begins at its end."""
    if last is None:
        return range
    lead = _index_prefix(upload_filter, sort)
    key = [*lead, (sort.field, last.value), ("_id", last.key), *_index_suffix(sort)]
    return (range[0], key) if sort.descending else (key, range[1])


def _index_prefix(upload_filter: UploadFilter, sort: Sort) -> IndexKey:
    """The first fields of the keys of that range."""
    if upload_filter.tag_keys:
        return [("tag_keys", upload_filter.tag_keys[0])]
    if upload_filter.analysis:
        name, state = upload_filter.analysis
        return [("analyses.name", name), ("analyses.state", state)]
    if upload_filter.facets:
        return [("facets", upload_filter.facets[0])]
    return [] if sort.by in INDEXES_OF_ALL else [("facets", ANY_FACET)]


def _index_suffix(sort: Sort) -> IndexKey:
    """The last fields of those keys, which leave the order as it is: before all with an id."""
    return [(name, MaxKey()) for name in INDEX_SUFFIXES.get(sort.by, ())]


def find_in_range(found: Cursor[Document], range: tuple[IndexKey, IndexKey]) -> list[Document]:
    """The documents of a query within a range of an index."""
    try:
        return list(found.min(range[0]).max(range[1]))
    except OperationFailure as error:
        if error.code != EMPTY_RANGE:  # A client has forged a cursor.
            raise
        return []


def filter_query(
    upload_filter: UploadFilter, sort: Sort, position: CursorPosition | None = None
) -> Document:
    """The query for the matching uploads, from a position on.

    One branch is for uploads with the same sort value as at the position, one for those after it.
    """
    same = _equality_conditions(upload_filter, sort)
    within: Document = {}
    for bound in upload_filter.bounds:
        within.setdefault(RANGE_FIELDS[bound.field], {})[f"${bound.operator}"] = bound.value
    if LOCAL_DATE in within and sort.by == "date":
        within[SORT_DATE] = within[LOCAL_DATE]
    if LOCAL_DATE in within and not upload_filter.dated:
        same = {"$and": [same, local_date_condition(within.pop(LOCAL_DATE))]}
    sort_range = within.pop(sort.field, {})
    same |= within
    if position is None:
        return same | ({sort.field: sort_range} if sort_range else {})
    follow = {"$lt": position.key} if sort.descending else {"$gt": position.key}
    level = {**same, sort.field: position.value, "_id": follow}
    beyond = _value_condition_after(sort, position.value, sort_range)
    return {"$or": [level, {**same, sort.field: beyond}]} if beyond else level


def _equality_conditions(upload_filter: UploadFilter, sort: Sort) -> Document:
    """The conditions that do not depend on the sort order."""
    conditions: list[Document] = []
    if upload_filter.unkeyed:
        conditions += map(_tagged_with, upload_filter.tag_keys)
    else:
        conditions += [{"tag_keys": key} for key in upload_filter.tag_keys]
    if upload_filter.sha256:
        conditions.append({"sha256": upload_filter.sha256})
    if upload_filter.ids:
        # Nested, so that it is kept beside a position.
        conditions.append({"$and": [{"_id": {"$in": [*map(ObjectId, upload_filter.ids)]}}]})
    if upload_filter.analysis:
        name, state = upload_filter.analysis
        conditions.append(with_analysis(name=name, state=state))
    facets = upload_filter.facets
    if not conditions and not facets and sort.by not in INDEXES_OF_ALL:
        facets = [ANY_FACET]
    conditions += [{"facets": facet} for facet in facets]
    conditions += _conditions_without_index(upload_filter)
    conditions += result_conditions(upload_filter.conditions)
    if upload_filter.search_plan:
        conditions.append(upload_filter.search_plan.condition())
    elif upload_filter.search:
        conditions.append(search_condition(upload_filter.search))
    if len(conditions) == 1:
        return dict(conditions[0])
    return {"$and": conditions} if conditions else {}


def _conditions_without_index(upload_filter: UploadFilter) -> list[Document]:
    """The conditions on what an upload has not."""
    conditions: list[Document] = []
    if upload_filter.unkeyed:
        conditions += [{"$nor": [_tagged_with(key)]} for key in upload_filter.excluded_tag_keys]
    elif upload_filter.excluded_tag_keys:
        conditions.append({"tag_keys": {"$nin": [*upload_filter.excluded_tag_keys]}})
    if upload_filter.untagged is not None:
        conditions.append({"tags.0": {"$exists": not upload_filter.untagged}})
    if upload_filter.undated:
        # Nested, so that it is kept beside a range or a position in the order of `taken_at`.
        conditions.append({"$and": [{"taken_at": None}]})
    return conditions


def _tagged_with(key: str) -> Document:
    """The condition for a tag with this key, which uploads without tag keys can meet, too."""
    # MongoDB does not fold `ß` to `ss`.
    written = re.escape(key).replace("ss", "(?:ss|ß)")
    spelled = {"$regex": rf"^(?:{written})\z", "$options": "i"}
    return {"$or": [{"tag_keys": key}, {"tag_keys": None, "tags": spelled}]}


def _value_condition_after(sort: Sort, value: Any, sort_range: Document) -> Document | None:
    """The condition for sort values after this one, within a range; None when there are none.

    Uploads without the field are sorted before all others.
    """
    if sort.descending:
        if value is None:
            return None
        # This matches uploads without the field, too.
        return {**sort_range, "$lt": value} if sort_range else {"$not": {"$gte": value}}
    if value is None:
        return {"$gte": FIRST_MOMENT}
    return {**sort_range, "$gt": value}


def _preceding_id(key: ObjectId) -> ObjectId:
    """The id before this one. No upload has the lowest id, which has none before it."""
    number = int.from_bytes(key.binary, "big") - 1
    return ObjectId(max(number, 0).to_bytes(12, "big"))
