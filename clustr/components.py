"""The long-lived collaborators of a process, built once from the settings and handed down.

Build them after a fork, never before: clients of MongoDB and Redis must not cross one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from clustr import logs
from clustr.analysis.engine import AnalysisEngine
from clustr.database import Database
from clustr.domain.errors import (
    DatabaseUnavailable,
    QueueUnavailable,
    StartUpError,
    StorageUnavailable,
)
from clustr.domain.models import Upload
from clustr.imaging import decode_limits, images
from clustr.plugin_manager import Plugin, PluginManager, check_enabled, load_plugins
from clustr.plugins import Library
from clustr.queue import DoorbellRinger, Queue
from clustr.services.bulk import AnalysisJobs, BulkJobs, JobRunner
from clustr.services.default_services import DefaultServices
from clustr.services.fsck import Fsck
from clustr.services.health import HealthChecks
from clustr.services.intake import Intake
from clustr.services.plugin_events import DELETED_HOOK, PluginEvents
from clustr.services.reconciler import Reconciler
from clustr.services.removal import Removal
from clustr.services.thumbnails import Thumbnails
from clustr.settings import Settings, describe_unknown_variables
from clustr.storage import LocalStorage

if TYPE_CHECKING:  # Workers do without Flask.
    from flask_smorest import Blueprint

log = logs.logger(__name__)

# In the request path a dependency that is away must be noticed soon; a worker can be more patient.
WEB_SECONDS = 2.0
WORKER_SECONDS = 10.0


@dataclass(frozen=True)
class WebComponents:
    """What the web side works with."""

    settings: Settings
    database: Database
    storage: LocalStorage
    plugin_manager: PluginManager
    blueprints: "list[tuple[Plugin, Blueprint]]"
    default_services: DefaultServices
    intake: Intake
    health: HealthChecks
    analysis_jobs: AnalysisJobs
    thumbnails: Thumbnails
    removal: Removal
    bulk_jobs: BulkJobs


@dataclass(frozen=True)
class WorkerComponents:
    """What a worker works with."""

    database: Database
    engine: AnalysisEngine
    reconciler: Reconciler
    bulk: JobRunner


def build_plugin_manager(settings: Settings) -> PluginManager:
    """Load the plugins; this opens nothing and may be done before a fork.

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
    )
    for sentence in describe_unknown_variables(settings.environment, plugin_manager.variables()):
        log.warning("setting_unknown", reason=sentence)
    return plugin_manager


def build_database(settings: Settings, timeout_seconds: float) -> Database:
    return Database(
        settings.mongodb_url,
        settings.mongodb_database,
        settings.mongodb_uploads_collection,
        timeout_seconds,
    )


def claim_installation(database: Database, storage: LocalStorage, queue: Queue) -> bool:
    """See that upload folder and Redis are no other installation's, and mark them as this one's.

    What is away is left to the first use: the intake's, the ringer's, a worker's.

    Returns:
        whether both are marked.

    Raises:
        StartUpError: one of them is another installation's.
    """
    try:
        storage.claim(database.installation)
        queue.claim(database.installation)
    except (DatabaseUnavailable, QueueUnavailable, StorageUnavailable) as error:
        log.warning("installation_not_checked", reason=str(error))
        return False
    return True


def indexed_result_fields(plugin_manager: PluginManager) -> frozenset[str]:
    """The fields of results that plugins want an index for."""
    return frozenset(filter.field for filter in plugin_manager.filters.values() if filter.indexed)


def build_web(
    settings: Settings,
    library: Callable[[Database, Plugin], Library],
    problem_with_routes: "Callable[[Plugin, list[Blueprint]], str | None]",
) -> WebComponents:
    """Build what the web side needs.

    Args:
        library: makes the uploads for a plugin's routes.
        problem_with_routes: says why the routes of a plugin cannot be used, if they cannot.

    Raises:
        StartUpError: a setting cannot be used.
    """
    images.prepare(settings.max_image_pixels)
    decode_limits.limit_memory(settings.decode_memory)
    database = build_database(settings, WEB_SECONDS)
    plugin_manager = build_plugin_manager(settings)
    blueprints = plugin_manager.blueprints(partial(library, database), problem_with_routes)
    database.indexed = indexed_result_fields(plugin_manager)
    storage = LocalStorage(settings.upload_folder)
    storage.prepare(database.in_use)
    storage.warn_if_open()
    queue = Queue(settings.redis_url, settings.redis_prefix)
    claim_installation(database, storage, queue)
    by_default = "ALLOWED_EXTENSIONS" not in settings.given
    try:
        formats = images.formats_for(settings.allowed_extensions, leave_out=by_default)
    except ValueError as error:
        raise StartUpError(f"ALLOWED_EXTENSIONS: {error}") from error
    notices = PluginEvents(plugin_manager)
    most = settings.max_upload_size
    ringer = DoorbellRinger(queue, database.installation)
    services = DefaultServices(database, plugin_manager)
    services.watch()
    intake = Intake(
        database,
        storage,
        ringer,
        plugin_manager.analyzers,
        formats,
        most,
        notices.notify_stored,
        services,
    )
    health = HealthChecks(database, storage, queue, plugin_manager, services, most)
    analysis_jobs = AnalysisJobs(database, plugin_manager, ringer, services)
    return WebComponents(
        settings,
        database,
        storage,
        plugin_manager,
        blueprints,
        services,
        intake,
        health,
        analysis_jobs,
        Thumbnails(database, storage),
        Removal(database, storage, notices.notify_deleted, settings.trash_days),
        BulkJobs(database),
    )


def build_worker(settings: Settings, plugin_manager: PluginManager) -> WorkerComponents:
    """Build what a worker needs.

    Raises:
        StartUpError: a setting cannot be used.
    """
    images.prepare(settings.max_image_pixels)
    database = build_database(settings, WORKER_SECONDS)
    database.indexed = indexed_result_fields(plugin_manager)
    storage = LocalStorage(settings.upload_folder)
    storage.prepare(database.in_use)
    queue = Queue(settings.redis_url, settings.redis_prefix)

    def on_deleted(
        upload: Upload,
    ) -> None:  # Nobody waits for it, and however many there are, all come.
        plugin_manager.notify(DELETED_HOOK, upload=upload)

    removal = Removal(database, storage, on_deleted, settings.trash_days)
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
    )


@contextmanager
def build_reanalysis(settings: Settings) -> Iterator[tuple[AnalysisJobs, Database]]:
    """Build what orders analyses, and the database in which to see how far they are."""
    plugin_manager = build_plugin_manager(settings)
    database = build_database(settings, WEB_SECONDS)
    try:
        queue = Queue(settings.redis_url, settings.redis_prefix)
        ringer = DoorbellRinger(queue, database.installation)
        yield (
            AnalysisJobs(
                database, plugin_manager, ringer, DefaultServices(database, plugin_manager)
            ),
            database,
        )
    finally:
        database.close()


@contextmanager
def build_fsck(settings: Settings, grace: timedelta, quick: bool) -> Iterator[Fsck]:
    """Build what checks the store, for the block; nothing is made where there is no store.

    Raises:
        StartUpError: a setting cannot be used.
    """
    images.prepare(settings.max_image_pixels)
    plugin_manager = build_plugin_manager(settings)
    database = build_database(settings, WORKER_SECONDS)
    try:
        database.require_initiated()
        storage = LocalStorage(settings.upload_folder)
        if storage.is_there():
            storage.claim(database.installation)
        yield Fsck(database, storage, plugin_manager.analyzers, grace, quick)
    finally:
        database.close()
