"""Where originals are kept; one module for each kind of place."""

from clustr.storage.local import ID, Entry, Incoming, LocalStorage, reading, writing
from clustr.storage.trash import TRASH

__all__ = ["ID", "TRASH", "Entry", "Incoming", "LocalStorage", "reading", "writing"]
