"""`clustr import`: sends the pictures of folders to a service, over HTTP alone.

Everything is pulled through as generators, so that memory does not grow with the number of files.
"""

from clustr.client.importing.errors import ImportStopped
from clustr.client.importing.general_words import GeneralWords
from clustr.client.importing.hashing import KnownHashes, hashes_file
from clustr.client.importing.importer import Importer
from clustr.client.importing.ledger import Ledger, Note, Outcome
from clustr.client.importing.progress import Progress, make_progress
from clustr.client.importing.service import ImportService
from clustr.client.importing.walking import Picture, walk
from clustr.client.importing.watching import Watch

__all__ = [
    "GeneralWords",
    "ImportService",
    "ImportStopped",
    "Importer",
    "KnownHashes",
    "Ledger",
    "Note",
    "Outcome",
    "Picture",
    "Progress",
    "Watch",
    "hashes_file",
    "make_progress",
    "walk",
]
