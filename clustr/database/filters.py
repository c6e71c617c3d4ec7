"""Filters of uploads, by the names of the query parameters."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any

from clustr.database.case_folding import tag_key
from clustr.database.documents import FIRST_MOMENT
from clustr.database.result_conditions import Condition
from clustr.database.upload_filter import RangeLimit, UploadFilter
from clustr.search.query import parse
from clustr.search.terms import Stemming

# The filters that are limits of ranges: the field, and how it is compared.
RANGE_FILTERS = {
    "uploaded_after": ("upload_time", "gte"),
    "uploaded_before": ("upload_time", "lt"),
    "taken_after": ("taken_at", "gte"),
    "taken_before": ("taken_at", "lt"),
    "updated_after": ("updated_at", "gte"),
    **{
        f"{which}_{name}": (name, operator)
        for name in ("width", "height", "size")
        for which, operator in (("min", "gte"), ("max", "lte"))
    },
}
# An upload with any `taken_at`.
DATED = RangeLimit("taken_at", "gte", FIRST_MOMENT)


def filter_from_query(
    filters: Mapping[str, Any], stemming: Stemming, conditions: Iterable[Condition] = ()
) -> UploadFilter:
    """The `UploadFilter` of query parameters, with conditions on results besides.

    Args:
        filters: loaded values by the names of the parameters; unknown names are ignored. The last
            word of `q` may be the beginning of a word where `prefix` is `on`. In `conditions` are
            the fields of further ones.
        stemming: of the words of `q`.

    Raises:
        InvalidInput: `q` cannot be understood.
    """
    analyzer = filters.get("analyzer")
    bounds = [range_limit(name, filters[name]) for name in RANGE_FILTERS if name in filters]
    # Any other limit of these leaves out uploads without `taken_at`, too.
    limited = {bound.field for bound in bounds}
    if filters.get("undated") is False and not limited & {"taken_at", "taken_at_local"}:
        bounds.append(DATED)
    return UploadFilter(
        status=filters.get("status"),
        tag_keys=_tag_keys(filters.get("tag", ())),
        content_type=filters.get("content_type"),
        analysis=(analyzer, filters["analysis_status"]) if analyzer else None,
        duplicate=filters.get("duplicate"),
        sha256=filters.get("sha256"),
        ids=filters.get("ids", ()),
        bounds=tuple(bounds),
        conditions=(*conditions, *(Condition(**each) for each in filters.get("conditions", ()))),
        excluded_tag_keys=_tag_keys(filters.get("tag_not", ())),
        untagged=filters.get("untagged"),
        undated=filters.get("undated", False),
        search=parse(filters["q"], stemming, filters.get("prefix") == "on")
        if "q" in filters
        else None,
    )


def range_limit(name: str, value: Any) -> RangeLimit:
    """The limit that is one of `RANGE_FILTERS`.

    Args:
        value: for a time also a day as text (`2024-07-01`): it begins when the clock showed that
            where the picture was taken.
    """
    field, operator = RANGE_FILTERS[name]
    if isinstance(value, str):
        begin = datetime.combine(date.fromisoformat(value), time.min, UTC)
        return RangeLimit(f"{field}_local", operator, begin)
    return RangeLimit(field, operator, value)


def _tag_keys(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(tag_key, tags)))
