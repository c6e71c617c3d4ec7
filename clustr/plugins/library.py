"""What plugins can ask of the uploads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from clustr.domain.models import Upload


@dataclass(frozen=True, slots=True)
class SimilarUpload:
    """An upload that is near, and how far it is: the smaller, the more similar."""

    upload: Upload
    distance: float


class Library(Protocol):
    """The uploads, to be read only.

    `filters` are those of `GET /api/uploads`, by the names of its parameters: `{"tag": ["dog"],
    "uploaded_after": datetime(2026, 1, 1, tzinfo=UTC)}`, with `analyses.` in front for those by
    results, `{"analyses.brightness.mean__gte": 128}`. One that is unknown raises `InvalidInput`.
    """

    def get(self, upload_id: str) -> Upload:
        """The upload with this id, with the results of its analyses.

        Raises:
            NotFound: there is none with it; the answer is 404 if a route does not catch it.
        """
        ...

    def find(
        self, analyzer: str, field: str, values: Sequence[Any], limit: int = 1000
    ) -> Sequence[Upload]:
        """Uploads with one of these values in a field of the analyzer's result.

        Args:
            analyzer: one of the plugin's own.
            field: one that the plugin declares as an indexed `Filter`.
            values: a list's element counts as a value of the field.
            limit: how many at most; which ones, of more, is not said.

        Raises:
            ValueError: the plugin declares no such filter.
        """
        ...

    def walk(self, filters: Mapping[str, Any] | None = None) -> Iterator[Upload]:
        """All uploads, or those that meet the filters, the oldest ids first, with their results.

        They are read some at a time, so that any number can be walked through; one that is there
        all the while comes exactly once.
        """
        ...

    def count(self, filters: Mapping[str, Any] | None = None) -> int:
        """How many uploads there are, or meet the filters."""
        ...

    def nearest(
        self,
        to: Any,
        by: str,
        limit: int = 20,
        filters: Mapping[str, Any] | None = None,
        max_distance: float | None = None,
    ) -> Sequence[SimilarUpload]:
        """The uploads whose vectors are nearest, the nearest first; exact.

        Args:
            to: an `Upload`, which is not among the answers; or a vector, as analyzers return it.
            by: an analyzer and the field of its vector, such as `embed.embedding`; the analyzer is
                enough where it has one.
            limit: how many at most, up to 1000.
            max_distance: how far they may be.

        Raises:
            NoResult: the upload has no such vector, or not yet.
            InvalidInput: no analyzer has such a vector, or the one that is given does not fit.
        """
        ...

    def vector(self, upload: Upload, by: str) -> bytes:
        """The vector of an upload: float16 in little endian, or bits in whole words of 64.

        `numpy.frombuffer(vector, numpy.float16)` makes numbers of it. One whose metric is `cosine`
        has length 1. Each call asks MongoDB once.

        Raises:
            NoResult: the upload has no such vector, or not yet.
        """
        ...

    def url_of(self, upload: Upload) -> str:
        """Where clients find the original; outside of a request that takes `BASE_URL`."""
        ...
