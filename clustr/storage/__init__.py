"""Where originals and thumbnails are kept: a module for each kind of place.

What is known of an upload is in `clustr.database`; here are bytes and the names of files.
"""

from clustr.storage.folder import (
    FOLDER_MODE,
    ID,
    StoredFile,
    is_world_readable,
    reading,
    writing,
)
from clustr.storage.incoming import IncomingFile
from clustr.storage.local import LocalStorage
from clustr.storage.trash import TRASH

__all__ = [
    "FOLDER_MODE",
    "ID",
    "TRASH",
    "IncomingFile",
    "LocalStorage",
    "StoredFile",
    "is_world_readable",
    "reading",
    "writing",
]
