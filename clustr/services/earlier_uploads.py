"""Which uploads are the answer to a request that is sent again with its `Idempotency-Key`."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter

from clustr.domain.models import Upload


class EarlierUploads:
    """What was stored of the same files with the same key; some may be missing.

    The bytes decide: where a file that was refused at first is accepted by now, the numbers of
    those behind it have moved. Among files with the same bytes each has the upload with its name,
    else with its number, and another one only when no other file has that.

    Args:
        uploads: the uploads, each with its `retry`.
        files: the SHA-256 and the cleaned name of each accepted file of the request.
    """

    def __init__(self, uploads: Iterable[Upload], files: Sequence[tuple[str, str]]):
        self._file_count = len(files)
        self._positions: set[int] = set()
        self._by_number: dict[int, Upload] = {}
        left = defaultdict[str, list[Upload]](list)
        for upload in sorted(uploads, key=attrgetter("retry.position")):
            self._positions |= {upload.retry.position} if upload.retry else set()
            left[upload.sha256].append(upload)
        for least in (3, 2, 1, 0):
            for number, (sha256, name) in enumerate(files):
                fitting = (u for u in left[sha256] if _likeness(u, number, name) >= least)
                if number not in self._by_number and (found := next(fitting, None)):
                    self._by_number[number] = found
                    left[sha256].remove(found)

    def of_file(self, number: int) -> Upload | None:
        """The upload of the accepted file with this number; each is that of one file."""
        return self._by_number.get(number)

    def free_position(self, number: int) -> int:
        """The position in `Retry` for a new upload of a file, which no other one has."""
        positions = itertools.count(number, self._file_count)
        return next(each for each in positions if each not in self._positions)


def _likeness(upload: Upload, number: int, name: str) -> int:
    """How likely an upload is that of the file with this number and name, which has its bytes."""
    is_there = upload.retry is not None and upload.retry.position == number
    return 2 * (upload.original_name == name) + is_there
