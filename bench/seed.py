"""The seeder: uploads that nobody sent, written straight into the database."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import IndexModel, UpdateOne
from pymongo.collection import Collection

from bench.captions import counted_terms, search_field, words_of
from clustr.database import INDEXES, new_id, result_indexes
from clustr.database.documents import ORIGINAL, facets, to_document
from clustr.database.tags import tag_fields
from clustr.domain.models import Analysis, State, Status, Upload

BATCH = 1000
SECONDS_APART = 10
BACK_FILL = 10  # the priority of what a back-fill has queued; that of an upload is 0


def seed(uploads: Collection, count: int, analyzer: str) -> None:
    """Insert uploads, the newest last, each with one analysis that a back-fill has queued."""
    newest = datetime.now(UTC)
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        ages = ((n, timedelta(seconds=SECONDS_APART * (count - n))) for n in numbers)
        uploads.insert_many([document(n, newest - age, analyzer, BACK_FILL) for n, age in ages])


def document(number: int, moment: datetime, analyzer: str, priority: int) -> dict[str, Any]:
    """An upload with one analysis that is queued."""
    written = to_document(new_upload(number, moment, [analyzer]))
    written["analyses"][0]["priority"] = priority
    return written


def new_upload(number: int, moment: datetime, analyzers: Sequence[str]) -> Upload:
    """An upload as it is when it came in, of bytes that no other has."""
    upload_id = new_id()
    return Upload(
        id=upload_id,
        original_name=f"photograph {number}.jpg",
        filename=f"{upload_id}.jpg",
        upload_time=moment,
        updated_at=moment,
        size=200_000 + number,
        content_type="image/jpeg",
        sha256=hashlib.sha256(upload_id.encode()).hexdigest(),
        width=1600,
        height=1200,
        status=Status.PENDING,
        analyses=tuple(Analysis(name, 1, State.QUEUED) for name in analyzers),
        request_id="seeded",
    )


# A library as it looks when its images are in.
NAME = "photograph"  # what the names of all files begin with
RESULTS = "results."  # what the names of the indexes on results begin with
ANALYZERS = ("dimensions", "blip", "exif", "palette", "phash")
LIBRARY_BATCH = 5000
LIBRARY_BEGAN = datetime(2024, 1, 1, tzinfo=UTC)


def seed_library(uploads: Collection, count: int) -> None:
    """Let there be so many uploads whose analyses have ended, with captions and tags.

    Those that are there stay, newer ones are added. Two of three have a time when they were taken;
    one of 50 is pending, one of 100 failed, one of 10 a duplicate. What is the same of all is made
    once. The indexes are made at the end, all at once: it takes a tenth of the time.
    """
    there = uploads.estimated_document_count()
    if there >= count:
        return
    fields = [name.removeprefix(RESULTS) for name in names_of(uploads) if name.startswith(RESULTS)]
    uploads.drop_indexes()
    pattern = document(0, LIBRARY_BEGAN, ANALYZERS[0], 0)
    for first in range(there, count, LIBRARY_BATCH):
        numbers = range(first, min(first + LIBRARY_BATCH, count))
        moments = ((n, LIBRARY_BEGAN + timedelta(seconds=SECONDS_APART * n)) for n in numbers)
        uploads.insert_many((in_library(pattern, *each) for each in moments), ordered=False)
    declared = INDEXES | result_indexes(fields)
    uploads.create_indexes([model(name, **index) for name, index in declared.items()])
    seed_vocabulary(uploads.database["search_vocabulary"], range(there, count))
    uploads.database.client.admin.command("fsync")


def seed_vocabulary(vocabulary: Collection, numbers: Sequence[int]) -> None:
    """Add the terms of these uploads of the library, and how many of them have each."""
    counts = counted_terms(map(mixed, numbers), NAME)
    moment = datetime.now(UTC)
    vocabulary.bulk_write(
        [
            UpdateOne({"_id": term}, {"$inc": {"count": n}, "$set": {"counted_at": moment}}, True)
            for term, n in counts.items()
        ],
        ordered=False,
    )


def mixed(number: int) -> int:
    """Another number for each, so that no order is that of another."""
    return number * 2_654_435_761 % 2**32


def names_of(uploads: Collection) -> list[str]:
    """The names of all indexes."""
    return [*uploads.index_information()]


def model(name: str, keys: list[tuple[str, Any]], **options: Any) -> IndexModel:
    """An index that is declared."""
    return IndexModel(keys, name=name, **options)


def in_library(pattern: dict[str, Any], number: int, moment: datetime) -> dict[str, Any]:
    """An upload of the library, made of the document of another."""
    # Of ten uploads one has the bytes of that before it.
    original = number - 1 if number % 10 == 3 else number
    sha256 = f"{original:064x}"
    key = key_of(number)
    status = "pending" if number % 50 == 7 else "error" if number % 100 == 9 else "processed"
    content_type = ("image/jpeg", "image/jpeg", "image/png", "image/webp")[number % 4]
    other = mixed(number)
    words = words_of(other)
    name = f"{NAME} {other % 100_000}.jpg"
    taken_at = moment - timedelta(minutes=other % 10**6) if number % 3 else None
    dates = dict.fromkeys(("taken_at", "taken_at_local"), taken_at) if taken_at else {}
    written = {
        **pattern,
        "_id": key,
        "original_name": name,
        "filename": f"{key}.jpg",
        "upload_time": moment,
        "updated_at": moment,
        "sort_date": taken_at or moment,
        "size": 100_000 + other % 5_000_000,
        "content_type": content_type,
        "sha256": sha256,
        "dimensions": {"width": 800 + other % 4000, "height": 600 + other % 3000},
        "status": status,
        "duplicate_of": key_of(original) if original != number else None,
        "facets": facets(status, content_type, original != number),
        "caption": words.caption,
        **tag_fields(words.tags),
        "search": search_field(name, words, taken_at.date() if taken_at else None),
        "analyses": [analysis(name, status, moment) for name in ANALYZERS],
    }
    written.pop(ORIGINAL, None)
    if original == number:
        written[ORIGINAL] = sha256
    return written | dates


def key_of(number: int) -> ObjectId:
    """The key of an upload of the library."""
    return ObjectId(number.to_bytes(12, "big"))


def analysis(name: str, status: str, moment: datetime) -> dict[str, Any]:
    """An analysis of an upload of this status."""
    state = {"pending": "queued", "error": "failed", "processed": "succeeded"}[status]
    return {
        "name": name,
        "version": 1,
        "state": state if name == "blip" else "succeeded",
        "priority": 0,
        "due_at": moment,
        "attempts": 1,
        "crashes": 0,
        "started_at": moment,
        "finished_at": moment,
        "provenance": {"plugin": name, "plugin_version": "0.1.0", "model": {}, "config_hash": "0"},
        "result": {"number": 1},
    }
