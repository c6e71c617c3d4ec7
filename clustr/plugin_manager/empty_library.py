"""A library without uploads, for a process without a database."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clustr.domain.errors import NoResult, NotFound
from clustr.plugin_manager.plugin import Plugin
from clustr.plugins import SimilarUpload, Upload


class EmptyLibrary:
    """A library without uploads: implements `clustr.plugins.Library`."""

    def __init__(self, _plugin: Plugin):
        pass

    def get(self, upload_id: str) -> Upload:
        raise NotFound(f"There is no upload {upload_id}.")

    def find(
        self, analyzer: str, field: str, values: Sequence[Any], limit: int = 1000
    ) -> Sequence[Upload]:
        return ()

    def walk(self, filters: Mapping[str, Any] | None = None) -> Iterator[Upload]:
        return iter(())

    def count(self, filters: Mapping[str, Any] | None = None) -> int:
        return 0

    def nearest(
        self,
        to: Any,
        by: str,
        limit: int = 20,
        filters: Mapping[str, Any] | None = None,
        max_distance: float | None = None,
    ) -> Sequence[SimilarUpload]:
        return ()

    def vector(self, upload: Upload, by: str) -> bytes:
        raise NoResult(f"The upload {upload.id} has no vector {by}.")

    def url_of(self, upload: Upload) -> str:
        return upload.filename
