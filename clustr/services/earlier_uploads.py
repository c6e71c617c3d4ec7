"""Which uploads are the answer to a request that is sent again with its `Idempotency-Key`."""

import itertools
from collections.abc import Iterable, Sequence
from operator import attrgetter

from clustr.domain.models import Upload


class EarlierUploads:
    """What was stored of the same files with the same key; some may be missing.

    Args:
        uploads: the uploads, each with its `retry`.
        hashes: the SHA-256 of each file of the request.
    """

    def __init__(self, uploads: Iterable[Upload], hashes: Sequence[str]):
        self._hashes = hashes
        self._uploads = sorted(uploads, key=attrgetter("retry.position"))
        self._positions = {upload.retry.position for upload in self._uploads if upload.retry}

    def take(self, index: int) -> Upload | None:
        """The upload of the file with this index in the request; each is returned once.

        The bytes decide, and the order among files with the same: release 0.1 counted the accepted
        files alone, so that its positions are others.
        """
        for upload in self._uploads:
            if upload.sha256 == self._hashes[index]:
                self._uploads.remove(upload)
                return upload
        return None

    def free_position(self, index: int) -> int:
        """The position in `Retry` for a new upload of a file, which no other one has."""
        positions = itertools.count(index, len(self._hashes))
        return next(each for each in positions if each not in self._positions)
