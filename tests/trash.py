"""The trash in tests: removing uploads, restoring them, and where they are."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from bson import ObjectId
from workshop import Workshop

from clustr.domain.errors import DatabaseUnavailable

DELETED = """
from clustr.plugins import hookimpl

@hookimpl
def clustr_upload_deleted(upload):
    with open({path!r}, "a") as file:
        file.write(upload.id + "\\n")
"""


def call(workshop: Workshop, method: str, path: str, **options: Any) -> Any:
    return workshop.app.test_client().open(path, method=method, **options)


def remove(workshop: Workshop, upload_id: str, query: str = "") -> int:
    return call(workshop, "DELETE", f"/api/uploads/{upload_id}{query}").status_code


def restore(workshop: Workshop, upload_id: str) -> Any:
    return call(workshop, "POST", f"/api/uploads/{upload_id}/restore")


def ids_in(told: Path) -> list[str]:
    """Of which uploads the plugin was told, in this order."""
    return told.read_text().split() if told.exists() else []


def status(workshop: Workshop, path: str) -> int:
    return call(workshop, "GET", path).status_code


def bytes_of(workshop: Workshop, upload_id: str) -> bytes:
    with call(workshop, "GET", f"/uploads/{upload_id}.jpg") as answer:
        return answer.data


def trash_of(workshop: Workshop) -> Any:
    return workshop.collection.database[f"{workshop.collection.name}_trash"]


def file_of(workshop: Workshop, upload_id: str) -> Path:
    return workshop.settings.upload_folder / upload_id[:4] / f"{upload_id}.jpg"


def trashed_file_of(workshop: Workshop, upload_id: str) -> Path:
    return workshop.settings.upload_folder / ".trash" / upload_id[:4] / f"{upload_id}.jpg"


def whole(workshop: Workshop, upload_id: str) -> str:
    """Where an upload is, which is in one place with all that it has, or in none."""
    key = {"_id": ObjectId(upload_id)}
    records = workshop.collection.count_documents(key), trash_of(workshop).count_documents(key)
    files = file_of(workshop, upload_id).exists(), trashed_file_of(workshop, upload_id).exists()
    assert (records, files) in [
        ((1, 0), (True, False)),
        ((0, 1), (False, True)),
        ((0, 0), (False, False)),
    ], (records, files)
    return {1: "there", 0: "gone"}[records[0]] if not records[1] else "trashed"


def go_on(workshop: Workshop, late: bool = True) -> None:
    """What the reconciler does, when what was begun was begun long ago."""
    if late:
        minute = timedelta(minutes=1)
        for document in trash_of(workshop).find({"trash.claimed_at": {"$exists": True}}):
            moment = {"trash.claimed_at": document["trash"]["claimed_at"] - minute}
            trash_of(workshop).update_one({"_id": document["_id"]}, {"$set": moment})
    workshop.web.removal.resume()


def went_on(workshop: Workshop) -> bool:
    """Whether the reconciler could do all of it."""
    try:
        go_on(workshop)
    except DatabaseUnavailable:
        return False
    return not trash_of(workshop).count_documents({"trash.claim": {"$exists": True}})


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What comes of acts that are begun at the same moment."""
    found: list[Any] = [None] * len(acts)
    begin = threading.Barrier(len(acts))

    def run(number: int) -> None:
        begin.wait()
        found[number] = acts[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
