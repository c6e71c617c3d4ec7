"""Quotas, counted in Redis so that they hold for all web processes together.

The windows are those of the library `limits`: its scripts for Redis count in the window that runs
and add the share of the last one that a moving window would still see. One script calls them for
several quotas, in one exchange. docs/decisions/limits.md has the reasons.
"""

import time
from collections.abc import Sequence
from math import ceil
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from limits.storage import RedisStorage

from clustr import logs
from clustr.domain.errors import QueueUnavailable
from clustr.domain.quotas import Quota, Standing, Use
from clustr.queue.connection import connect, translate_redis_errors

log = logs.logger(__name__)

ANSWER_SECONDS = 0.5
# While Redis is away, one request tries it this often, and the others go on without.
PAUSE_SECONDS = 5.0
# What is counted within this time takes one exchange with Redis.
COUNTER_PAUSE_SECONDS = 0.05
NO_LIMIT = 2**53  # Lua's numbers are exact up to this one.

# Takes from several quotas and looks how they stand, so that one command does all of it.
# KEYS: two for each quota, of the last window and of the one that runs. ARGV: three for each, the
# amount of the quota, its seconds, and how much to take; nothing is taken when that is 0.
SCRIPT = f"""
local function take(KEYS, ARGV)
{RedisStorage.SCRIPT_ACQUIRE_SLIDING_WINDOW.decode()}
end
local function look(KEYS, ARGV)
{RedisStorage.SCRIPT_SLIDING_WINDOW.decode()}
end
local answers = {{}}
for i = 1, #KEYS / 2 do
    local keys, amount = {{KEYS[2 * i - 1], KEYS[2 * i]}}, ARGV[3 * i]
    local taken = 0
    if amount ~= '0' and take(keys, {{ARGV[3 * i - 2], ARGV[3 * i - 1], amount}}) then taken = 1 end
    local window = look(keys, {{ARGV[3 * i - 1]}})
    answers[i] = {{taken, window[1], window[2], window[3], window[4]}}
end
return answers
"""


class QuotaStore:
    """How much is used of each quota.

    Args:
        url: the address of Redis.
        prefix: the prefix of all keys of this installation.
    """

    def __init__(self, url: str, prefix: str):
        self._redis = connect(url, ANSWER_SECONDS)
        self._script = self._redis.register_script(SCRIPT)
        self._prefix = prefix
        self._lock = Lock()
        self._is_away = False
        self._try_at = 0.0
        self._later: SimpleQueue[tuple[Quota, int]] = SimpleQueue()
        self._counter: Thread | None = None

    def use(self, uses: Sequence[Use]) -> list[Standing]:
        """Use quotas, or ask whether they suffice.

        Returns:
            how each stands, in the same order; none while Redis does not answer.
        """
        if not self._may_try():
            return []
        try:
            standings = self._exchange(uses)
        except QueueUnavailable:
            with self._lock:
                self._is_away, self._try_at = True, time.monotonic() + PAUSE_SECONDS
            log.warning("quotas_not_kept", seconds=PAUSE_SECONDS)
            return []
        self._is_away = False
        return standings

    def _may_try(self) -> bool:
        """Whether Redis is there, as far as is known, or is to be tried by this request."""
        if not self._is_away:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._try_at:
                return False
            self._try_at = now + PAUSE_SECONDS
            return True

    def count_later(self, quota: Quota, amount: int) -> None:
        """Count what was used of a quota already, even if it was more than was left.

        A thread does it, so that no request waits for it. While Redis is away it is not counted.
        """
        self._later.put((quota, amount))
        with self._lock:
            if self._counter is None:
                self._counter = Thread(target=self._count_forever, name="quotas", daemon=True)
                self._counter.start()

    def _count_forever(self) -> None:
        while True:
            amounts = dict([self._later.get()])
            try:
                while True:
                    quota, amount = self._later.get_nowait()
                    amounts[quota] = amounts.get(quota, 0) + amount
            except Empty:  # These are all that were used by now.
                self._count(amounts)
            time.sleep(COUNTER_PAUSE_SECONDS)

    def _count(self, amounts: dict[Quota, int]) -> None:
        arguments = [(NO_LIMIT, quota.seconds, amount) for quota, amount in amounts.items()]
        try:
            self._run([*amounts], arguments)
        except QueueUnavailable:
            log.warning("bytes_not_counted", bytes=sum(amounts.values()))

    def _exchange(self, uses: Sequence[Use]) -> list[Standing]:
        quotas = [use.quota for use in uses]
        costs = [use.cost if use.is_counted else 0 for use in uses]
        arguments = [(q.amount, q.seconds, cost) for q, cost in zip(quotas, costs, strict=True)]
        standings = []
        for use, answer in zip(uses, self._run(quotas, arguments), strict=True):
            taken, previous, previous_ms, current, current_ms = (int(n or 0) for n in answer)
            is_taken = bool(taken) if use.is_counted else None
            ends = max(previous_ms, 0) / 1000, max(current_ms, 0) / 1000
            standings.append(_standing(use, is_taken, (previous, current), ends))
        return standings

    def _run(
        self, quotas: Sequence[Quota], arguments: Sequence[tuple[int, int, int]]
    ) -> list[list[Any]]:
        """Run the script for these quotas, with three arguments for each.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        keys = [key for quota in quotas for key in self._keys(quota)]
        with translate_redis_errors():
            answers: list[list[Any]] = self._script(keys, [n for each in arguments for n in each])
        return answers

    def _keys(self, quota: Quota) -> tuple[str, str]:
        """The keys of what was used in the last window and of what was in the one that runs."""
        key = f"{self._prefix}:quota:{quota.name}:{quota.holder}"
        return f"{key}:previous", key


def _standing(
    use: Use, is_taken: bool | None, counts: tuple[int, int], ends: tuple[float, float]
) -> Standing:
    """How a quota stands.

    Args:
        is_taken: whether the use was counted; None when that was not asked for.
        counts: what was used in the last window, and in the one that runs.
        ends: after how many seconds each of these is forgotten. The one that runs counts as the
            last one in the end, for as long as a window is.
    """
    quota, (previous, current), (previous_end, current_end) = use.quota, counts, ends
    window = quota.seconds
    remaining = max(quota.amount - int(previous * previous_end / window) - current, 0)
    is_exceeded = remaining < use.cost if is_taken is None else not is_taken
    until_next_window = max(current_end - window, 0)
    if not is_exceeded:
        return Standing(quota, False, remaining, until_next_window or window)
    free = quota.amount - current - use.cost
    if free >= 0 and previous:  # Enough of the last window has to move out of sight.
        seconds = previous_end - free * window / previous
    else:
        free = max(quota.amount - use.cost, 0)
        seconds = until_next_window + window * (1 - min(free / max(current, 1), 1))
    return Standing(quota, True, remaining, max(ceil(seconds), 1))
