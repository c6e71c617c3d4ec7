"""Health: how the service and all that it needs are, asked at once and within a time limit."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

from clustr import __version__, logs
from clustr.database import Database, now
from clustr.domain import failure_messages
from clustr.domain.errors import ClustrError, DatabaseUnavailable, QueueUnavailable
from clustr.plugin_manager import PluginManager, authors_frames
from clustr.plugin_manager.service_addresses import advice, default_address, service_of
from clustr.plugins import Analyzer, Health
from clustr.queue import Queue
from clustr.services.default_services import DefaultServices, context_of
from clustr.storage import LocalStorage

log = logs.logger(__name__)

ANSWER_SECONDS = 2.5

# What is worth a look: an upload that waits for so long, and room for so few more of them.
LONGEST_WAIT_SECONDS = 60
LEAST_UPLOADS = 10  # of the largest that are accepted
LEAST_INODES = 1000

HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"
DISABLED, NOT_CONFIGURED = "disabled", "not_configured"
# What is missing on purpose is no trouble.
FINE = (HEALTHY, DISABLED, NOT_CONFIGURED)
CRITICAL_SERVICES = ("database", "storage")
# The name under which clients find the service that captions come from, whatever it is.
CAPTIONER = "captioner"
CORE_SERVICES = ("backend", "database", "queue", "storage")
STATUSES = (DISABLED, NOT_CONFIGURED, HEALTHY, DEGRADED, UNHEALTHY)  # the worst last


@dataclass(frozen=True, slots=True)
class Service:
    """How one service is.

    Attributes:
        status: `healthy`, `degraded`, `unhealthy`, `not_configured` or `disabled`.
        details: what else there is to say; the reason for its status is the `detail`.
        milliseconds: how long its check took.
    """

    status: str
    details: dict[str, Any] = field(default_factory=dict)
    milliseconds: float = 0.0


class HealthChecks:
    """The checks of all services. One that hangs is reported so, and is not asked twice at once."""

    def __init__(
        self,
        database: Database,
        storage: LocalStorage,
        queue: Queue,
        plugin_manager: PluginManager,
        services: DefaultServices,
        max_upload_size: int,
    ):
        self._database = database
        self._default_services = services
        self._storage = storage
        self._queue = queue
        self._plugin_manager = plugin_manager
        self._least_bytes = LEAST_UPLOADS * max_upload_size
        self._began_at = time.monotonic()
        self._checks: dict[str, Callable[[], dict[str, Service]]] = {
            "backend": self._backend,
            "database": self._database_details,
            "queue": self._queue_state,
            "storage": self._storage_state,
        }
        for analyzer in plugin_manager.analyzers.values():
            # In capitals, so that one of the name of a core service does not take its place.
            if type(analyzer).health is not Analyzer.health:
                self._checks[analyzer.name.upper()] = lambda a=analyzer: self._of_analyzer(a)
        self._threads = ThreadPoolExecutor(2 * len(self._checks), "health")
        self._running: dict[str, Future[dict[str, Service]]] = {}

    def services(self) -> dict[str, Service]:
        """How every service is, by its name."""
        for name, check in self._checks.items():
            if name not in self._running or self._running[name].done():
                self._running[name] = self._threads.submit(_timed, name.lower(), check)
        asked = dict(self._running)
        wait(asked.values(), timeout=ANSWER_SECONDS)
        answers = {name: _answer(name.lower(), future) for name, future in asked.items()}
        found: dict[str, Service] = {}
        for name in CORE_SERVICES:
            found |= answers.pop(name)
        found[CAPTIONER] = self._captioner(answers)
        for services in answers.values():  # Those of plugins come last and replace none.
            for name, service in services.items():
                found.setdefault(name, service)
        return found

    def _captioner(self, answers: Mapping[str, dict[str, Service]]) -> Service:
        """The service of the analyzer that fills `caption`; of several, that in the worst state."""
        found = []
        for analyzer in self._plugin_manager.analyzers.values():
            if "caption" in analyzer.fields:
                needed = answers.get(analyzer.name.upper(), {}).values()
                detail = f"The analyzer {analyzer.name} writes captions and needs no service."
                found.append(next(iter(needed), Service(HEALTHY, {"detail": detail})))
        if found:
            return max(found, key=lambda service: STATUSES.index(service.status))
        return Service(DISABLED, {"detail": self._no_captions()})

    def _no_captions(self) -> str:
        """Why no analyzer writes captions, as far as that is known."""
        missing = [
            f"{p.name} ({p.reason or p.state})" for p in self._plugin_manager.plugins if p.reason
        ]
        why = f" Plugins that are not loaded: {', '.join(missing)}." if missing else ""
        return f"No loaded plugin writes captions.{why}"

    def ready(self) -> bool:
        """Whether uploads can be taken: the database and the storage are there."""
        services = self.services()
        return all(services[name].status != UNHEALTHY for name in CRITICAL_SERVICES)

    def _backend(self) -> dict[str, Service]:
        uptime = round(time.monotonic() - self._began_at, 1)
        details = {"version": __version__, "uptime_seconds": uptime}
        return {"backend": Service(HEALTHY, details)}

    def _database_details(self) -> dict[str, Service]:
        counts = {"image_count": self._database.uploads.estimated_count()}
        tally = self._database.counters.totals()
        if tally and tally.captioned is not None:
            counts["captioned_images"] = tally.captioned
            counts["uncaptioned_images"] = tally.uploads - tally.captioned
        return {"database": Service(HEALTHY, {**self._database.describe(), **counts})}

    def _storage_state(self) -> dict[str, Service]:
        self._storage.check()
        room = self._storage.room()
        details = {"free_bytes": room.bytes, "free_inodes": room.inodes}
        if room.bytes < self._least_bytes:
            detail = f"There is room for {failure_messages.size_text(room.bytes)} only."
        elif room.inodes is not None and room.inodes < LEAST_INODES:
            detail = f"There is room for {room.inodes} files only (inodes)."
        else:
            return {"storage": Service(HEALTHY, details)}
        return {"storage": Service(DEGRADED, {"detail": detail, **details})}

    def _queue_state(self) -> dict[str, Service]:
        analyzers = self._analyzers_in_use()
        waiting = self._waiting_seconds(analyzers)
        more = {"waiting_seconds": waiting, "deferred": self._deferred()}
        try:
            workers = self._queue.workers({analyzer.queue for analyzer in analyzers})
            details = {"jobs": self._queue.lengths(), "workers": workers, **more}
        except QueueUnavailable as error:
            return {"queue": Service(UNHEALTHY, {"detail": str(error), **more})}
        without = [queue for queue, count in workers.items() if not count]
        if without:
            detail = f"No worker is there for the queue {', '.join(without)}: run `clustr worker`."
        elif waiting is not None and waiting > LONGEST_WAIT_SECONDS:
            detail = f"An upload has waited for {waiting:.0f} s for its analysis to begin."
        else:
            return {"queue": Service(HEALTHY, details)}
        return {"queue": Service(DEGRADED, {"detail": detail, **details})}

    def _analyzers_in_use(self) -> list[Analyzer]:
        without = self._default_services.not_configured
        return [a for a in self._plugin_manager.analyzers.values() if a.name not in without]

    def _waiting_seconds(self, analyzers: Iterable[Analyzer]) -> float | None:
        """For how long the upload has waited that waits longest; None if nobody can say."""
        moment = now()
        try:
            found = [self._database.analyses.waiting_since(analyzer.name) for analyzer in analyzers]
        except DatabaseUnavailable:
            return None
        waited = [(moment - since).total_seconds() for since in found if since]
        return round(max([0.0, *waited]), 1)

    def _deferred(self) -> dict[str, dict[str, Any]] | None:
        """How many analyses are deferred and since when, by analyzer; None if nobody can say."""
        try:
            found = {
                name: self._database.analyses.deferred(name)
                for name in self._plugin_manager.analyzers
            }
        except DatabaseUnavailable:
            return None
        return {name: {"count": d.count, "since": d.since} for name, d in found.items() if d}

    def _of_analyzer(self, analyzer: Analyzer) -> dict[str, Service]:
        plugin = self._plugin_manager.plugin_of(analyzer)
        if analyzer.name in self._default_services.not_configured:
            details = {"detail": advice(plugin, analyzer), "url": default_address(plugin)}
            return {service_of(analyzer): Service(NOT_CONFIGURED, details)}
        with context_of(plugin, ANSWER_SECONDS) as context:
            health = analyzer.health(context)
        if not isinstance(health, Health):
            return {}
        said = {"detail": failure_messages.as_plain_text(health.detail)} if health.detail else {}
        url = (
            failure_messages.without_credentials(failure_messages.as_plain_text(health.url))
            if health.url
            else None
        )
        where = {"url": url} if url else {}
        status = HEALTHY if health.healthy else UNHEALTHY
        return {failure_messages.as_plain_text(health.service): Service(status, said | where)}


def _timed(name: str, check: Callable[[], dict[str, Service]]) -> dict[str, Service]:
    """What a check finds, with how long it took; when it raises, that is what it has found."""
    began = time.monotonic()
    try:
        found = check()
    except ClustrError as error:
        found = {name: Service(UNHEALTHY, {"detail": str(error)})}
    except BaseException as error:  # It may be a plugin's, which has only itself in trouble.
        log.error("health_check_raised", service=name, exc_info=authors_frames(error))
        found = {name: Service(UNHEALTHY, {"detail": "its health check failed"})}
    took = (time.monotonic() - began) * 1000
    return {name: replace(service, milliseconds=took) for name, service in found.items()}


def _answer(name: str, future: "Future[dict[str, Service]]") -> dict[str, Service]:
    if future.done():
        return future.result()
    late = {"detail": "did not answer in time"}
    return {name: Service(UNHEALTHY, late, ANSWER_SECONDS * 1000)}


def overall(services: dict[str, Service]) -> str:
    """`critical` without what uploads need, `degraded` without something else, else `healthy`."""
    if any(services[name].status == UNHEALTHY for name in CRITICAL_SERVICES):
        return "critical"
    fine = all(service.status in FINE for service in services.values())
    return HEALTHY if fine else DEGRADED
