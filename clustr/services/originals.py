"""Originals as they are sent: as they came, or as copies without metadata.

A copy is made when it is first asked for. It is kept beside the thumbnails of the upload, removed
with them, and made again when it is gone.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from clustr import logs
from clustr.domain.errors import MetadataNotRemovable, StorageFull
from clustr.domain.models import FilesMetadata
from clustr.imaging.stripping import strip
from clustr.storage import LocalStorage, reading

log = logs.logger(__name__)

# How copies are made. Raise it when they become others: it is part of their names and tags.
VERSION = 1


@dataclass(frozen=True, slots=True)
class SentOriginal:
    """An original that can be answered, or a copy of it.

    Attributes:
        content: open for reading.
        key: where it lies below the folder of uploads; None when it is nowhere for others to send.
        variant: tells a copy from the original and from other copies; empty for the original.
    """

    content: BinaryIO
    key: str | None
    variant: str = ""


class Originals:
    """Opens originals, and makes the copies that are sent instead."""

    def __init__(self, storage: LocalStorage):
        self._storage = storage

    def open(self, filename: str, metadata: FilesMetadata) -> SentOriginal:
        """Open an original, or its copy; the database is not asked.

        Args:
            metadata: what is sent of its metadata.

        Raises:
            NotFound: there is none of this name.
            MetadataNotRemovable: there can be no such copy of it.
            StorageUnavailable: it cannot be read.
        """
        if metadata is FilesMetadata.KEEP:
            return SentOriginal(self._storage.open(filename), self._storage.key(filename))
        return self._open_copy(filename, metadata, trashed=False)

    def open_trashed(self, filename: str, metadata: FilesMetadata) -> SentOriginal:
        """Open an original in the trash, or its copy.

        Args, Raises: as for `open`.
        """
        if metadata is FilesMetadata.KEEP:
            return SentOriginal(self._storage.open_trashed(filename), None)
        return self._open_copy(filename, metadata, trashed=True)

    def _open_copy(self, filename: str, metadata: FilesMetadata, trashed: bool) -> SentOriginal:
        upload_id, _, extension = filename.partition(".")
        variant = f"-{metadata}-v{VERSION}"
        name = f"{'trashed-' if trashed else ''}{metadata}-v{VERSION}.{extension}"
        key = self._storage.thumbnails.key(upload_id, name)
        content = self._storage.thumbnails.open(key)
        if content is not None:
            return SentOriginal(content, key, variant)
        open_original = self._storage.open_trashed if trashed else self._storage.open
        with open_original(filename) as file, _logging_refusal(filename):
            try:
                self._storage.thumbnails.store(
                    key, filename, strip(file, extension, metadata), trashed
                )
            except StorageFull:  # The store is full or can only be read: then it is made each time.
                log.info("copy_not_kept", filename=filename)
            else:
                log.info("copy_made", filename=filename, metadata=metadata)
                content = self._storage.thumbnails.open(key)
            if content is not None:
                return SentOriginal(content, key, variant)
            with reading():
                unkept = tempfile.TemporaryFile()  # noqa: SIM115 - The response closes it.
                unkept.writelines(strip(file, extension, metadata))
            return SentOriginal(unkept, None, variant)


@contextmanager
def _logging_refusal(filename: str) -> Iterator[None]:
    try:
        yield
    except MetadataNotRemovable as error:
        log.warning("metadata_not_removable", filename=filename, reason=str(error.__cause__))
        raise
