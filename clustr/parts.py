"""The long-lived collaborators of a process, built once from the settings and handed down.

Build them after a fork, never before: clients of MongoDB and Redis must not cross one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from clustr import images
from clustr.analysis import Analysts
from clustr.catalog import Catalog
from clustr.errors import StartUpError
from clustr.fsck import Fsck
from clustr.health import HealthChecks
from clustr.intake import Intake
from clustr.plugin_host import PluginHost, load_plugins
from clustr.queue import Queue, Ringer
from clustr.reconciler import Reconciler
from clustr.settings import Settings
from clustr.storage import LocalStorage

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
    intake: Intake
    health: HealthChecks


@dataclass(frozen=True)
class WorkerParts:
    """What a worker works with."""

    catalog: Catalog
    analysts: Analysts
    reconciler: Reconciler


def build_host(settings: Settings) -> PluginHost:
    """Load the plugins; this opens nothing and may be done before a fork."""
    return load_plugins(
        settings.plugins_folder,
        settings.plugins_enabled,
        settings.plugins_disabled,
        settings.plugins_config,
        settings.environment,
    )


def build_catalog(settings: Settings, timeout_seconds: float) -> Catalog:
    return Catalog(
        settings.mongodb_url,
        settings.mongodb_database,
        settings.mongodb_uploads_collection,
        timeout_seconds,
    )


def build_web(settings: Settings) -> WebParts:
    """Build what the web side needs.

    Raises:
        StartUpError: a setting cannot be used.
    """
    images.prepare(settings.max_image_pixels)
    host = build_host(settings)
    catalog = build_catalog(settings, WEB_SECONDS)
    storage = LocalStorage(settings.upload_folder)
    storage.prepare(catalog.in_use)
    queue = Queue(settings.redis_url)
    try:
        formats = images.formats_for(settings.allowed_extensions)
    except ValueError as error:
        raise StartUpError(f"ALLOWED_EXTENSIONS: {error}") from error
    ringer = Ringer(queue)
    intake = Intake(catalog, storage, ringer, host.analyzers, formats, settings.max_upload_size)
    health = HealthChecks(catalog, storage, queue, host)
    return WebParts(settings, catalog, storage, host, intake, health)


def build_worker(settings: Settings, host: PluginHost) -> WorkerParts:
    """Build what a worker needs.

    Raises:
        StartUpError: a setting cannot be used.
    """
    images.prepare(settings.max_image_pixels)
    catalog = build_catalog(settings, WORKER_SECONDS)
    storage = LocalStorage(settings.upload_folder)
    storage.prepare(catalog.in_use)
    queue = Queue(settings.redis_url)
    return WorkerParts(
        catalog,
        Analysts(catalog, storage, queue, host),
        Reconciler(catalog, storage, queue, host),
    )


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
        yield Fsck(catalog, LocalStorage(settings.upload_folder), host.analyzers, grace, quick)
    finally:
        catalog.close()
