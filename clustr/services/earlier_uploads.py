"""Which uploads are the answer to a request that is sent again with its `Idempotency-Key`."""

from collections.abc import Iterable, Sequence

from clustr.domain.models import Upload


class EarlierUploads:
    """What was stored of the same files with the same key; some may be missing.

    Args:
        uploads: the uploads, each with its `retry`.
        hashes: the SHA-256 of each file of the request.
    """

    def __init__(self, uploads: Iterable[Upload], hashes: Sequence[str]):
        self._hashes = hashes
        self._positions: set[int] = set()
        self._by_index: dict[int, Upload] = {}
        self._misplaced: list[Upload] = []
        for upload in uploads:
            assert upload.retry is not None  # It was found by that.
            self._positions.add(upload.retry.position)
            index = upload.retry.position % len(hashes)
            if upload.sha256 == hashes[index]:
                self._by_index[index] = upload
            else:  # Release 0.1 counted the accepted files alone.
                self._misplaced.append(upload)

    def take(self, index: int) -> Upload | None:
        """The upload of the file with this index in the request; each is returned once."""
        if index in self._by_index:
            return self._by_index[index]
        for upload in self._misplaced:
            if upload.sha256 == self._hashes[index]:
                self._misplaced.remove(upload)
                return upload
        return None

    def free_position(self, index: int) -> int:
        """The position in `Retry` for a new upload of a file, which no other one has."""
        return index + len(self._hashes) if index in self._positions else index
