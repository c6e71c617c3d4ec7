"""Where originals and thumbnails are kept: a module for each kind of place.

What is known of an upload is in `clustr.database`; here are bytes and the names of files.
"""

from clustr.storage.local import (
    FOLDER_MODE,
    ID,
    IncomingFile,
    LocalStorage,
    StoredFile,
    is_open_to_others,
    reading,
    writing,
)
from clustr.storage.trash import TRASH

__all__ = [
    "FOLDER_MODE",
    "ID",
    "TRASH",
    "IncomingFile",
    "LocalStorage",
    "StoredFile",
    "is_open_to_others",
    "reading",
    "writing",
]
