"""Thumbnails: small copies of originals, made when they are first asked for and then kept."""

import io
from dataclasses import dataclass
from typing import BinaryIO

from clustr import images, logs
from clustr.catalog import Catalog
from clustr.errors import StorageFull
from clustr.storage import ID, LocalStorage, reading

log = logs.logger(__name__)

# How they are made. Raise it when they become others: it is part of their addresses, which are
# cached for ever, and of their file names.
VERSION = 2

SIZES = (50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
DEFAULT_SIZE = 300

# The slowest, a WebP of 50 megapixels, takes some seconds to make.
WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One that can be answered.

    Attributes:
        content: open for reading.
        tag: tells it from every other.
        key: where it lies below the folder of uploads; None when it could not be kept.
    """

    content: BinaryIO
    tag: str
    key: str | None


def snapped(size: int) -> int:
    """The size that is made for one that is asked for: the same or the next larger one."""
    return next(each for each in SIZES if each >= size)


class Thumbnails:
    """Makes thumbnails and finds those that are made."""

    def __init__(self, catalog: Catalog, storage: LocalStorage):
        self._catalog = catalog
        self._storage = storage

    def get(self, upload_id: str, size: int, extension: str) -> Thumbnail:
        """A thumbnail of an upload; while its original is in its place the database is not asked.

        Args:
            size: pixels of its longer side at most, one of `SIZES`.
            extension: its format, one that can be written.

        Raises:
            NotFound: there is no such upload, or its original is not there.
            Empty, TooManyPixels, Undecodable, UnsupportedType: the original cannot be decoded.
            BeingMade: somebody else makes it and takes too long.
            DatabaseUnavailable, StorageUnavailable: what it is made of cannot be read.
        """
        if not ID.fullmatch(upload_id):
            self._catalog.uploads.get(upload_id)  # This says what is wrong with it.
        name = f"{size}-v{VERSION}.{extension}"
        key = self._storage.thumbnail_key(upload_id, name)
        tag = f"{upload_id}-{name}"
        content = self._storage.open_thumbnail(key)
        if content is not None:
            return Thumbnail(content, tag, key)
        return self._kept(self._filename(upload_id), key, tag, size, extension)

    def of_trashed(self, upload_id: str, size: int, extension: str) -> Thumbnail:
        """A thumbnail of an upload of the trash; the database is asked whether it is there.

        It lies beside those of uploads under a name of its own, so that nobody is served it as one
        of an upload, and is removed with them.

        Args:
            size, extension: as for `get`.

        Raises:
            InvalidInput: this is no id.
            NotFound: it is not in the trash, or its original is not there.
            Empty, TooManyPixels, Undecodable, UnsupportedType: the original cannot be decoded.
            BeingMade: somebody else makes it and takes too long.
            DatabaseUnavailable, StorageUnavailable: what it is made of cannot be read.
        """
        filename = self._catalog.trash.get(upload_id).upload.filename
        name = f"{size}-v{VERSION}.{extension}"
        key = self._storage.thumbnail_key(upload_id, f"trashed-{name}")
        content = self._storage.open_thumbnail(key)
        if content is not None:
            return Thumbnail(content, f"{upload_id}-{name}", key)
        return self._kept(filename, key, f"{upload_id}-{name}", size, extension, trashed=True)

    def _kept(
        self,
        filename: str,
        key: str,
        tag: str,
        size: int,
        extension: str,
        trashed: bool = False,
    ) -> Thumbnail:
        """A thumbnail that was not there a moment ago, made and kept where that can be."""
        try:
            with self._storage.making_thumbnail(key, WAIT_SECONDS):
                content = self._storage.open_thumbnail(key)  # Another may have made it meanwhile.
                if content is not None:
                    return Thumbnail(content, tag, key)
                made = self._make(filename, size, extension, trashed)
                return Thumbnail(io.BytesIO(made), tag, self._keep(key, filename, made, trashed))
        except StorageFull:  # The store is full or can only be read: then it is made each time.
            made = self._make(filename, size, extension, trashed)
            return Thumbnail(io.BytesIO(made), tag, None)

    def _filename(self, upload_id: str) -> str:
        """The file name of an original, by the names that it can have."""
        for extension in images.CONTENT_TYPES:
            filename = f"{upload_id}.{extension}"
            if self._storage.has(filename):
                return filename
        return self._catalog.uploads.get(upload_id).filename  # This says what is wrong, too.

    def _make(self, filename: str, size: int, extension: str, trashed: bool) -> bytes:
        open_original = self._storage.open_trashed if trashed else self._storage.open
        original = open_original(filename)
        with original as file, reading():
            made = images.thumbnail(file, size, extension)
        log.info("thumbnail_made", filename=filename, size=size, format=extension)
        return made

    def _keep(self, key: str, filename: str, made: bytes, trashed: bool) -> str | None:
        try:
            return key if self._storage.keep_thumbnail(key, filename, made, trashed) else None
        except StorageFull:
            return None
