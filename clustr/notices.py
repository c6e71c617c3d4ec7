"""Notices: plugins of a web process are told of what happened, beside its requests."""

import queue
import threading

import structlog

from clustr import logs
from clustr.plugin_host import PluginHost
from clustr.upload import Upload

log = logs.logger(__name__)

STORED = "clustr_upload_stored"
MOST_WAITING = 1000


class Notices:
    """Tells plugins in a thread of its own, one notice after the other.

    When they take longer than new ones come, those that are too many are dropped.
    """

    def __init__(self, host: PluginHost):
        self._host = host
        self._waiting: queue.Queue[Upload] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def stored(self, upload: Upload) -> None:
        """Tell that an upload was stored; this returns at once."""
        with self._starting:  # Not before: it would not survive a fork.
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(upload)
        except queue.Full:
            log.error("notice_dropped", hook=STORED, upload_id=upload.id)

    def _work(self) -> None:
        while True:
            upload = self._waiting.get()
            about = {"upload_id": upload.id, "request_id": upload.request_id}
            with structlog.contextvars.bound_contextvars(**about):
                self._host.notify(STORED, upload=upload)
