"""Where originals are kept; one module for each kind of place."""

from clustr.storage.local import Entry, Incoming, LocalStorage, writing

__all__ = ["Entry", "Incoming", "LocalStorage", "writing"]
