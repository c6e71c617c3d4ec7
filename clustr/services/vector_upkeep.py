"""Upkeep of vectors: those that results need get written, and those of no result are removed."""

import time
from collections.abc import Iterator
from typing import Any

from clustr import logs
from clustr.database import Database, NewVector
from clustr.plugin_manager import PluginManager, describe_plugin_exception, plugin_exc_info
from clustr.plugins import Analyzer
from clustr.plugins.vectors import vector_space

log = logs.logger(__name__)

REMOVAL_SECONDS = 1.0
FILL_BATCH = 500


class VectorUpkeep:
    """Upkeep of the vectors of all analyzers; the reconciler calls it."""

    def __init__(self, database: Database, plugin_manager: PluginManager):
        self._vectors = database.vectors
        self._plugin_manager = plugin_manager
        self._orphans_after: str | None = None

    def clean(self) -> None:
        """Remove some vectors that belong to no result, or to no declaration any more."""
        self._orphans_after, orphans = self._vectors.remove_orphans(self._orphans_after)
        if orphans:
            log.info("vectors_removed", reason="no result names them", count=orphans)
        until = time.monotonic() + REMOVAL_SECONDS
        for analyzer in self._plugin_manager.analyzers.values():
            spaces = [vector_space(analyzer.name, analyzer.version, v) for v in analyzer.vectors]
            outdated = 0
            while time.monotonic() < until:
                removed = self._vectors.remove_outdated(analyzer.name, analyzer.version, spaces)
                outdated += removed
                if not removed:
                    break
            if outdated:
                reason = f"version {analyzer.version} does not declare them"
                log.info("vectors_removed", analyzer=analyzer.name, reason=reason, count=outdated)

    def fill(self) -> Iterator[int]:
        """Write the vectors that follow from stored results; yield how many, a batch at a time."""
        for analyzer in self._plugin_manager.analyzers.values():
            if type(analyzer).vectors_of is not Analyzer.vectors_of and analyzer.vectors:
                yield from self._fill_for(analyzer)

    def _fill_for(self, analyzer: Analyzer) -> Iterator[int]:
        name, version = analyzer.name, analyzer.version
        spaces = {v.field: vector_space(name, version, v) for v in analyzer.vectors}
        if all(map(self._vectors.are_complete, spaces.values())):
            return
        after = None
        while True:
            batch = self._vectors.results_without(name, [*spaces], after, FILL_BATCH)
            found = [pair for result in batch for pair in _vectors_of(analyzer, *result)]
            new = [each for each, _ in found]
            if new:
                ids = self._vectors.add(new)
                yield self._vectors.name(new, ids, [result for _, result in found])
            if len(batch) < FILL_BATCH:
                break
            after = batch[-1][0]
        for field, space in spaces.items():
            self._vectors.mark_complete(space, name, field, version)


def _vectors_of(
    analyzer: Analyzer, upload_id: str, result: dict[str, Any]
) -> Iterator[tuple[NewVector, dict[str, Any]]]:
    """The vectors that follow from a result, each with the result; none when the plugin raises."""
    try:
        values = analyzer.vectors_of(dict(result)) or {}
        for vector in analyzer.vectors:
            if values.get(vector.field) is not None:
                data = vector.encode(values[vector.field])
                yield NewVector(upload_id, analyzer.name, analyzer.version, vector, data), result
    except Exception as error:  # Any code of the plugin.
        log.error(
            "vectors_of_raised",
            analyzer=analyzer.name,
            upload_id=upload_id,
            reason=describe_plugin_exception(error),
            exc_info=plugin_exc_info(error),
        )
