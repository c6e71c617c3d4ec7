"""Health checks of the service and of all that it needs, run in parallel with a time limit."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from clustr import __version__, logs
from clustr.database import Database, now
from clustr.domain import failure_messages
from clustr.domain.errors import ClustrError, DatabaseUnavailable, QueueUnavailable
from clustr.plugin_manager import PluginManager, plugin_exc_info
from clustr.plugin_manager.service_addresses import (
    advice,
    default_address,
    service_of,
    ways_to_captions,
)
from clustr.plugins import Analyzer, Health
from clustr.queue import Queue
from clustr.services.default_services import DefaultServices, context_of
from clustr.storage import LocalStorage

log = logs.logger(__name__)

ANSWER_SECONDS = 2.5

# The service is degraded when an upload waits for longer, or when there is less free space.
LONGEST_WAIT_SECONDS = 60
MIN_UPLOADS = 10  # of the largest that are accepted
MIN_INODES = 1000

QUOTAS_NOT_KEPT = "Until then nobody's requests and bytes are limited."

# A service that has succeeded at a call so lately lives, even if it is too busy to say so.
PROOF_SECONDS = 60

HEALTHY, BUSY, DEGRADED, UNHEALTHY = "healthy", "busy", "degraded", "unhealthy"
DISABLED, NOT_CONFIGURED = "disabled", "not_configured"
# A service that is busy, switched off or not configured does not make the whole degraded.
ACCEPTABLE_STATUSES = (HEALTHY, BUSY, DISABLED, NOT_CONFIGURED)
CRITICAL_SERVICES = ("database", "storage")
# The name under which clients find the service that writes captions, whatever its own name is.
CAPTIONER = "captioner"
CORE_SERVICES = ("backend", "database", "queue", "storage", "plugins")


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """The health of one service.

    Attributes:
        status: `healthy`, `busy`, `degraded`, `unhealthy`, `not_configured` or `disabled`.
        details: further values; `detail` among them is the reason for the status.
        milliseconds: how long its check took.
    """

    status: str
    details: dict[str, Any] = field(default_factory=dict)
    milliseconds: float = 0.0


class HealthChecks:
    """The checks of all services.

    A check that hangs makes its service unhealthy, and is not started again before it has ended.
    """

    def __init__(
        self,
        database: Database,
        storage: LocalStorage,
        queue: Queue,
        plugin_manager: PluginManager,
        services: DefaultServices,
        max_upload_size: int,
        keeps_quotas: bool,
        asks_for_keys: bool,
    ):
        self._database = database
        # Callers need a key, and there may be none yet.
        self._lacks_key = asks_for_keys
        self._default_services = services
        self._storage = storage
        self._queue = queue
        self._plugin_manager = plugin_manager
        self._keeps_quotas = keeps_quotas
        self._min_free_bytes = MIN_UPLOADS * max_upload_size
        self._began_at = time.monotonic()
        self._checks: dict[str, Callable[[], dict[str, ServiceHealth]]] = {
            "backend": self._check_backend,
            "database": self._check_database,
            "queue": self._check_queue,
            "storage": self._check_storage,
            "plugins": self._check_plugins,
        }
        for analyzer in plugin_manager.analyzers.values():
            # In capitals, so that an analyzer cannot replace a core service of the same name.
            if type(analyzer).health is not Analyzer.health:
                self._checks[analyzer.name.upper()] = partial(self._check_analyzer, analyzer)
        self._threads = ThreadPoolExecutor(2 * len(self._checks), "health")
        self._running: dict[str, Future[dict[str, ServiceHealth]]] = {}

    def check_services(self) -> dict[str, ServiceHealth]:
        """Run all checks; return the health of every service by its name."""
        for name, check in self._checks.items():
            if name not in self._running or self._running[name].done():
                self._running[name] = self._threads.submit(_run_check, name.lower(), check)
        futures = dict(self._running)
        wait(futures.values(), timeout=ANSWER_SECONDS)
        answers = {
            name: _result_or_timeout(name.lower(), future) for name, future in futures.items()
        }
        results: dict[str, ServiceHealth] = {}
        for name in CORE_SERVICES:
            results |= answers.pop(name)
        results[CAPTIONER] = self._captioner_service(answers)
        for services in answers.values():  # Plugins' services come last and replace none.
            for name, service in services.items():
                results.setdefault(name, service)
        return results

    def _captioner_service(self, answers: Mapping[str, dict[str, ServiceHealth]]) -> ServiceHealth:
        """The service of the analyzer that fills `caption`."""
        for analyzer in self._plugin_manager.analyzers.values():
            if "caption" in analyzer.fields:
                needed = answers.get(analyzer.name.upper(), {}).values()
                detail = f"The analyzer {analyzer.name} writes captions and needs no service."
                return next(iter(needed), ServiceHealth(HEALTHY, {"detail": detail}))
        return ServiceHealth(DISABLED, {"detail": self._explain_no_captions()})

    def _explain_no_captions(self) -> str:
        """Why no analyzer writes captions, as far as that is known."""
        missing = [
            f"{p.name} ({p.reason or p.state})" for p in self._plugin_manager.plugins if p.reason
        ]
        explanation = f" Plugins that are not loaded: {', '.join(missing)}." if missing else ""
        ways = ways_to_captions(self._plugin_manager.plugins)
        return f"No loaded plugin writes captions.{explanation} {ways}".rstrip()

    def is_ready(self) -> bool:
        """Whether uploads can be accepted: neither the database nor the storage is unhealthy.

        Where keys are asked for there has to be one, which then is there for good: revoked keys are
        kept.
        """
        services = self.check_services()
        if any(services[name].status == UNHEALTHY for name in CRITICAL_SERVICES):
            return False
        self._lacks_key = self._lacks_key and not self._database.keys.any()
        return not self._lacks_key

    def _check_backend(self) -> dict[str, ServiceHealth]:
        uptime = round(time.monotonic() - self._began_at, 1)
        details = {"version": __version__, "uptime_seconds": uptime}
        return {"backend": ServiceHealth(HEALTHY, details)}

    def _check_plugins(self) -> dict[str, ServiceHealth]:
        reasons = {p.name: p.reason for p in self._plugin_manager.not_loaded()}
        if not reasons:
            return {"plugins": ServiceHealth(HEALTHY)}
        told = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
        details = {"detail": f"Not loaded: {told}.", "not_loaded": reasons}
        return {"plugins": ServiceHealth(DEGRADED, details)}

    def _check_database(self) -> dict[str, ServiceHealth]:
        counts: dict[str, Any] = {"image_count": self._database.uploads.estimated_count()}
        totals = self._database.counters.totals()
        if totals and totals.captioned is not None:
            counts["captioned_images"] = totals.captioned
            counts["uncaptioned_images"] = totals.uploads - totals.captioned
        if progress := self._database.search_terms.progress():
            counts["search_terms"] = {"done": progress.done, "total": progress.total}
        return {"database": ServiceHealth(HEALTHY, {**self._database.describe(), **counts})}

    def _check_storage(self) -> dict[str, ServiceHealth]:
        self._storage.check()
        free = self._storage.free_space()
        details = {"free_bytes": free.bytes, "free_inodes": free.inodes}
        if free.bytes < self._min_free_bytes:
            detail = f"There is room for {failure_messages.format_size(free.bytes)} only."
        elif free.inodes is not None and free.inodes < MIN_INODES:
            detail = f"There is room for {free.inodes} files only (inodes)."
        else:
            return {"storage": ServiceHealth(HEALTHY, details)}
        return {"storage": ServiceHealth(DEGRADED, {"detail": detail, **details})}

    def _check_queue(self) -> dict[str, ServiceHealth]:
        analyzers = self._analyzers_in_use()
        waiting = self._longest_wait_seconds(analyzers)
        waiting_work = {"waiting_seconds": waiting, "deferred": self._count_deferred()}
        try:
            workers = self._queue.count_workers({analyzer.queue for analyzer in analyzers})
            details = {"jobs": self._queue.count_jobs(), "workers": workers, **waiting_work}
        except QueueUnavailable as error:
            detail = f"{error} {QUOTAS_NOT_KEPT}" if self._keeps_quotas else str(error)
            return {"queue": ServiceHealth(UNHEALTHY, {"detail": detail, **waiting_work})}
        unserved = [queue for queue, count in workers.items() if not count]
        if unserved:
            detail = f"No worker is there for the queue {', '.join(unserved)}: run `clustr worker`."
        elif waiting is not None and waiting > LONGEST_WAIT_SECONDS:
            detail = f"An upload has waited for {waiting:.0f} s for its analysis to begin."
        else:
            return {"queue": ServiceHealth(HEALTHY, details)}
        return {"queue": ServiceHealth(DEGRADED, {"detail": detail, **details})}

    def _analyzers_in_use(self) -> list[Analyzer]:
        not_configured = self._default_services.not_configured
        return [a for a in self._plugin_manager.analyzers.values() if a.name not in not_configured]

    def _longest_wait_seconds(self, analyzers: Iterable[Analyzer]) -> float | None:
        """For how long the oldest queued upload has waited; None while MongoDB is away."""
        moment = now()
        try:
            waiting_since = [
                self._database.analyses.waiting_since(analyzer.name) for analyzer in analyzers
            ]
        except DatabaseUnavailable:
            return None
        waiting_seconds = [(moment - since).total_seconds() for since in waiting_since if since]
        return round(max([0.0, *waiting_seconds]), 1)

    def _count_deferred(self) -> dict[str, dict[str, Any]] | None:
        """How many analyses are deferred, and since when, by analyzer; None without MongoDB."""
        try:
            deferred = {
                name: self._database.analyses.deferred_summary(name)
                for name in self._plugin_manager.analyzers
            }
        except DatabaseUnavailable:
            return None
        return {name: {"count": d.count, "since": d.since} for name, d in deferred.items() if d}

    def _check_analyzer(self, analyzer: Analyzer) -> dict[str, ServiceHealth]:
        plugin = self._plugin_manager.plugin_of(analyzer)
        if analyzer.name in self._default_services.not_configured:
            detail = advice(plugin, analyzer, self._plugin_manager.plugins)
            if "caption" in analyzer.fields:
                detail = f"No captioner is configured. {detail}"
            details = {"detail": detail, "url": default_address(plugin)}
            return {service_of(analyzer): ServiceHealth(NOT_CONFIGURED, details)}
        with context_of(plugin, ANSWER_SECONDS) as context:
            health = analyzer.health(context)
        if not isinstance(health, Health):
            return {}
        details = {"detail": failure_messages.as_plain_text(health.detail)} if health.detail else {}
        url = (
            failure_messages.without_credentials(failure_messages.as_plain_text(health.url))
            if health.url
            else None
        )
        address = {"url": url} if url else {}
        status = self._status_of(analyzer, health)
        return {
            failure_messages.as_plain_text(health.service): ServiceHealth(status, details | address)
        }

    def _status_of(self, analyzer: Analyzer, health: Health) -> str:
        """The status of the service that an analyzer calls.

        One that gives no answer in time may be busy with the calls of its analyzer. Unless one of
        them has failed since, a success proves that it lives; without one it is busy as long as
        calls are under way.
        """
        if health.healthy:
            return HEALTHY
        try:
            if not health.timed_out or self._database.circuit_breakers.get(analyzer.name):
                return UNHEALTHY
            succeeded_at = self._database.service_calls.last_success(analyzer.name)
            if succeeded_at and (now() - succeeded_at).total_seconds() < PROOF_SECONDS:
                return HEALTHY
            return BUSY if self._database.analyses.is_running(analyzer.name) else UNHEALTHY
        except DatabaseUnavailable:  # The health of the database says so.
            return UNHEALTHY


def _run_check(
    name: str, check: Callable[[], dict[str, ServiceHealth]]
) -> dict[str, ServiceHealth]:
    """Run a check and measure its time; one that raises makes its service unhealthy."""
    began = time.monotonic()
    try:
        results = check()
    except ClustrError as error:
        results = {name: ServiceHealth(UNHEALTHY, {"detail": str(error)})}
    except BaseException as error:  # The check may be a plugin's, and fails alone.
        log.error("health_check_raised", service=name, exc_info=plugin_exc_info(error))
        results = {name: ServiceHealth(UNHEALTHY, {"detail": "its health check failed"})}
    took = (time.monotonic() - began) * 1000
    return {name: replace(service, milliseconds=took) for name, service in results.items()}


def _result_or_timeout(
    name: str, future: "Future[dict[str, ServiceHealth]]"
) -> dict[str, ServiceHealth]:
    if future.done():
        return future.result()
    details = {"detail": "did not answer in time"}
    return {name: ServiceHealth(UNHEALTHY, details, ANSWER_SECONDS * 1000)}


def overall_status(services: dict[str, ServiceHealth]) -> str:
    """The status of the whole service.

    It is `critical` when uploads cannot be accepted, `degraded` when another service is not as it
    should be, else `healthy`.
    """
    if any(services[name].status == UNHEALTHY for name in CRITICAL_SERVICES):
        return "critical"
    all_acceptable = all(service.status in ACCEPTABLE_STATUSES for service in services.values())
    return HEALTHY if all_acceptable else DEGRADED
