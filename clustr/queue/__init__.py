"""Redis: doorbells, which notify workers by RQ of work for an analyzer, and quotas.

Only MongoDB knows what there is to do. What is in Redis may be lost at any time: then work is
delayed until the reconciler rings again, and quotas begin anew.
"""

from clustr.queue.connection import connect, translate_redis_errors
from clustr.queue.doorbells import (
    HTTP,
    JOB_FUNCTION,
    JOB_SECONDS_TO_LIVE,
    KINDS,
    LONGEST_SLICE_SECONDS,
    RINGER_PAUSE_SECONDS,
    SLICE_SECONDS,
    WORKER_SECONDS_TO_LIVE,
    DoorbellRinger,
    Queue,
    queue_name,
)

__all__ = [
    "HTTP",
    "JOB_FUNCTION",
    "JOB_SECONDS_TO_LIVE",
    "KINDS",
    "LONGEST_SLICE_SECONDS",
    "RINGER_PAUSE_SECONDS",
    "SLICE_SECONDS",
    "WORKER_SECONDS_TO_LIVE",
    "DoorbellRinger",
    "Queue",
    "connect",
    "queue_name",
    "translate_redis_errors",
]
