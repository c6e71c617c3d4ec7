"""Counts of many uploads, which each process keeps for a while.

Few uploads are counted whenever somebody asks. What takes long to count is counted in a thread,
once for all who ask for the same meanwhile, and kept. What is kept is answered at once; when it is
no longer fresh, it is counted anew behind that.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread

from clustr.database.connection import Document
from clustr.domain.errors import TooSlow

# What can be counted in this time is not kept, unless there are many.
QUICK_SECONDS = 0.3
FEW_UPLOADS = 20_000
# So long a request waits for a count, and so long one may take. Then the next request may find it.
WAIT_SECONDS = 5.0
LONGEST_SECONDS = 60.0
# Counts are fresh for so many times as long as they took: so no more than this part of the time of
# MongoDB goes into them, however many ask.
FRESH_FACTOR = 20.0
KEPT_SECONDS = 3600.0
MAX_KEPT = 16
MAX_AT_ONCE = 2

Counts = list[Document]
Count = Callable[[float], Counts]


@dataclass(frozen=True, slots=True)
class KeptCount:
    """A count, how long it took, and when it began by the monotonic clock."""

    counts: Counts
    seconds: float
    began: float


class KeptCounts:
    """Counts by what they are of."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, KeptCount] = OrderedDict()
        self._running: dict[Hashable, Future[Counts]] = {}
        self._lock = Lock()

    def get(self, key: Hashable, count: Count) -> Counts:
        """What was counted a short while ago, or what is counted now.

        Args:
            key: what is counted.
            count: counts it, given the seconds that this may take; each `count` of what it returns
                is a number of uploads. It raises `TooSlow` when the time is over.

        Raises:
            TooSlow: it takes long; it is counted on, and to ask again later may help.
        """
        kept = self._kept.get(key)
        age = time.monotonic() - kept.began if kept else KEPT_SECONDS
        if kept and age < KEPT_SECONDS:
            if age > kept.seconds * FRESH_FACTOR:
                with suppress(TooSlow):
                    self._begin(key, count)
            return kept.counts
        if key not in self._running:
            with suppress(TooSlow):
                began = time.monotonic()
                counts = count(QUICK_SECONDS)
                self._keep(key, counts, began)
                return counts
        try:
            return self._begin(key, count).result(WAIT_SECONDS)
        except TimeoutError as error:
            raise TooSlow from error

    def _begin(self, key: Hashable, count: Count) -> Future[Counts]:
        """Count it in a thread, unless one is doing that."""
        with self._lock:
            if running := self._running.get(key):
                return running
            if len(self._running) >= MAX_AT_ONCE:
                raise TooSlow
            future = self._running[key] = Future()
        Thread(target=self._run, args=(key, count, future), daemon=True).start()
        return future

    def _run(self, key: Hashable, count: Count, future: Future[Counts]) -> None:
        began = time.monotonic()
        try:
            counts = count(LONGEST_SECONDS)
            self._keep(key, counts, began)
            future.set_result(counts)
        except Exception as error:  # It is raised where somebody waits for the result.
            future.set_exception(error)
        finally:
            with self._lock:
                del self._running[key]

    def _keep(self, key: Hashable, counts: Counts, began: float) -> None:
        seconds = time.monotonic() - began
        is_many = sum(each["count"] for each in counts) > FEW_UPLOADS
        with self._lock:
            self._kept.pop(key, None)
            if not is_many and seconds < QUICK_SECONDS:
                return
            self._kept[key] = KeptCount(counts, seconds, began)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
