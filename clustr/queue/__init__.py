"""Redis and RQ: doorbells, which tell workers for which analyzer there is work.

Only MongoDB knows what there is to do, and what is in Redis may be lost at any time.
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
