"""The seeder: uploads that nobody sent, written straight into the database."""

from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo.collection import Collection

from clustr.catalog.documents import to_document
from clustr.upload import Analysis, State, Status, Upload

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
    upload_id = str(ObjectId())
    upload = Upload(
        id=upload_id,
        original_name=f"photograph-{number}.jpg",
        filename=f"{upload_id}.jpg",
        upload_time=moment,
        updated_at=moment,
        size=200_000 + number,
        content_type="image/jpeg",
        sha256=f"{number:064x}",
        width=1600,
        height=1200,
        status=Status.PENDING,
        analyses=(Analysis(analyzer, 1, State.QUEUED),),
        request_id="seeded",
    )
    written = to_document(upload)
    written["analyses"][0]["priority"] = priority
    return written
