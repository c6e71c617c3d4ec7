"""Plugin events: plugins' hooks are called in a thread, which holds up nothing when one hangs."""

import queue
import threading
from typing import Any, NamedTuple

import structlog

from clustr import logs
from clustr.domain.models import Upload
from clustr.plugin_manager import PluginManager

log = logs.logger(__name__)

STORED_HOOK = "clustr_upload_stored"
DELETED_HOOK = "clustr_upload_deleted"
MAX_WAITING = 1000
# What waits for an event waits so long; then a hook hangs.
HANG_SECONDS = 3.0


class _Event(NamedTuple):
    hook: str
    upload: Upload
    log_context: dict[str, Any]
    ended: threading.Event


class PluginEvents:
    """Calls the hooks of plugins in a thread of its own, one event after the other.

    At most `MAX_WAITING` events wait; further ones are dropped and logged.
    """

    def __init__(self, plugin_manager: PluginManager):
        self._plugin_manager = plugin_manager
        self._waiting: queue.Queue[_Event] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._called_plugin = ""
        self._hanging: threading.Event | None = None

    def notify_stored(self, upload: Upload) -> None:
        """Notify plugins that an upload was stored; return at once."""
        self._enqueue(STORED_HOOK, upload)

    def notify_deleted(self, upload: Upload) -> None:
        """Notify plugins that an upload was removed for good; return at once."""
        self._enqueue(DELETED_HOOK, upload)

    def notify_deleted_and_wait(self, upload: Upload) -> None:
        """The same, but return once plugins were notified, so that no event is dropped.

        While a hook hangs, this does not wait for it more than once.
        """
        ended = self._enqueue(DELETED_HOOK, upload)
        is_hanging = self._hanging is not None and not self._hanging.is_set()
        if ended is None or is_hanging or ended.wait(HANG_SECONDS):
            return
        self._hanging = ended
        log.error("hook_hangs", hook=DELETED_HOOK, plugin=self._called_plugin)

    def _enqueue(self, hook: str, upload: Upload) -> threading.Event | None:
        """Have a hook called; None when no plugin has it, or the event was dropped."""
        if not self._plugin_manager.implements(hook):
            return None
        with self._starting:  # The thread starts only now, because it would not survive a fork.
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._notify_forever, name="notices", daemon=True
                )
                self._thread.start()
        log_context = structlog.contextvars.get_contextvars() | {"upload_id": upload.id}
        event = _Event(hook, upload, log_context, threading.Event())
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            log.error(
                "notice_dropped", hook=hook, upload_id=upload.id, busy_plugin=self._called_plugin
            )
            return None
        return event.ended

    def _notify_forever(self) -> None:
        while True:
            event = self._waiting.get()
            with structlog.contextvars.bound_contextvars(**event.log_context):
                for plugin in self._plugin_manager.implementing(event.hook):
                    self._called_plugin = plugin.name
                    self._plugin_manager.call_hook(plugin, event.hook, upload=event.upload)
            event.ended.set()
