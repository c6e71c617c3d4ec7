"""Uploads with analyses in any state, written and changed by `clustr.database` alone."""

from datetime import timedelta
from typing import Any

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database import Database, FinishedAnalysis, new_id, now
from clustr.domain.models import Analysis, State, Upload, status_of

LEASE = timedelta(seconds=30)


def add(database: Database, *states: State, count: int = 1) -> list[str]:
    """Add uploads with analyses `a`, `b` and so on in these states; their ids in order."""
    analyses = tuple(
        Analysis(name, 1, state) for name, state in zip("abcdefgh", states, strict=False)
    )
    uploads = [an_upload(analyses, number) for number in range(count)]
    database.uploads.add(uploads)
    return [upload.id for upload in uploads]


def an_upload(analyses: tuple[Analysis, ...], number: int = 0) -> Upload:
    upload_id, moment = new_id(), now() + timedelta(milliseconds=number)
    return Upload(
        id=upload_id,
        original_name="cat.jpg",
        filename=f"{upload_id}.jpg",
        upload_time=moment,
        updated_at=moment,
        size=1000,
        content_type="image/jpeg",
        sha256=f"{number:064x}",
        width=300,
        height=200,
        status=status_of([analysis.state for analysis in analyses]),
        analyses=analyses,
        request_id="request",
    )


def claim(
    database: Database,
    run: str = "run",
    size: int = 1,
    analyzer: str = "a",
    state: State = State.QUEUED,
    lease: timedelta = LEASE,
) -> list[str]:
    claimed = database.analyses.claim(analyzer, 1, run, size, lease, state)
    return [one.upload.id for one in claimed]


def finish(
    database: Database,
    upload_id: str,
    run: str = "run",
    state: State = State.SUCCEEDED,
    **more: Any,
) -> int:
    end = FinishedAnalysis(upload_id, state, **more)
    return database.analyses.finish("a", run, [end])


def stored(collection: Collection[dict[str, Any]], upload_id: str, name: str = "a") -> Any:
    document = collection.find_one({"_id": ObjectId(upload_id)})
    return next(analysis for analysis in document["analyses"] if analysis["name"] == name)


def set_analysis(collection: Collection[dict[str, Any]], upload_id: str, **values: Any) -> None:
    changes = {f"analyses.0.{name}": value for name, value in values.items()}
    collection.update_one({"_id": ObjectId(upload_id)}, {"$set": changes})
