"""Where originals are kept; one module for each kind of place."""

from clustr.storage.local import Incoming, LocalStorage

__all__ = ["Incoming", "LocalStorage"]
