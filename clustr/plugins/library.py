"""What the routes of a plugin can ask of the uploads."""

from collections.abc import Sequence
from typing import Any, Protocol

from clustr.domain.models import Upload


class Library(Protocol):
    """The uploads, to be read only."""

    def get(self, upload_id: str) -> Upload:
        """The upload with this id, with the results of its analyses.

        Raises:
            NotFound: there is none with it; the answer is 404 if the route does not catch it.
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

    def url_of(self, upload: Upload) -> str:
        """Where clients find the original; to be asked while a request is being answered."""
        ...
