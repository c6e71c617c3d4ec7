"""The long-lived collaborators of a process, built once from the settings and handed down.

Build them after a fork, never before: clients of MongoDB and Redis must not cross one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from clustr import decode_limits, images, logs
from clustr.analysis import Analysts
from clustr.bulk import Bulk, Changes, Reanalysis
from clustr.catalog import Catalog
from clustr.default_services import DefaultServices
from clustr.errors import (
    DatabaseUnavailable,
    QueueUnavailable,
    StartUpError,
    StorageUnavailable,
)
from clustr.fsck import Fsck
from clustr.health import HealthChecks
from clustr.intake import Intake
from clustr.notices import DELETED, Notices
from clustr.plugin_host import Plugin, PluginHost, check_enabled, load_plugins
from clustr.plugins import Library
from clustr.queue import Queue, Ringer
from clustr.reconciler import Reconciler
from clustr.removal import Removal
from clustr.settings import Settings, unknown_variables
from clustr.storage import LocalStorage
from clustr.thumbnails import Thumbnails
from clustr.upload import Upload

if TYPE_CHECKING:  # Workers do without Flask.
    from flask_smorest import Blueprint

log = logs.logger(__name__)

# In the request path a dependency that is away must be noticed soon; a worker can be more patient.
WEB_SECONDS = 2.0
WORKER_SECONDS = 10.0


@dataclass(frozen=True)
class WebParts:
    """What the web side works with."""

    settings: Settings
    catalog: Catalog
    storage: LocalStorage
    host: PluginHost
    blueprints: "list[tuple[Plugin, Blueprint]]"
    default_services: DefaultServices
    intake: Intake
    health: HealthChecks
    reanalysis: Reanalysis
    thumbnails: Thumbnails
    removal: Removal
    changes: Changes


@dataclass(frozen=True)
class WorkerParts:
    """What a worker works with."""

    catalog: Catalog
    analysts: Analysts
    reconciler: Reconciler
    bulk: Bulk


def build_host(settings: Settings) -> PluginHost:
    """Load the plugins; this opens nothing and may be done before a fork.

    Raises:
        StartUpError: a setting cannot be used.
    """
    check_enabled(settings.plugins_folder, settings.plugins_enabled)
    host = load_plugins(
        settings.plugins_folder,
        settings.plugins_enabled,
        settings.plugins_disabled,
        settings.plugins_config,
        settings.environment,
    )
    for sentence in unknown_variables(settings.environment, host.variables()):
        log.warning("setting_unknown", reason=sentence)
    return host


def build_catalog(settings: Settings, timeout_seconds: float) -> Catalog:
    return Catalog(
        settings.mongodb_url,
        settings.mongodb_database,
        settings.mongodb_uploads_collection,
        timeout_seconds,
    )


def claim(catalog: Catalog, storage: LocalStorage, queue: Queue) -> bool:
    """See that upload folder and Redis are no other installation's, and mark them as this one's.

    What is away is left to the first use: the intake's, the ringer's, a worker's.

    Returns:
        whether both are marked.

    Raises:
        StartUpError: one of them is another installation's.
    """
    try:
        storage.claim(catalog.installation)
        queue.claim(catalog.installation)
    except (DatabaseUnavailable, QueueUnavailable, StorageUnavailable) as error:
        log.warning("installation_not_checked", reason=str(error))
        return False
    return True


def indexed_by(host: PluginHost) -> frozenset[str]:
    """The fields of results that plugins want an index for."""
    return frozenset(filter.field for filter in host.filters.values() if filter.indexed)


def build_web(
    settings: Settings,
    library: Callable[[Catalog, Plugin], Library],
    problem_with_routes: "Callable[[Plugin, list[Blueprint]], str | None]",
) -> WebParts:
    """Build what the web side needs.

    Args:
        library: makes the uploads for a plugin's routes.
        problem_with_routes: says why the routes of a plugin cannot be used, if they cannot.

    Raises:
        StartUpError: a setting cannot be used.
    """
    images.prepare(settings.max_image_pixels)
    decode_limits.limit_memory(settings.decode_memory)
    catalog = build_catalog(settings, WEB_SECONDS)
    host = build_host(settings)
    blueprints = host.blueprints(partial(library, catalog), problem_with_routes)
    catalog.indexed = indexed_by(host)
    storage = LocalStorage(settings.upload_folder)
    storage.prepare(catalog.in_use)
    storage.warn_if_open()
    queue = Queue(settings.redis_url, settings.redis_prefix)
    claim(catalog, storage, queue)
    by_default = "ALLOWED_EXTENSIONS" not in settings.given
    try:
        formats = images.formats_for(settings.allowed_extensions, leave_out=by_default)
    except ValueError as error:
        raise StartUpError(f"ALLOWED_EXTENSIONS: {error}") from error
    notices = Notices(host)
    most = settings.max_upload_size
    ringer = Ringer(queue, catalog.installation)
    services = DefaultServices(catalog, host)
    services.watch()
    intake = Intake(
        catalog, storage, ringer, host.analyzers, formats, most, notices.stored, services
    )
    health = HealthChecks(catalog, storage, queue, host, services, most)
    reanalysis = Reanalysis(catalog, host, ringer, services)
    return WebParts(
        settings,
        catalog,
        storage,
        host,
        blueprints,
        services,
        intake,
        health,
        reanalysis,
        Thumbnails(catalog, storage),
        Removal(catalog, storage, notices.deleted, settings.trash_days),
        Changes(catalog),
    )


def build_worker(settings: Settings, host: PluginHost) -> WorkerParts:
    """Build what a worker needs.

    Raises:
        StartUpError: a setting cannot be used.
    """
    images.prepare(settings.max_image_pixels)
    catalog = build_catalog(settings, WORKER_SECONDS)
    catalog.indexed = indexed_by(host)
    storage = LocalStorage(settings.upload_folder)
    storage.prepare(catalog.in_use)
    queue = Queue(settings.redis_url, settings.redis_prefix)

    def tell(upload: Upload) -> None:  # Nobody waits for it, and however many there are, all come.
        host.notify(DELETED, upload=upload)

    removal = Removal(catalog, storage, tell, settings.trash_days)
    return WorkerParts(
        catalog,
        Analysts(catalog, storage, queue, host),
        Reconciler(catalog, storage, queue, host, removal, DefaultServices(catalog, host)),
        Bulk(catalog, queue, host, removal),
    )


@contextmanager
def build_reanalysis(settings: Settings) -> Iterator[tuple[Reanalysis, Catalog]]:
    """Build what orders analyses, and the catalog in which to see how far they are."""
    host = build_host(settings)
    catalog = build_catalog(settings, WEB_SECONDS)
    try:
        queue = Queue(settings.redis_url, settings.redis_prefix)
        ringer = Ringer(queue, catalog.installation)
        yield Reanalysis(catalog, host, ringer, DefaultServices(catalog, host)), catalog
    finally:
        catalog.close()


@contextmanager
def build_fsck(settings: Settings, grace: timedelta, quick: bool) -> Iterator[Fsck]:
    """Build what checks the store, for the block; nothing is made where there is no store.

    Raises:
        StartUpError: a setting cannot be used.
    """
    images.prepare(settings.max_image_pixels)
    host = build_host(settings)
    catalog = build_catalog(settings, WORKER_SECONDS)
    try:
        catalog.require_initiated()
        storage = LocalStorage(settings.upload_folder)
        if storage.is_there():
            storage.claim(catalog.installation)
        yield Fsck(catalog, storage, host.analyzers, grace, quick)
    finally:
        catalog.close()
