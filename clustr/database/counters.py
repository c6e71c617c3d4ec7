"""Tallies: how many uploads there are of each kind, and how many with each tag, as counted last.

To count takes the longer the more uploads there are. So it is done in the background by one process
for all, which goes through the uploads in the order of their ids, a batch at a time; those who ask
read what the last round found, at the same cost however many uploads there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.collection import Collection

from clustr.database.case_folding import folded, tag_key
from clustr.database.clock import now
from clustr.database.connection import Document, answering
from clustr.database.documents import LIKE_AN_UPLOAD, OF_AN_OBJECT_ID

BATCH = 20_000
KEYED_AT_ONCE = 1000
BEFORE_ALL = ObjectId(bytes(12))
TOTALS = "uploads"
MOST_DAYS = 366

BY_FOLDED = [("folded", 1), ("_id", 1)]
INDEXES = {
    "most_used": {"keys": [("count", -1), ("_id", 1)]},
    "by_folded": {"keys": BY_FOLDED},
}


@dataclass(frozen=True, slots=True)
class Totals:
    """How many uploads there were at a moment.

    Attributes:
        bytes: of all originals together.
        captioned: how many have a caption; None of a tally that did not count them yet.
        days: how many came on each day, in UTC, the newest day first; no more than a year of them.
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
    """One time through all uploads: how far it is, and what it has found.

    Attributes:
        estimated: how many uploads there are, as MongoDB estimated when the round began.
    """

    began_at: datetime
    key: ObjectId
    until: ObjectId
    estimated: int
    after: ObjectId = BEFORE_ALL
    statuses: dict[str, int] = field(default_factory=dict)
    days: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    captioned: int = 0


class Counters:
    """Counts the uploads, and keeps what was counted.

    Args:
        uploads: what is counted.
        totals: where the figures about all uploads are kept.
        tags: where the tags are kept, one document for each, by their keys; see
            `clustr.database.tags`.
        spellings: where is counted how often each tag is written in each way.
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
        self._round: CountingPass | None = None

    def totals(self) -> Totals | None:
        """What was counted last; None before it was done for the first time."""
        with answering():
            found = self._totals.find_one({"_id": TOTALS})
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

    def tags(self, prefix: str, limit: int) -> dict[str, int]:
        """Tags, each as it is written most often, and how many uploads have them.

        Args:
            prefix: with it those that begin so, whatever the case of letters and the marks on them,
                in the order of their letters; else the most used.
        """
        with answering():
            if prefix:
                begin = folded(prefix)
                beginning = {"folded": {"$gte": begin, "$lt": begin + chr(0x10FFFF)}}
                found = self._tags.find({**beginning, "count": {"$gt": 0}}).sort(BY_FOLDED)
            else:
                found = self._tags.find({"count": {"$gt": 0}}).sort([("count", -1), ("_id", 1)])
            # Of an older version they are by what is written.
            return {d.get("name", d["_id"]): d["count"] for d in found.limit(limit)}

    def step(self) -> bool:
        """Count one batch of a round, or begin with one; whether the round is over."""
        with answering():
            if self._round is None:
                self._round = self._begin()
            if not self._count_batch(self._round):
                return False
            self._publish(self._round)
        self._round = None
        return True

    def _begin(self) -> CountingPass:
        newest = self._uploads.find_one(OF_AN_OBJECT_ID, {"_id": 1}, sort=[("_id", -1)])
        estimated = self._uploads.estimated_document_count()
        return CountingPass(now(), ObjectId(), newest["_id"] if newest else BEFORE_ALL, estimated)

    def _count_batch(self, round: CountingPass) -> bool:
        """Count what follows; whether nothing follows any more."""
        left = {"_id": {"$gt": round.after, "$lte": round.until}}
        ends = self._uploads.find(left, {"_id": 1}).sort("_id", 1).skip(BATCH - 1).limit(1)
        end = next(iter(ends), {"_id": round.until})["_id"]
        here = {"$match": {"_id": {"$gt": round.after, "$lte": end}, **LIKE_AN_UPLOAD}}
        self._add(round, here)
        self._add_tags(round, here)
        round.after = end
        return end == round.until

    def _add(self, round: CountingPass, here: Document) -> None:
        day = {"$dateToString": {"date": "$upload_time", "format": "%Y-%m-%d"}}
        kinds = {"status": "$status", "day": day}
        captioned = {"$sum": {"$cond": [{"$gt": ["$caption", ""]}, 1, 0]}}
        sums = {"count": {"$sum": 1}, "bytes": {"$sum": "$size"}, "captioned": captioned}
        group = {"_id": kinds, **sums}
        for found in self._uploads.aggregate([here, {"$group": group}]):
            status, day = found["_id"]["status"], found["_id"]["day"]
            round.statuses[status] = round.statuses.get(status, 0) + found["count"]
            round.days[day] = round.days.get(day, 0) + found["count"]
            round.bytes += found["bytes"]
            round.captioned += found["captioned"]

    def _add_tags(self, round: CountingPass, here: Document) -> None:
        """Add to what this round has counted of each spelling so far.

        No upload has a tag twice, in whatever spelling.
        """
        mine = {"$eq": ["$round", round.key]}
        so_far = {"$cond": [mine, "$so_far", 0]}
        stages: list[Document] = [
            here,
            {"$project": {"tags": 1}},
            {"$unwind": "$tags"},
            {"$match": {"tags": {"$type": "string"}}},
            {"$group": {"_id": "$tags", "so_far": {"$sum": 1}}},
            {"$addFields": {"round": round.key}},
            {
                "$merge": {
                    "into": self._spellings.name,
                    "whenMatched": [
                        {"$set": {"so_far": {"$add": [so_far, "$$new.so_far"]}}},
                        {"$set": {"round": round.key}},
                    ],
                }
            },
        ]
        self._uploads.aggregate(stages)

    def _key_spellings(self) -> None:
        """Write beside the spellings that are new the key of their tag, which MongoDB cannot do."""
        new = self._spellings.find({"key": None}, {"_id": 1})
        while some := list(islice(new, KEYED_AT_ONCE)):
            self._spellings.bulk_write(
                [
                    UpdateOne({"_id": spelling["_id"]}, {"$set": _keys_of(spelling["_id"])})
                    for spelling in some
                ],
                ordered=False,
            )

    def _publish(self, round: CountingPass) -> None:
        """Let what this round has found be what counts."""
        self._key_spellings()
        tag = {
            "name": {"$first": "$_id"},
            "folded": {"$first": "$folded"},
            "count": {"$sum": "$so_far"},
            "round": {"$first": "$round"},
        }
        stages: list[Document] = [
            {"$match": {"round": round.key}},
            {"$sort": {"so_far": -1, "_id": 1}},
            {"$group": {"_id": "$key", **tag}},
            {"$merge": {"into": self._tags.name, "whenMatched": "replace"}},
        ]
        self._spellings.aggregate(stages, allowDiskUse=True)
        for counted in (self._tags, self._spellings):
            counted.delete_many({"round": {"$ne": round.key}})
        days = dict(sorted(round.days.items(), reverse=True)[:MOST_DAYS])
        totals = {"bytes": round.bytes, "statuses": round.statuses, "days": days}
        missed = sum(round.statuses.values()) - round.estimated
        totals |= {"captioned": round.captioned, "missed": missed}
        written = {**totals, "counted_at": round.began_at}
        self._totals.replace_one({"_id": TOTALS}, written, upsert=True)


def _keys_of(spelling: str) -> Document:
    key = tag_key(spelling)
    return {"key": key, "folded": folded(key)}
