"""Counts of one owner's uploads, made when they are asked for.

The counts that workers keep are of all uploads. These are of the owner's newest `MAX_COUNTED` at
most, so that what they cost is limited; they are read by the index of the owner.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo.collection import Collection

from clustr.database.case_folding import fold_text
from clustr.database.clock import now
from clustr.database.connection import NAIVE_UTC, Document, translate_errors
from clustr.database.counters import MAX_DAYS, Totals
from clustr.database.documents import NEWEST_FIRST
from clustr.database.statistics import AnalyzerCounts, Durations, latest_durations
from clustr.database.upload_counts import COUNTED_TOTAL, MANY_SECONDS, count_stages, union
from clustr.database.uploads import NEWEST_INDEX
from clustr.domain.models import UNFINISHED
from clustr.plugins import Analyzer

MAX_COUNTED = 20_000
NEWEST: list[Document] = [{"$sort": dict(NEWEST_FIRST)}, {"$limit": MAX_COUNTED}]


class OwnUploadCounts:
    """The number of an owner's uploads, for pages of listings.

    As that of all it is counted up to `COUNTED_TOTAL`; after a higher count there is no other for
    `MANY_SECONDS`. There is no estimate for an owner.
    """

    def __init__(self, uploads: Collection[Document]):
        self._uploads = uploads.with_options(codec_options=NAIVE_UTC)
        self._many_until = float("-inf")

    def aggregate_with_count(
        self, pipeline: list[Document], options: Mapping[str, Any]
    ) -> tuple[list[Document], int | None]:
        """The result of an aggregation, and how many uploads there are, in one round trip.

        Args:
            pipeline: its documents must have an `_id`; when it is empty, only the number is read.
            options: options for `Collection.aggregate`.

        Returns:
            the documents, and the number; None for too many.
        """
        is_count_due = time.monotonic() >= self._many_until
        stages = [*pipeline]
        if is_count_due:
            stages += [union(self._uploads, count_stages())] if pipeline else count_stages()
        found = [*self._uploads.aggregate(stages, **options)] if stages else []
        documents = [each for each in found if "_id" in each]
        if not is_count_due:
            return documents, None
        count = sum(each["counted"] for each in found if "_id" not in each)
        if count <= COUNTED_TOTAL:
            return documents, count
        self._many_until = time.monotonic() + MANY_SECONDS
        return documents, None


class OwnCounters:
    """How many uploads an owner has of each kind, and with each tag."""

    def __init__(self, uploads: Collection[Document]):
        self._uploads = uploads

    def totals(self) -> Totals:
        """The figures about the owner's newest uploads."""
        day = {"$dateToString": {"date": "$upload_time", "format": "%Y-%m-%d"}}
        sums = {
            "count": {"$sum": 1},
            "bytes": {"$sum": "$size"},
            "captioned": {"$sum": {"$cond": [{"$gt": ["$caption", ""]}, 1, 0]}},
        }
        group = {"$group": {"_id": {"status": "$status", "day": day}, **sums}}
        stages = [*NEWEST, group, {"$sort": {"_id": 1}}]
        counted_at = now()
        with translate_errors():
            groups = [*self._uploads.aggregate(stages, hint=NEWEST_INDEX)]
        statuses, days = Counter[str](), Counter[str]()
        for group in groups:
            statuses[group["_id"]["status"]] += group["count"]
            days[group["_id"]["day"]] += group["count"]
        return Totals(
            uploads=statuses.total(),
            bytes=sum(group["bytes"] for group in groups),
            captioned=sum(group["captioned"] for group in groups),
            statuses=statuses,
            days=dict(sorted(days.items(), reverse=True)[:MAX_DAYS]),
            counted_at=counted_at,
        )

    def counted_at(self) -> datetime:
        """As of `Counters.counted_at`; they are counted whenever somebody asks."""
        return now()

    def tags(self, prefix: str, limit: int) -> dict[str, int]:
        """As of `Counters.tags`."""
        found = self._counted_tags(prefix)
        if prefix:
            found.sort(key=lambda tag: (fold_text(tag[0]), tag[0]))
        return {name: count for _, name, count in found[:limit]}

    def most_used_tags(self, prefix: str, limit: int) -> dict[str, int]:
        """As of `Counters.most_used_tags`."""
        return {name: count for _, name, count in self._counted_tags(prefix)[:limit]}

    def _counted_tags(self, prefix: str) -> list[tuple[str, str, int]]:
        """The tags that begin so, the most used first: key, most frequent spelling, and count."""
        spelled = {"$zip": {"inputs": ["$tag_keys", "$tags"]}}
        stages = [
            *NEWEST,
            {"$match": {"tag_keys.0": {"$exists": True}}},
            {"$project": {"tag": spelled}},
            {"$unwind": "$tag"},
            {"$group": {"_id": "$tag", "count": {"$sum": 1}}},
        ]
        with translate_errors():
            groups = [*self._uploads.aggregate(stages, hint=NEWEST_INDEX)]
        spellings: dict[str, Counter[str]] = {}
        begin = fold_text(prefix)
        for group in groups:
            key, spelling = group["_id"]
            if fold_text(key).startswith(begin):
                spellings.setdefault(key, Counter())[spelling] += group["count"]
        counted = [
            (key, min(each, key=lambda name: (-each[name], name)), each.total())
            for key, each in spellings.items()
        ]
        return sorted(counted, key=lambda tag: (-tag[2], tag[0]))


class OwnStatistics:
    """The analyses of an owner's newest uploads."""

    def __init__(self, uploads: Collection[Document]):
        self._uploads = uploads

    def all(self) -> dict[str, AnalyzerCounts]:
        """The counts by the names of the analyzers; how fast they are is left out."""
        unfinished = {"$in": ["$analyses.state", [*UNFINISHED]]}
        oldest = {"$min": {"$cond": [unfinished, "$analyses.due_at", None]}}
        kinds = {"name": "$analyses.name", "state": "$analyses.state"}
        stages = [
            *NEWEST,
            {"$project": {f"analyses.{name}": 1 for name in ("name", "state", "due_at")}},
            {"$unwind": "$analyses"},
            {"$group": {"_id": kinds, "count": {"$sum": 1}, "oldest": oldest}},
            {"$sort": {"_id": 1}},
        ]
        counted_at = now()
        with translate_errors():
            groups = [*self._uploads.aggregate(stages, hint=NEWEST_INDEX)]
        by_name: dict[str, list[Document]] = {}
        for group in groups:
            by_name.setdefault(group["_id"]["name"], []).append(group)
        return {name: _counts(groups, counted_at) for name, groups in by_name.items()}

    def durations(self, analyzer: Analyzer) -> Durations | None:
        """How long one image took in the latest runs of this owner's; None when there were none."""
        return latest_durations(self._uploads, analyzer)


def _counts(groups: Sequence[Document], counted_at: datetime) -> AnalyzerCounts:
    times = [group["oldest"] for group in groups if group["oldest"]]
    return AnalyzerCounts(
        states={group["_id"]["state"]: group["count"] for group in groups},
        oldest_waiting_at=min(times, default=None),
        rate_per_minute=None,
        durations=None,
        stale=None,
        missing=None,
        counted_at=counted_at,
    )
