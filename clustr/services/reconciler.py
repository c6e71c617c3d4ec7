"""The reconciler: makes every analysis reach its end, even when processes are killed or jobs lost.

It runs beside the workers, in one process at a time. While all goes well, nothing depends on it.
"""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

from clustr import logs
from clustr.database import Database, now
from clustr.domain.errors import (
    ClustrError,
    DatabaseUnavailable,
    StorageFull,
    StorageUnavailable,
)
from clustr.plugin_manager import PluginManager
from clustr.plugins import Analyzer
from clustr.queue import Queue
from clustr.services.default_services import DefaultServices
from clustr.services.removal import Removal
from clustr.services.vector_upkeep import VectorUpkeep
from clustr.storage import LocalStorage

log = logs.logger(__name__)

LEASE = "reconciler"
# The lease is renewed when a third of it is left, so MongoDB may be slow for five rounds. When the
# process that holds it is killed, another takes over after 5 to 15 s.
LEASE_SECONDS = 15.0
ROUND_SECONDS = 1.0
# No run could renew its lease while MongoDB was away. Those that live do so within this time.
RENEWAL_SECONDS = 30.0
CLEAN_EVERY_SECONDS = 60.0
START_EVERY_SECONDS = 10.0
INDEX_SECONDS = 3600.0
LEFT_BEHIND_AFTER = timedelta(hours=24)
# Analyses of an analyzer that no plugin registers any more are settled after this time, or after
# twice as long, because that is looked for as often.
GONE_AFTER = timedelta(minutes=10)


class BackgroundTask:
    """A function that is called in a thread of its own, because it takes its time."""

    def __init__(self, function: Callable[[], None]):
        self._function = function
        self._thread = threading.Thread()
        self._started_at = float("-inf")

    def start(self) -> None:
        """Call the function, unless that is under way or was begun a short time ago."""
        due = time.monotonic() - self._started_at >= START_EVERY_SECONDS
        if due and not self._thread.is_alive():
            self._started_at = time.monotonic()
            self._thread = threading.Thread(target=self._function, daemon=True)
            self._thread.start()


class Reconciler:
    """Notifies workers of waiting work, reclaims lost analyses, and cleans up.

    It also finishes removals, empties the trash, and looks for services at default addresses.
    """

    def __init__(
        self,
        database: Database,
        storage: LocalStorage,
        queue: Queue,
        plugin_manager: PluginManager,
        removal: Removal,
        services: DefaultServices,
    ):
        self._database = database
        self._storage = storage
        self._queue = queue
        self._removal = removal
        self._services = services
        self._vector_upkeep = VectorUpkeep(database, plugin_manager)
        self._analyzers = list(plugin_manager.analyzers.values())
        self._owner = uuid4().hex
        self._cleaned_at = self._settled_at = self._unavailable_at = float("-inf")
        self._search = BackgroundTask(self._search_services)
        self._completion = BackgroundTask(self._complete_old_records)
        self._duplicates_walk = database.duplicates.repair_all()
        self._indexed = self._completed = False

    def run_forever(self) -> None:
        """Call `run_once` every second; while a dependency is unavailable, that is only logged."""
        while True:
            try:
                self.run_once()
            except ClustrError as error:
                log.warning("reconciler_waits", reason=str(error))
            time.sleep(ROUND_SECONDS)

    def note_outage(self) -> None:
        """Reclaim nothing for a while, because MongoDB was away just now."""
        self._unavailable_at = time.monotonic()

    def run_once(self) -> None:
        """Do one round, unless another process holds the lease."""
        try:
            if not self._database.leases.acquire(LEASE, self._owner, LEASE_SECONDS):
                return
        except DatabaseUnavailable:
            self.note_outage()
            raise
        if not self._indexed:  # A web process makes them, too, unless it started without MongoDB.
            self._database.make_indexes()
            self._indexed = True
        if not self._completed:
            self._completion.start()
        names = [analyzer.name for analyzer in self._analyzers]
        unfinished = self._database.analyses.any_unfinished(names)
        analyzers = self._analyzers if unfinished else []
        if time.monotonic() - self._unavailable_at > RENEWAL_SECONDS:
            self._reclaim_lost(analyzers)
        self._clean()
        self._search.start()
        try:
            self._queue.ring([analyzer for analyzer in analyzers if self._needs_worker(analyzer)])
        finally:  # Removals do not need Redis.
            self._removal.resume()

    def _reclaim_lost(self, analyzers: Iterable[Analyzer]) -> None:
        for analyzer in analyzers:
            reclaimed = self._database.analyses.reclaim(
                analyzer.name,
                analyzer.max_attempts,
                "the worker that ran it was lost",
                version=analyzer.version,
            )
            if reclaimed:
                log.warning("analyses_taken_back", analyzer=analyzer.name, count=reclaimed)

    def _complete_old_records(self) -> None:
        """Add what records of older releases lack; it is called again until nothing fails."""
        try:
            while completed := self._database.listing.add_missing_facets():
                log.info("uploads_completed", count=completed)
            for completed in self._database.tag_keys.add_all_missing():
                if completed:
                    log.info("tag_keys_made", count=completed)
            for completed in self._database.local_dates.add_all_missing():
                if completed:
                    log.info("local_dates_made", count=completed)
            for made in self._database.search_terms.update_all():
                if made:
                    log.info("search_terms_made", count=made)
            for repaired in self._database.duplicates.repair_all():
                if repaired:
                    log.info("copies_put_right", count=repaired)
            for made in self._vector_upkeep.fill():
                log.info("vectors_made", count=made)
            self._database.make_result_indexes(INDEX_SECONDS)
            if unused := self._database.unused_indexes():
                log.info("indexes_unused", names=unused)
            self._completed = True
        except ClustrError as error:
            log.warning("old_records_wait", reason=str(error))
        except Exception:  # A thread has nobody else who would log it.
            log.exception("old_records_not_completed")

    def _search_services(self) -> None:
        """Look for services at default addresses, of which one may be slow to answer."""
        try:
            self._services.search()
        except ClustrError as error:
            log.warning("default_services_not_searched", reason=str(error))

    def stop(self) -> None:
        """Let another process take over at once."""
        self._database.leases.release(LEASE, self._owner)

    def _needs_worker(self, analyzer: Analyzer) -> bool:
        breaker = self._database.circuit_breakers.get(analyzer.name)
        is_deferred = breaker is not None and breaker.open
        if breaker is not None and is_deferred and not breaker.due:
            return False
        return self._database.analyses.has_work(analyzer.name, only_due=not is_deferred)

    def _clean(self) -> None:
        if time.monotonic() - self._cleaned_at < CLEAN_EVERY_SECONDS:
            return
        self._cleaned_at = time.monotonic()
        with suppress(StorageFull, StorageUnavailable):  # It is logged; the rest does not need it.
            if removed := self._storage.clean(now() - LEFT_BEHIND_AFTER):
                log.info("temporary_files_removed", count=removed)
        self._repair_duplicates()
        self._vector_upkeep.clean()
        if made := self._database.search_terms.update_due():
            log.info("search_terms_made", count=made)
        if made := self._database.local_dates.add_missing():
            log.info("local_dates_made", count=made)
        self._database.vocabulary.count_some()
        self._settle_waiting()

    def _settle_waiting(self) -> None:
        """Settle what waits for analyzers that are gone; this looks at all that waits."""
        if time.monotonic() - self._settled_at < GONE_AFTER.total_seconds():
            return
        names = [analyzer.name for analyzer in self._analyzers]
        if settled := self._database.analyses.settle_waiting(names, GONE_AFTER):
            log.info("analyses_settled", count=settled)
        self._settled_at = time.monotonic()

    def _repair_duplicates(self) -> None:
        """Repair the duplicates of some uploads: a process may have died before it noted them."""
        repaired = next(self._duplicates_walk, None)
        if repaired is None:
            self._duplicates_walk = self._database.duplicates.repair_all()
        elif repaired:
            log.info("copies_put_right", count=repaired)
