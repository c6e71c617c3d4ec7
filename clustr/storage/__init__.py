"""Where originals are kept; one module for each kind of place."""

from clustr.storage.local import (
    FOLDER_MODE,
    ID,
    Entry,
    Incoming,
    LocalStorage,
    is_open_to_others,
    reading,
    writing,
)
from clustr.storage.trash import TRASH

__all__ = [
    "FOLDER_MODE",
    "ID",
    "TRASH",
    "Entry",
    "Incoming",
    "LocalStorage",
    "is_open_to_others",
    "reading",
    "writing",
]
