"""A slice of calls: it keeps calls of one analyzer under way, and stores how their analyses end.

A service that says how long to wait (`Retry-After`), or that fails at one call while it answers
others, may have too much to do: fewer calls are sent to it. When a call fails and no call has been
answered since that one was sent, the service is in doubt: nothing is sent until a call that is
under way is answered. If none is, it is unavailable.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing

from clustr.analysis.concurrent_calls import CallWindow, ConcurrentCalls, FinishedCall
from clustr.analysis.ends import End
from clustr.analysis.work_slice import UNMOUNTED, WorkSlice, log_context
from clustr.database import ClaimedAnalysis
from clustr.domain.models import State

# How long to wait for the end of a call before looking whether there is more to do.
POLL_SECONDS = 0.1
# When no analysis was queued, this long passes before the next claim.
CLAIM_SECONDS = 0.25
# The least pause of a busy service. One that asks for more than the longest is unavailable.
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class CallSlice:
    """The calls of one run.

    Args:
        work: claims the analyses, and stores their ends.
        window: how many calls may be under way, as the service has taken those of earlier runs.
        probing: whether the service was unavailable, so that one call has to be answered first.
        is_expired: whether to claim and send no more.
        on_first_answer: called when the service has answered the first call.
    """

    def __init__(
        self,
        work: WorkSlice,
        window: CallWindow,
        probing: bool,
        is_expired: Callable[[], bool],
        on_first_answer: Callable[[], None],
    ):
        self._work = work
        self._probing = probing
        self._is_expired = is_expired
        self._on_first_answer = on_first_answer
        self._window = window
        if probing:
            window.probe()
        self._claimed: dict[str, ClaimedAnalysis] = {}  # by the id of the upload
        self._queued: deque[ClaimedAnalysis] = deque()
        self._answered_at = -math.inf
        self._look_at = -math.inf
        self._is_over = False
        self._in_doubt: End | None = None
        self._unavailable: End | None = None

    def run(self, claims: list[ClaimedAnalysis]) -> End | None:
        """Analyze these, and what is queued meanwhile.

        This ends also in the middle of a pause. Analyses that are not begun then stay claimed until
        the run releases them.

        Returns:
            the end of a call by which the service is unavailable, else None.

        Raises:
            Interrupted: SIGTERM came; calls under way have no end.
        """
        self._queued.extend(claims)
        calls = ConcurrentCalls(
            self._work.runner, lambda image: log_context(self._claimed[image.id].upload)
        )
        with closing(calls):
            while calls or (self._queued and not (self._unavailable or self._is_over)):
                self._is_over = self._is_over or self._is_expired()
                self._claim_more(calls)
                ends: list[tuple[ClaimedAnalysis, End]] = []
                try:
                    for claimed, end in self._advance(calls):
                        ends.append((claimed, end))
                finally:
                    self._work.write_ends(ends)
        return self._unavailable or self._in_doubt

    def _advance(self, calls: ConcurrentCalls) -> Iterator[tuple[ClaimedAnalysis, End]]:
        """Send what may be sent, and wait for a call that is over; yield what has ended."""
        if not calls:  # None that could be answered yet is under way.
            self._unavailable = self._unavailable or self._in_doubt
        while self._queued and self._may_send(calls):
            claimed = self._queued.popleft()
            image = self._work.image_of(claimed.upload)
            if isinstance(image, End):
                if image.error is UNMOUNTED:
                    self._unavailable = image
                yield claimed, image
                continue
            self._claimed[image.id] = claimed
            if finished := calls.start(image):
                yield self._finish(finished)
        if calls or self._queued:
            for finished in calls.wait(POLL_SECONDS):
                yield self._finish(finished)

    def _may_send(self, calls: ConcurrentCalls) -> bool:
        has_ended = self._unavailable or self._is_over
        is_held_up = has_ended or self._in_doubt or self._window.pause_seconds
        return not is_held_up and len(calls) < self._window.size

    def _finish(self, finished: FinishedCall) -> tuple[ClaimedAnalysis, End]:
        end = self._work.deferred_if_unmounted(finished.end)
        if end.error is UNMOUNTED:
            self._unavailable = end
        else:
            self._judge(finished)
        return self._claimed.pop(finished.image.id), end

    def _judge(self, finished: FinishedCall) -> None:
        """Find out what the end of a call says about the service."""
        end, sent_at = finished.end, finished.sent_at
        if end.state is not State.DEFERRED:
            if sent_at is not None:
                self._note_answer()
        elif sent_at is None or self._probing or (end.after or 0) > LONGEST_PAUSE_SECONDS:
            self._unavailable = end
        elif end.after is not None:
            self._window.shrink(sent_at)
            self._window.pause(max(SHORTEST_PAUSE_SECONDS, end.after))
        elif self._answered_at < sent_at:
            self._in_doubt = end
        else:
            self._window.shrink(sent_at)
            if not end.is_fault:
                self._window.pause(SHORTEST_PAUSE_SECONDS)

    def _note_answer(self) -> None:
        if self._answered_at == -math.inf:
            self._on_first_answer()
        self._answered_at = time.monotonic()
        self._in_doubt = None
        if self._probing:
            self._probing = False
            self._window.open()
        else:
            self._window.grow()

    def _claim_more(self, calls: ConcurrentCalls) -> None:
        """Claim the next analyses, unless there are enough, or this slice has to end."""
        is_full = len(self._queued) + len(calls) >= self._window.size
        has_to_end = self._probing or self._unavailable or self._is_over
        if is_full or has_to_end or time.monotonic() < self._look_at:
            return
        claims = self._work.claim(self._window.size, probing=False)
        self._queued.extend(claims)
        if not claims:
            self._look_at = time.monotonic() + CLAIM_SECONDS
