"""Notices: plugins of a web process are told of what happened, beside its requests."""

import queue
import threading
from typing import Any

import structlog

from clustr import logs
from clustr.domain.models import Upload
from clustr.plugin_manager import PluginManager

log = logs.logger(__name__)

STORED = "clustr_upload_stored"
DELETED = "clustr_upload_deleted"
MOST_WAITING = 1000


class PluginEvents:
    """Tells plugins in a thread of its own, one notice after the other.

    When they take longer than new ones come, those that are too many are dropped.
    """

    def __init__(self, plugin_manager: PluginManager):
        self._plugin_manager = plugin_manager
        self._waiting: queue.Queue[tuple[str, Upload, dict[str, Any]]] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def stored(self, upload: Upload) -> None:
        """Tell that an upload was stored; this returns at once."""
        self._announce(STORED, upload)

    def deleted(self, upload: Upload) -> None:
        """Tell that an upload was removed for good; this returns at once."""
        self._announce(DELETED, upload)

    def _announce(self, hook: str, upload: Upload) -> None:
        if not self._plugin_manager.implements(hook):
            return
        with self._starting:  # Not before: it would not survive a fork.
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
                self._thread.start()
        about = structlog.contextvars.get_contextvars() | {"upload_id": upload.id}
        try:
            self._waiting.put_nowait((hook, upload, about))
        except queue.Full:
            log.error("notice_dropped", hook=hook, upload_id=upload.id)

    def _work(self) -> None:
        while True:
            hook, upload, about = self._waiting.get()
            with structlog.contextvars.bound_contextvars(**about):
                self._plugin_manager.notify(hook, upload=upload)
