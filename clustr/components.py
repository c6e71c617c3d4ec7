"""The long-lived collaborators of a process, built once from the settings and handed down.

Build them after a fork, never before: clients of MongoDB and Redis must not cross one.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from clustr import logs
from clustr.analysis.engine import AnalysisEngine
from clustr.database import Database, DatabaseView, Predecessor
from clustr.domain.errors import (
    DatabaseUnavailable,
    QueueUnavailable,
    StartUpError,
    StorageUnavailable,
)
from clustr.imaging import decode_limits, pillow_setup
from clustr.imaging.formats import Format, formats_for
from clustr.plugin_manager import (
    LoadLimit,
    Plugin,
    PluginManager,
    check_enabled,
    load_plugins,
    notes_folder,
)
from clustr.plugins import Library
from clustr.queue import DoorbellRinger, Queue
from clustr.queue.quotas import QuotaStore
from clustr.services.audit import AuditLog
from clustr.services.authentication import Authentication
from clustr.services.default_services import DefaultServices
from clustr.services.fsck import Fsck
from clustr.services.health import HealthChecks
from clustr.services.intake import Intake
from clustr.services.job_runner import JobRunner
from clustr.services.jobs import AnalysisJobs, BulkJobs, ForgettingJobs
from clustr.services.key_making import KeyMaking
from clustr.services.library import PluginLibrary, url_below
from clustr.services.nearest import Nearest
from clustr.services.originals import Originals
from clustr.services.own_health import OwnHealthChecks
from clustr.services.plugin_events import STORED_HOOK, PluginEvents
from clustr.services.predecessor import TakeOver
from clustr.services.reconciler import Reconciler
from clustr.services.removal import Removal
from clustr.services.running_processes import RunningProcesses
from clustr.services.thumbnails import Thumbnails
from clustr.services.url_signing import UrlSigner
from clustr.services.waiting import AnalysesWatch, AnalysisWaits
from clustr.settings import Settings, describe_unknown_variables
from clustr.storage import LocalStorage

if TYPE_CHECKING:  # Workers do not import Flask.
    from flask_smorest import Blueprint

log = logs.logger(__name__)

# A request must not wait long for MongoDB or Redis when they are away; a worker can.
WEB_TIMEOUT_SECONDS = 2.0
WORKER_TIMEOUT_SECONDS = 10.0
# In the data folder; copies of the vectors in MongoDB, which are made again when they are gone.
VECTORS_FOLDER = "vectors"


@dataclass(frozen=True)
class WebComponents:
    """The collaborators of a request, bound to the uploads that it may see."""

    settings: Settings
    database: DatabaseView
    storage: LocalStorage
    plugin_manager: PluginManager
    blueprints: "list[tuple[Plugin, Blueprint]]"
    default_services: DefaultServices
    intake: Intake
    health: HealthChecks | OwnHealthChecks
    analysis_jobs: AnalysisJobs
    analysis_waits: AnalysisWaits
    originals: Originals
    url_signer: UrlSigner
    thumbnails: Thumbnails
    removal: Removal
    bulk_jobs: BulkJobs
    running_processes: RunningProcesses
    nearest: Nearest
    authentication: Authentication
    quotas: QuotaStore
    audit: AuditLog
    key_making: KeyMaking


@dataclass(frozen=True)
class WebProcess(WebComponents):
    """The collaborators of a web process; by themselves they are bound to all uploads.

    Attributes:
        seen_by: gives those that are bound to the uploads of an owner, or to all for None.
        ringer: rings the doorbells of this process.
    """

    database: Database
    seen_by: Callable[[str | None], WebComponents]
    ringer: DoorbellRinger

    def close(self) -> None:
        """Ring for what was stored, and close the connections to MongoDB."""
        self.ringer.stop()
        self.database.close()


@dataclass(frozen=True)
class WorkerComponents:
    """The collaborators of a worker process."""

    database: Database
    engine: AnalysisEngine
    reconciler: Reconciler
    job_runner: JobRunner
    running_processes: RunningProcesses


def build_plugin_manager(settings: Settings) -> PluginManager:
    """Load the plugins. This opens no connection and may be done before a fork.

    Raises:
        StartUpError: a setting cannot be used.
    """
    check_enabled(settings.plugins_folder, settings.plugins_enabled)
    plugin_manager = load_plugins(
        settings.plugins_folder,
        settings.plugins_enabled,
        settings.plugins_disabled,
        settings.plugins_config,
        settings.environment,
        limit=LoadLimit(settings.plugins_load_seconds, notes_folder(settings.environment)),
    )
    for sentence in describe_unknown_variables(settings.environment, plugin_manager.variables()):
        log.warning("setting_unknown", reason=sentence)
    return plugin_manager


def build_database(settings: Settings, timeout_seconds: float) -> Database:
    """Build the client of MongoDB; each of its operations takes at most `timeout_seconds`."""
    return Database(
        settings.mongodb_url,
        settings.mongodb_database,
        settings.mongodb_uploads_collection,
        timeout_seconds,
        settings.search_languages,
    )


def claim_installation(database: Database, storage: LocalStorage, queue: Queue) -> bool:
    """Mark the upload folder and Redis as this installation's.

    What cannot be reached is claimed at its first use: by the intake, the ringer or a worker.

    Returns:
        whether both are marked.

    Raises:
        StartUpError: the folder or Redis belongs to another installation.
    """
    try:
        storage.claim(database.installation)
        queue.claim(database.installation)
    except (DatabaseUnavailable, QueueUnavailable, StorageUnavailable) as error:
        log.warning("installation_not_checked", reason=str(error))
        return False
    return True


def indexed_result_fields(plugin_manager: PluginManager) -> frozenset[str]:
    """Return the fields of results for which a plugin asks for an index."""
    return frozenset(filter.index for filter in plugin_manager.filters if filter.indexed)


def build_nearest(
    settings: Settings,
    database: Database,
    plugin_manager: PluginManager,
    seconds: float | None = None,
) -> Nearest:
    """Build the search for the nearest vectors; `seconds` is how long it waits for them."""
    return Nearest(database, settings.data_folder / VECTORS_FOLDER, plugin_manager, seconds)


def library_maker(
    settings: Settings, nearest: Nearest, plugin_manager: PluginManager
) -> Callable[[Plugin], Library]:
    """Make what makes the library of a plugin, outside of requests."""
    url_of = url_below(settings.base_url, settings.upload_url_path)
    return lambda plugin: PluginLibrary(lambda: nearest, plugin, plugin_manager, url_of)


def build_web(
    settings: Settings,
    url_of: Callable[[str], str],
    problem_with_routes: "Callable[[Plugin, list[Blueprint]], str | None]",
    owner_of_request: Callable[[], str | None],
) -> WebProcess:
    """Build the collaborators of a web process.

    Args:
        url_of: says, while a request is answered, where clients find the file of this name.
        problem_with_routes: returns why the routes of a plugin cannot be used, or None.
        owner_of_request: says, while a request is answered, whose uploads are the only ones there
            are for it; None: all are.

    Raises:
        StartUpError: a setting cannot be used.
    """
    pillow_setup.prepare(settings.max_image_pixels)
    decode_limits.limit_memory(settings.decode_memory)
    database = build_database(settings, WEB_TIMEOUT_SECONDS)
    plugin_manager = build_plugin_manager(settings)
    nearest = build_nearest(settings, database, plugin_manager)

    def library_of_routes(plugin: Plugin) -> Library:
        return PluginLibrary(
            lambda: nearest.seen_by(owner_of_request()), plugin, plugin_manager, url_of
        )

    plugin_manager.library_of = library_maker(settings, nearest, plugin_manager)
    blueprints = plugin_manager.blueprints(library_of_routes, problem_with_routes)
    database.indexed_fields = indexed_result_fields(plugin_manager)
    storage = LocalStorage(settings.upload_folder)
    storage.prepare(database.in_use)
    storage.warn_if_world_readable()
    queue = Queue(settings.redis_url, settings.redis_prefix)
    claim_installation(database, storage, queue)
    plugin_events = PluginEvents(plugin_manager)
    formats = _accepted_formats(settings)
    ringer = DoorbellRinger(queue, database.installation)
    default_services = DefaultServices(database, plugin_manager)
    default_services.watch()
    health = HealthChecks(
        database,
        storage,
        queue,
        plugin_manager,
        default_services,
        settings.max_upload_size,
        keeps_quotas=settings.keeps_quotas,
        asks_for_keys=settings.auth == "keys",
    )
    running_processes = RunningProcesses(queue, plugin_manager)
    running_processes.announce("web", os.getpid(), database)
    authentication = Authentication(database.keys, database.sessions)
    quotas = QuotaStore(settings.redis_url, settings.redis_prefix)
    audit = AuditLog(database, settings.audit_days)
    url_signer = UrlSigner(
        lambda: settings.url_signing_keys or [database.url_signing_key()], settings.url_days
    )
    watch = AnalysesWatch(database.analyses)
    views: dict[str | None, WebComponents] = {}

    def seen_by(owner: str | None) -> WebComponents:
        if owner not in views:
            views[owner] = build(database.view_of(owner))
        return views[owner]

    def build(view: DatabaseView) -> WebComponents:
        return WebComponents(
            settings,
            view,
            storage,
            plugin_manager,
            blueprints,
            default_services,
            Intake(
                view,
                storage,
                ringer,
                plugin_manager.analyzers,
                formats,
                settings.max_upload_size,
                plugin_events.notify_stored,
                default_services,
            ),
            health if view.owner is None else OwnHealthChecks(health),
            AnalysisJobs(view, plugin_manager, ringer, default_services),
            AnalysisWaits(view, watch),
            Originals(storage),
            url_signer,
            Thumbnails(view, storage),
            Removal(view, storage, plugin_events.notify_deleted, settings.trash_days),
            BulkJobs(view),
            running_processes,
            nearest.seen_by(view.owner),
            authentication,
            quotas,
            audit,
            KeyMaking(database.keys),
        )

    of_process = {"database": database, "seen_by": seen_by, "ringer": ringer}
    return WebProcess(**vars(seen_by(None)) | of_process)


def _accepted_formats(settings: Settings) -> tuple[Format, ...]:
    """The formats of `ALLOWED_EXTENSIONS`; of the default without those that cannot be read here.

    Raises:
        StartUpError: there is no such format, or it cannot be read here.
    """
    is_default = "ALLOWED_EXTENSIONS" not in settings.given
    try:
        return formats_for(settings.allowed_extensions, leave_out=is_default)
    except ValueError as error:
        raise StartUpError(f"ALLOWED_EXTENSIONS: {error}") from error


def build_worker(settings: Settings, plugin_manager: PluginManager) -> WorkerComponents:
    """Build the collaborators of a worker process.

    Raises:
        StartUpError: a setting cannot be used.
    """
    pillow_setup.prepare(settings.max_image_pixels)
    database = build_database(settings, WORKER_TIMEOUT_SECONDS)
    database.indexed_fields = indexed_result_fields(plugin_manager)
    storage = LocalStorage(settings.upload_folder)
    storage.prepare(database.in_use)
    queue = Queue(settings.redis_url, settings.redis_prefix)
    nearest = build_nearest(settings, database, plugin_manager)
    plugin_manager.library_of = library_maker(settings, nearest, plugin_manager)
    plugin_events = PluginEvents(plugin_manager)
    removal = Removal(database, storage, plugin_events.notify_deleted_and_wait, settings.trash_days)
    return WorkerComponents(
        database,
        AnalysisEngine(database, storage, queue, plugin_manager),
        Reconciler(
            database,
            storage,
            queue,
            plugin_manager,
            removal,
            DefaultServices(database, plugin_manager),
        ),
        JobRunner(database, queue, plugin_manager, removal),
        RunningProcesses(queue, plugin_manager),
    )


@contextmanager
def build_analysis_jobs(
    settings: Settings,
) -> Iterator[tuple[AnalysisJobs, Database, RunningProcesses]]:
    """Build what orders analyses, the database that has their progress, and what knows who runs.

    Yields:
        All three, for the block; the database is closed after it.

    Raises:
        StartUpError: a setting cannot be used.
    """
    plugin_manager = build_plugin_manager(settings)
    queue = Queue(settings.redis_url, settings.redis_prefix)
    database = build_database(settings, WEB_TIMEOUT_SECONDS)
    ringer = DoorbellRinger(queue, database.installation)
    try:
        yield (
            AnalysisJobs(
                database, plugin_manager, ringer, DefaultServices(database, plugin_manager)
            ),
            database,
            RunningProcesses(queue, plugin_manager),
        )
    finally:
        ringer.stop()
        database.close()


@contextmanager
def build_plugin_library(
    settings: Settings, plugin_manager: PluginManager, plugin: Plugin
) -> Iterator[Library]:
    """Build the library that the commands of a plugin are given, for the block."""
    database = build_database(settings, WORKER_TIMEOUT_SECONDS)
    try:
        nearest = build_nearest(settings, database, plugin_manager, seconds=math.inf)
        yield library_maker(settings, nearest, plugin_manager)(plugin)
    finally:
        database.close()


@contextmanager
def build_forgetting(settings: Settings) -> Iterator[tuple[ForgettingJobs, Database]]:
    """Build what removes the rest of analyzers, and the database, for the block.

    Raises:
        StartUpError: a setting cannot be used.
    """
    plugin_manager = build_plugin_manager(settings)
    database = build_database(settings, WORKER_TIMEOUT_SECONDS)
    database.indexed_fields = indexed_result_fields(plugin_manager)
    try:
        queue = Queue(settings.redis_url, settings.redis_prefix)
        running_processes = RunningProcesses(queue, plugin_manager)
        yield ForgettingJobs(database, plugin_manager, running_processes), database
    finally:
        database.close()


@contextmanager
def build_keys(settings: Settings) -> Iterator[tuple[KeyMaking, Database, AuditLog]]:
    """Build what makes keys, the database, and the log of what is done to keys, for the block.

    Raises:
        StartUpError: a setting cannot be used.
    """
    database = build_database(settings, WORKER_TIMEOUT_SECONDS)
    try:
        database.make_indexes()  # So that no two keys have the same name.
        yield KeyMaking(database.keys), database, AuditLog(database, settings.audit_days)
    finally:
        database.close()


@contextmanager
def build_take_over(settings: Settings, url: str, collection: str) -> Iterator[TakeOver]:
    """Build what takes over the uploads of the predecessor, for the block.

    Args:
        url: of the predecessor's MongoDB.
        collection: in which it has its uploads.

    Raises:
        StartUpError: a setting, the address or the collection cannot be used.
    """
    pillow_setup.prepare(settings.max_image_pixels)
    decode_limits.limit_memory(settings.decode_memory)
    plugin_manager = build_plugin_manager(settings)
    with (
        closing(Predecessor(url, collection)) as predecessor,
        closing(build_database(settings, WORKER_TIMEOUT_SECONDS)) as database,
    ):
        plugin_manager.library_of = library_maker(
            settings, build_nearest(settings, database, plugin_manager), plugin_manager
        )
        database.make_indexes()
        storage = LocalStorage(settings.upload_folder)
        storage.prepare(database.in_use)
        queue = Queue(settings.redis_url, settings.redis_prefix)
        claim_installation(database, storage, queue)
        default_services = DefaultServices(database, plugin_manager)
        default_services.refresh()
        intake = Intake(
            database,
            storage,
            DoorbellRinger(queue, database.installation),
            plugin_manager.analyzers,
            _accepted_formats(settings),
            settings.max_upload_size,
            # Called directly: `PluginEvents` drops events when many wait.
            lambda upload: plugin_manager.notify(STORED_HOOK, upload=upload),
            default_services,
        )
        yield TakeOver(predecessor, intake, database.old_ids)


@contextmanager
def build_fsck(settings: Settings, grace: timedelta, quick: bool) -> Iterator[Fsck]:
    """Build the integrity check for the block; nothing is created where there is no store.

    Args:
        grace: how old a file must be to count as orphaned.
        quick: whether to leave the bytes of the files unread.

    Raises:
        StartUpError: a setting cannot be used.
    """
    pillow_setup.prepare(settings.max_image_pixels)
    plugin_manager = build_plugin_manager(settings)
    database = build_database(settings, WORKER_TIMEOUT_SECONDS)
    try:
        database.require_initiated()
        storage = LocalStorage(settings.upload_folder)
        if storage.is_there():
            storage.claim(database.installation)
        yield Fsck(database, storage, plugin_manager.analyzers, grace, quick)
    finally:
        database.close()
