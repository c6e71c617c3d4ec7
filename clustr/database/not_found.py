"""Why an upload is not among the others."""

from enum import StrEnum

from pymongo.collection import Collection

from clustr.database.connection import Document, answering
from clustr.database.documents import FIRST_MOMENT, LAST_MOMENT, key_of
from clustr.domain.errors import InTrash, NotFound


class TrashStep(StrEnum):
    """What is being done with an upload of the trash, if anything is."""

    MOVING = "moving"  # Its file is being moved aside.
    THERE = "there"
    RESTORING = "restoring"
    REMOVING = "removing"  # for good


IN_TRASH = (TrashStep.MOVING, TrashStep.THERE)


def not_found_error(uploads: Collection[Document], upload_id: str) -> NotFound:
    """The error to raise of an upload that is not there: it may be in the trash.

    Args:
        uploads: the collection in which it was looked for.
    """
    trash = uploads.database[f"{uploads.name}_trash"]
    # Others may have written other things there.
    at = {"trash.at": {"$gte": FIRST_MOMENT, "$lte": LAST_MOMENT}}
    here = {"_id": key_of(upload_id), "trash.step": {"$in": IN_TRASH}, **at}
    with answering():
        trashed = trash.find_one(here, {"trash.at": 1})
    if trashed is None:
        return NotFound(f"There is no upload with the id {upload_id}.")
    return InTrash(upload_id, trashed["trash"]["at"])
