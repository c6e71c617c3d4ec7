"""Nearest: the uploads whose vectors are nearest to one, exactly, by looking at all vectors.

The vectors are those of this host's copy (`clustr.services.vector_copy`). What is found in it is
then checked in MongoDB: only a vector that the result of an upload names is an answer, and only an
upload that meets the filter.
"""

import copy
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clustr.database import NO_FILTER, Database, DatabaseView, UploadFilter
from clustr.domain import failure_messages
from clustr.domain.errors import BeingRead, InvalidInput, NoResult
from clustr.domain.models import UNFINISHED, State, Upload
from clustr.plugin_manager import PluginManager
from clustr.services.vector_copy import VectorCopy, VectorField

if TYPE_CHECKING:  # Only who searches needs NumPy and simsimd.
    from clustr.storage.vector_file import Snapshot

# How long a request reads what is missing in the files; a thread does the rest.
CATCH_UP_SECONDS = 1.0
# At first the limit and so many more are checked in MongoDB; with a filter so many times the limit.
SPARE = 16
FILTERED_FACTOR = 15
# So many are checked at a time, and with a filter before MongoDB is asked which uploads meet it.
MOST_CHECKED = 8192


@dataclass(frozen=True, slots=True)
class Neighbor:
    """An upload, and how far its vector is."""

    upload_id: str
    distance: float


class Nearest:
    """Finds the uploads whose vectors are nearest to one.

    Attributes:
        database: has the uploads among which it looks.

    Args:
        folder: where the files with vectors are, on this host.
        seconds: how long a search waits while vectors are read; by default `CATCH_UP_SECONDS`.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        plugin_manager: PluginManager,
        seconds: float | None = None,
    ):
        self._seconds = CATCH_UP_SECONDS if seconds is None else seconds
        self._whole = database
        self.database: DatabaseView = database
        self._folder = folder
        self._plugin_manager = plugin_manager
        self._copies: dict[str, VectorCopy] = {}
        self._making = threading.Lock()

    def seen_by(self, owner: str | None) -> "Nearest":
        """The same among the uploads of an owner alone, by the same copies; None: among all."""
        seen = copy.copy(self)
        seen.database = self._whole.view_of(owner)
        return seen

    @property
    def fields(self) -> dict[str, VectorField]:
        """The vectors of all installed analyzers, by names such as `embed.embedding`."""
        declared = [
            VectorField(analyzer.name, analyzer.version, vector)
            for analyzer in self._plugin_manager.analyzers.values()
            for vector in analyzer.vectors
        ]
        return {field.name: field for field in declared}

    def field(self, name: str) -> VectorField:
        """The vector of this name; that of an analyzer is enough where it has one.

        Raises:
            InvalidInput: no installed analyzer declares it; the error is about `by`.
        """
        fields = self.fields
        of_analyzer = [field for field in fields.values() if field.analyzer == name]
        if len(of_analyzer) == 1:
            return of_analyzer[0]
        if name in fields:
            return fields[name]
        if not fields:
            raise InvalidInput({"by": ["No analyzer that is installed makes vectors."]})
        problem = failure_messages.unknown_name("vector", name, fields)
        end = "" if problem.endswith("?") else "."
        raise InvalidInput({"by": [f"{problem[0].upper()}{problem[1:]}{end}"]})

    def vector_of(self, upload: Upload, field: VectorField) -> bytes:
        """The vector of an upload.

        Raises:
            NoResult: it has none, or not yet; the message says why.
        """
        analysis = next((a for a in upload.analyses if a.name == field.analyzer), None)
        vector_id = analysis.vectors.get(field.vector.field) if analysis else None
        stored = self.database.vectors.get(vector_id) if vector_id else None
        if stored and stored[0] == field.space:
            return stored[1]
        raise NoResult(
            f"The upload {upload.id} has no vector {field.name}{_why_none(upload, field)}."
        )

    def find(
        self,
        field: VectorField,
        vector: bytes,
        limit: int,
        upload_filter: UploadFilter | None = None,
        max_distance: float | None = None,
        besides: str | None = None,
    ) -> list[Neighbor]:
        """The uploads that are nearest to a vector, the nearest first, then by their ids.

        Args:
            vector: in the form of `Vector.encode`.
            limit: how many at most.
            upload_filter: what they have to meet.
            max_distance: how far they may be.
            besides: the id of an upload that is left out.

        Raises:
            BeingRead: the copy of the vectors on this host is being made.
            TooSlow: it takes too long to find the uploads that meet the filter.
            StorageFull: the copy cannot be written.
        """
        from clustr.storage import vector_search  # noqa: PLC0415  See `TYPE_CHECKING`.

        if upload_filter == NO_FILTER:
            upload_filter = None
        owner = self.database.owner
        vectors = self._copy(field)
        snapshot = self._current(vectors)
        found = vector_search.distances(
            vector,
            snapshot.data,
            field.vector.kind,
            field.vector.metric,
            # So neither what is answered nor how long it takes depends on what others have.
            wanted=None if owner is None else snapshot.is_of(owner),
        )
        found[snapshot.dead != 0] = float("inf")
        if max_distance is not None:
            found[found > max_distance] = float("inf")
        neighbors: list[Neighbor] = []
        checked, is_narrowed = 0, False
        count = SPARE + limit * (1 if upload_filter is None else FILTERED_FACTOR)
        while True:
            nearest = vector_search.nearest_rows(found, count)
            rows = snapshot.in_order(nearest, found)[:count].tolist()
            if not rows:
                break
            answers = self._checked(field, snapshot, vectors, rows, found, upload_filter)
            neighbors += [each for each in answers if each.upload_id != besides]
            if len(neighbors) >= limit:
                break
            found[rows] = float("inf")
            checked += len(rows)
            # Twice as many as would do, if among the next were as many answers.
            missing = limit - len(neighbors)
            count = min(MOST_CHECKED, SPARE + 2 * checked * missing // max(1, len(neighbors)))
            if upload_filter is not None and not is_narrowed and checked >= MOST_CHECKED:
                ids = self.database.vectors.upload_ids(upload_filter)  # Few meet the filter.
                found[~vector_search.rows_of_uploads(snapshot.ids, ids)] = float("inf")
                count, is_narrowed = limit + SPARE, True
        return neighbors[:limit]

    def _current(self, vectors: VectorCopy) -> "Snapshot":
        """All vectors of this moment; that they are being read is said without how many they are.

        Raises:
            BeingRead, StorageFull: see `find`.
        """
        try:
            return vectors.current()
        except BeingRead:
            if self.database.owner is None:
                raise
            raise BeingRead from None  # An owner is told nothing of what others have.

    def _checked(
        self,
        field: VectorField,
        snapshot: "Snapshot",
        vectors: "VectorCopy",
        rows: Sequence[int],
        found: Any,
        upload_filter: UploadFilter | None,
    ) -> list[Neighbor]:
        """The rows that are answers, in their order; what was removed is marked in the files."""
        by_id = {snapshot.vector_id(row): row for row in rows}
        uploads = {snapshot.upload_id(row) for row in rows}
        named = self.database.vectors.named(
            uploads, field.analyzer, field.vector.field, upload_filter
        )
        if upload_filter is None and (unnamed := by_id.keys() - named):
            gone = unnamed - self.database.vectors.existing(unnamed)
            vectors.mark_dead(snapshot, [by_id[each] for each in gone])
        return [
            Neighbor(snapshot.upload_id(row).hex(), float(found[row]))
            for vector_id, row in by_id.items()
            if vector_id in named
        ]

    def _copy(self, field: VectorField) -> "VectorCopy":
        with self._making:
            if field.space not in self._copies:
                folder = self._folder / self._whole.installation()
                self._remove_older(folder, field)
                self._copies[field.space] = VectorCopy(self._whole, folder, field, self._seconds)
            return self._copies[field.space]

    def _remove_older(self, folder: Path, field: VectorField) -> None:
        """Remove the files of earlier versions of an analyzer."""
        for path in folder.glob(f"{field.name}-v*"):
            version = path.name.removeprefix(f"{field.name}-v").split("-")[0]
            if version.isdigit() and int(version) < field.version:
                with suppress(OSError):  # Another process removes it, too.
                    for file in path.iterdir():
                        file.unlink(missing_ok=True)
                    path.rmdir()


def _why_none(upload: Upload, field: VectorField) -> str:
    """Why an upload has no vector: whether it is worth to ask again."""
    analysis = next((a for a in upload.analyses if a.name == field.analyzer), None)
    if analysis is None:
        return f"; its analysis {field.analyzer} was never ordered"
    if analysis.state in UNFINISHED:
        return f" yet; its analysis {field.analyzer} is {analysis.state}"
    if analysis.state is State.SUCCEEDED:
        if analysis.version < field.version:
            return (
                f" yet; its result is of version {analysis.version} of {field.analyzer}, which is "
                f"at version {field.version}"
            )
        return f"; its result of {field.analyzer} has none"
    return f"; its analysis {field.analyzer} {analysis.state}" + (
        f": {analysis.error}" if analysis.error else ""
    )
