"""Plugin events: a web process calls plugins' hooks in a thread, beside its requests."""

import queue
import threading
from typing import Any

import structlog

from clustr import logs
from clustr.domain.models import Upload
from clustr.plugin_manager import PluginManager

log = logs.logger(__name__)

STORED_HOOK = "clustr_upload_stored"
DELETED_HOOK = "clustr_upload_deleted"
MAX_WAITING = 1000


class PluginEvents:
    """Calls the hooks of plugins in a thread of its own, one event after the other.

    At most `MAX_WAITING` events wait; further ones are dropped and logged.
    """

    def __init__(self, plugin_manager: PluginManager):
        self._plugin_manager = plugin_manager
        self._waiting: queue.Queue[tuple[str, Upload, dict[str, Any]]] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def notify_stored(self, upload: Upload) -> None:
        """Notify plugins that an upload was stored; return at once."""
        self._enqueue(STORED_HOOK, upload)

    def notify_deleted(self, upload: Upload) -> None:
        """Notify plugins that an upload was removed for good; return at once."""
        self._enqueue(DELETED_HOOK, upload)

    def _enqueue(self, hook: str, upload: Upload) -> None:
        if not self._plugin_manager.implements(hook):
            return
        with self._starting:  # The thread starts only now, because it would not survive a fork.
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._notify_forever, name="notices", daemon=True
                )
                self._thread.start()
        log_context = structlog.contextvars.get_contextvars() | {"upload_id": upload.id}
        try:
            self._waiting.put_nowait((hook, upload, log_context))
        except queue.Full:
            log.error("notice_dropped", hook=hook, upload_id=upload.id)

    def _notify_forever(self) -> None:
        while True:
            hook, upload, log_context = self._waiting.get()
            with structlog.contextvars.bound_contextvars(**log_context):
                self._plugin_manager.notify(hook, upload=upload)
