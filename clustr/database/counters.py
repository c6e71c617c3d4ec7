"""Counters: how many uploads there are of each kind, and how many with each tag.

The time to count grows with the number of uploads. So one process counts in the background: it goes
through the uploads in the order of their ids, a batch at a time. Readers get the result of the last
finished pass, at the same cost however many uploads there are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.collection import Collection

from clustr.database import most_used
from clustr.database.case_folding import fold_text, tag_key
from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import HAS_OBJECT_ID, LOOKS_LIKE_UPLOAD

BATCH = 20_000
KEY_BATCH = 1000
LOWEST_ID = ObjectId(bytes(12))
TOTALS_ID = "uploads"
UNDER_WAY_ID = "under way"  # names the pass that was begun last, until it is over
MAX_DAYS = 366

BY_FOLDED = [("folded", 1), ("_id", 1)]
INDEXES = {**most_used.INDEXES, "by_folded": {"keys": BY_FOLDED}}


@dataclass(frozen=True, slots=True)
class Totals:
    """How many uploads there were at a moment.

    Attributes:
        bytes: the size of all originals together.
        captioned: how many have a caption; None if an older version counted.
        days: the number of uploads for each day in UTC (`2024-05-31`), the newest first, for at
            most `MAX_DAYS` days.
        counted_at: when the counting began.
    """

    uploads: int
    bytes: int
    captioned: int | None
    statuses: Mapping[str, int]
    days: Mapping[str, int]
    counted_at: datetime


@dataclass(slots=True)
class CountingPass:
    """One pass through all uploads: its progress, and the counts so far.

    Attributes:
        key: the id of the pass.
        until: the newest upload when the pass began.
        estimated: MongoDB's own estimate of the number of uploads when the pass began.
        after: the last upload that was counted.
    """

    began_at: datetime
    key: ObjectId
    until: ObjectId
    estimated: int
    after: ObjectId = LOWEST_ID
    statuses: dict[str, int] = field(default_factory=dict)
    days: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    captioned: int = 0


class Counters:
    """Counts the uploads, and stores the counts.

    Args:
        uploads: the collection to count.
        totals: the collection for the figures about all uploads.
        tags: the collection for the tags, one document for each, by its key; see
            `clustr.database.tags`.
        spellings: the collection for the number of uses of each spelling of each tag.
    """

    def __init__(
        self,
        uploads: Collection[Document],
        totals: Collection[Document],
        tags: Collection[Document],
        spellings: Collection[Document],
    ):
        self._uploads = uploads
        self._totals = totals
        self._tags = tags
        self._spellings = spellings
        self._pass: CountingPass | None = None

    def totals(self) -> Totals | None:
        """The totals of the last finished pass; None before the first one."""
        with translate_errors():
            found = self._totals.find_one({"_id": TOTALS_ID})
        if found is None:
            return None
        return Totals(
            uploads=sum(found["statuses"].values()),
            bytes=found["bytes"],
            captioned=found.get("captioned"),
            statuses=found["statuses"],
            days=found["days"],
            counted_at=found["counted_at"],
        )

    def counted_at(self) -> datetime | None:
        """When the last finished pass began; None before the first one."""
        with translate_errors():
            found = self._totals.find_one({"_id": TOTALS_ID}, {"counted_at": 1})
        return found["counted_at"] if found else None

    def tags(self, prefix: str, limit: int) -> dict[str, int]:
        """The number of uploads for each tag, in the most frequent spelling of the tag.

        Args:
            prefix: only tags that begin with it, ignoring case and marks, in alphabetical order;
                when it is empty, the most used tags.
        """
        with translate_errors():
            if prefix:
                begin = fold_text(prefix)
                beginning = {"folded": {"$gte": begin, "$lt": begin + chr(0x10FFFF)}}
                found = self._tags.find({**beginning, "count": {"$gt": 0}}).sort(BY_FOLDED)
            else:
                found = self._tags.find({"count": {"$gt": 0}}).sort([("count", -1), ("_id", 1)])
            return _counts_by_name(found.limit(limit))

    def most_used_tags(self, prefix: str, limit: int) -> dict[str, int]:
        """The same for the most used of the tags that begin so, the most used first."""
        begin = fold_text(prefix)
        if not begin:
            return self.tags("", limit)
        beginning = {"folded": {"$gte": begin, "$lt": begin + chr(0x10FFFF)}}
        with translate_errors():
            return _counts_by_name(most_used.most_used(self._tags, beginning, "by_folded", limit))

    def step(self) -> bool:
        """Count one batch of the current pass, or of a new one; return whether the pass is over."""
        with translate_errors():
            # A pass that fails may have counted a part of its batch, and is not gone on with.
            counting_pass, self._pass = self._pass, None
            if counting_pass is None or not self._is_under_way(counting_pass):
                counting_pass = self._begin()
            if not self._count_batch(counting_pass):
                self._pass = counting_pass
                return False
            if not self._is_under_way(counting_pass):
                return False  # This process was halted, and its counts would be those of no pass.
            self._publish(counting_pass)
        return True

    def _begin(self) -> CountingPass:
        newest = self._uploads.find_one(HAS_OBJECT_ID, {"_id": 1}, sort=[("_id", -1)])
        estimated = self._uploads.estimated_document_count()
        until = newest["_id"] if newest else LOWEST_ID
        counting_pass = CountingPass(now(), ObjectId(), until, estimated)
        self._totals.replace_one({"_id": UNDER_WAY_ID}, {"key": counting_pass.key}, upsert=True)
        return counting_pass

    def _is_under_way(self, counting_pass: CountingPass) -> bool:
        """Whether no other process has begun a pass since, and overwritten counts of this one."""
        return self._totals.find_one({"_id": UNDER_WAY_ID, "key": counting_pass.key}) is not None

    def _count_batch(self, counting_pass: CountingPass) -> bool:
        """Count the next batch; return whether it was the last one."""
        left = {"_id": {"$gt": counting_pass.after, "$lte": counting_pass.until}}
        ends = self._uploads.find(left, {"_id": 1}).sort("_id", 1).skip(BATCH - 1).limit(1)
        end = next(iter(ends), {"_id": counting_pass.until})["_id"]
        here = {"$match": {"_id": {"$gt": counting_pass.after, "$lte": end}, **LOOKS_LIKE_UPLOAD}}
        self._add_totals(counting_pass, here)
        self._add_tags(counting_pass, here)
        counting_pass.after = end
        return end == counting_pass.until

    def _add_totals(self, counting_pass: CountingPass, here: Document) -> None:
        day = {"$dateToString": {"date": "$upload_time", "format": "%Y-%m-%d"}}
        kinds = {"status": "$status", "day": day}
        captioned = {"$sum": {"$cond": [{"$gt": ["$caption", ""]}, 1, 0]}}
        sums = {"count": {"$sum": 1}, "bytes": {"$sum": "$size"}, "captioned": captioned}
        group = {"_id": kinds, **sums}
        for found in self._uploads.aggregate([here, {"$group": group}]):
            status, day = found["_id"]["status"], found["_id"]["day"]
            counting_pass.statuses[status] = counting_pass.statuses.get(status, 0) + found["count"]
            counting_pass.days[day] = counting_pass.days.get(day, 0) + found["count"]
            counting_pass.bytes += found["bytes"]
            counting_pass.captioned += found["captioned"]

    def _add_tags(self, counting_pass: CountingPass, here: Document) -> None:
        """Add the tags of a batch to the counts of this pass, by spelling.

        No upload has a tag twice, not even in two spellings.
        """
        mine = {"$eq": ["$round", counting_pass.key]}
        so_far = {"$cond": [mine, "$so_far", 0]}
        stages: list[Document] = [
            here,
            {"$project": {"tags": 1}},
            {"$unwind": "$tags"},
            {"$match": {"tags": {"$type": "string"}}},
            {"$group": {"_id": "$tags", "so_far": {"$sum": 1}}},
            {"$addFields": {"round": counting_pass.key}},
            {
                "$merge": {
                    "into": self._spellings.name,
                    "whenMatched": [
                        {"$set": {"so_far": {"$add": [so_far, "$$new.so_far"]}}},
                        {"$set": {"round": counting_pass.key}},
                    ],
                }
            },
        ]
        self._uploads.aggregate(stages)

    def _key_spellings(self) -> None:
        """Store the tag keys of new spellings, which MongoDB cannot compute."""
        new = self._spellings.find({"key": None}, {"_id": 1})
        while some := list(islice(new, KEY_BATCH)):
            self._spellings.bulk_write(
                [
                    UpdateOne({"_id": spelling["_id"]}, {"$set": _spelling_keys(spelling["_id"])})
                    for spelling in some
                ],
                ordered=False,
            )

    def _publish(self, counting_pass: CountingPass) -> None:
        """Publish the counts of a finished pass."""
        self._key_spellings()
        tag = {
            "name": {"$first": "$_id"},
            "folded": {"$first": "$folded"},
            "count": {"$sum": "$so_far"},
            "round": {"$first": "$round"},
        }
        stages: list[Document] = [
            {"$match": {"round": counting_pass.key}},
            {"$sort": {"so_far": -1, "_id": 1}},
            {"$group": {"_id": "$key", **tag}},
            {"$merge": {"into": self._tags.name, "whenMatched": "replace"}},
        ]
        self._spellings.aggregate(stages, allowDiskUse=True)
        for counted in (self._tags, self._spellings):
            counted.delete_many({"round": {"$ne": counting_pass.key}})
        days = dict(sorted(counting_pass.days.items(), reverse=True)[:MAX_DAYS])
        totals = {"bytes": counting_pass.bytes, "statuses": counting_pass.statuses, "days": days}
        missed = sum(counting_pass.statuses.values()) - counting_pass.estimated
        totals |= {"captioned": counting_pass.captioned, "missed": missed}
        written = {**totals, "counted_at": counting_pass.began_at}
        self._totals.replace_one({"_id": TOTALS_ID}, written, upsert=True)
        self._totals.delete_one({"_id": UNDER_WAY_ID, "key": counting_pass.key})


def _counts_by_name(tags: Iterable[Document]) -> dict[str, int]:
    # Documents of an older version have the tag itself as their `_id`.
    named = ((tag, tag.get("name")) for tag in tags)
    return {tag["_id"] if name is None else name: tag["count"] for tag, name in named}


def _spelling_keys(spelling: str) -> Document:
    key = tag_key(spelling)
    return {"key": key, "folded": fold_text(key)}
