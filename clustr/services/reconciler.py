"""The reconciler: sees to it that every analysis reaches its end, whatever is killed or lost.

It runs beside the workers, in one process at a time. Nothing depends on it while all goes well.
"""

import threading
import time
from datetime import timedelta
from uuid import uuid4

from clustr import logs
from clustr.database import Database, now
from clustr.domain.errors import ClustrError
from clustr.plugin_manager import PluginManager
from clustr.plugins import Analyzer
from clustr.queue import Queue
from clustr.services.default_services import DefaultServices
from clustr.services.removal import Removal
from clustr.storage import LocalStorage

log = logs.logger(__name__)

LEASE = "reconciler"
# It is prolonged when a third of it is left: five rounds in which MongoDB may be slow. Of a process
# that was killed another takes over after 5 to 15 s.
LEASE_SECONDS = 15.0
ROUND_SECONDS = 1.0
CLEAN_EVERY_SECONDS = 60.0
SEARCH_EVERY_SECONDS = 10.0
INDEX_SECONDS = 3600.0
LEFT_BEHIND_AFTER = timedelta(hours=24)
# An analyzer that no plugin brings any more is waited for so long.
GONE_AFTER = timedelta(minutes=10)


class Reconciler:
    """Rings for what waits, takes back what died, removes what was left behind or thrown away."""

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
        self._analyzers = list(plugin_manager.analyzers.values())
        self._owner = uuid4().hex
        self._cleaned_at = self._searched_at = float("-inf")
        self._searching = threading.Thread()
        self._walk = database.duplicates.walk()
        self._indexed = False

    def run_forever(self) -> None:
        """One round after another; a dependency that is away makes a round do nothing."""
        while True:
            try:
                self.run_once()
            except ClustrError as error:
                log.warning("reconciler_waits", reason=str(error))
            time.sleep(ROUND_SECONDS)

    def run_once(self) -> None:
        """One round, unless another process is the one that acts."""
        if not self._database.leases.take(LEASE, self._owner, LEASE_SECONDS):
            return
        if not self._indexed:  # The web side does it too, but may have started without MongoDB.
            self._database.make_indexes()
            threading.Thread(target=self._catch_up, daemon=True).start()
            self._indexed = True
        for analyzer in self._analyzers:
            taken = self._database.analyses.reclaim(
                analyzer.name, analyzer.max_attempts, "the worker that ran it was lost"
            )
            if taken:
                log.warning("analyses_taken_back", analyzer=analyzer.name, count=taken)
        self._clean()
        self._search()
        self._queue.ring([analyzer for analyzer in self._analyzers if self._needed(analyzer)])
        self._removal.resume()

    def _catch_up(self) -> None:
        """Beside all else, for among very many uploads it takes its time: what older ones lack."""
        try:
            while completed := self._database.listing.complete():
                log.info("uploads_completed", count=completed)
            for completed in self._database.tag_keys.walk():
                if completed:
                    log.info("tag_keys_made", count=completed)
            for wrong in self._database.duplicates.walk():
                if wrong:
                    log.info("copies_put_right", count=wrong)
            self._database.make_result_indexes(INDEX_SECONDS)
            if unused := self._database.unused_indexes():
                log.info("indexes_unused", names=unused)
        except ClustrError as error:
            log.error("indexes_not_made", reason=str(error))

    def _search(self) -> None:
        """Look for services at default addresses, beside all else: one may keep us waiting."""
        due = time.monotonic() - self._searched_at >= SEARCH_EVERY_SECONDS
        if due and not self._searching.is_alive():
            self._searched_at = time.monotonic()
            self._searching = threading.Thread(target=self._search_once, daemon=True)
            self._searching.start()

    def _search_once(self) -> None:
        try:
            self._services.search()
        except ClustrError as error:
            log.warning("default_services_not_searched", reason=str(error))

    def stop(self) -> None:
        """Let another process take over at once."""
        self._database.leases.give_back(LEASE, self._owner)

    def _needed(self, analyzer: Analyzer) -> bool:
        breaker = self._database.circuit_breakers.get(analyzer.name)
        being_put_off = breaker is not None and breaker.open
        if being_put_off and not breaker.due:
            return False
        return self._database.analyses.work_waits(analyzer.name, only_due=not being_put_off)

    def _clean(self) -> None:
        if time.monotonic() - self._cleaned_at < CLEAN_EVERY_SECONDS:
            return
        self._cleaned_at = time.monotonic()
        if removed := self._storage.clean(now() - LEFT_BEHIND_AFTER):
            log.info("temporary_files_removed", count=removed)
        self._put_copies_right()
        names = [analyzer.name for analyzer in self._analyzers]
        if settled := self._database.analyses.settle(names, GONE_AFTER):
            log.info("analyses_settled", count=settled)

    def _put_copies_right(self) -> None:
        """Of some uploads at a time: who stored a duplicate may have died before he did it."""
        wrong = next(self._walk, None)
        if wrong is None:
            self._walk = self._database.duplicates.walk()
        elif wrong:
            log.info("copies_put_right", count=wrong)
