"""The error for an upload that does not exist, or is in the trash."""

from enum import StrEnum

from pymongo.collection import Collection

from clustr.database.connection import Document, translate_errors
from clustr.database.documents import FIRST_MOMENT, LAST_MOMENT, parse_id
from clustr.domain.errors import InTrash, NotFound


class TrashStep(StrEnum):
    """What is being done with an upload in the trash."""

    MOVING = "moving"  # Its file is being moved into the trash.
    STORED = "there"
    RESTORING = "restoring"
    REMOVING = "removing"  # for good


IN_TRASH_STEPS = (TrashStep.MOVING, TrashStep.STORED)


def not_found_error(uploads: Collection[Document], upload_id: str) -> NotFound:
    """The error to raise for a missing upload: `InTrash` if it is in the trash, or `NotFound`.

    Args:
        uploads: the collection that lacks it.
    """
    trash = uploads.database[f"{uploads.name}_trash"]
    # Foreign records may have other types there.
    at = {"trash.at": {"$gte": FIRST_MOMENT, "$lte": LAST_MOMENT}}
    query = {"_id": parse_id(upload_id), "trash.step": {"$in": IN_TRASH_STEPS}, **at}
    with translate_errors():
        trashed = trash.find_one(query, {"trash.at": 1})
    if trashed is None:
        return NotFound(f"There is no upload with the id {upload_id}.")
    return InTrash(upload_id, trashed["trash"]["at"])
