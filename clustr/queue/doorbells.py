"""Doorbells, which notify workers of work for an analyzer.

Only MongoDB knows what there is to do: the analyses that are `queued`. A job in Redis says no more
than "look for work of this analyzer". It is a *doorbell*: to ring it enqueues a job, unless a job
for the same analyzer still waits. A doorbell that is lost delays work until the reconciler rings
again; one that is rung twice costs an empty job.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue
from threading import Thread
from uuid import uuid4

from rq import Queue as RedisQueue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import utcparse
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from clustr import logs
from clustr.domain.errors import ClustrError, StartUpError
from clustr.plugins import Analyzer
from clustr.plugins.analyzer import SETUP_SECONDS
from clustr.queue.connection import connect, translate_redis_errors

log = logs.logger(__name__)

# The function that every job in Redis names. Nothing imports it: workers of every release compare
# the name, so that they can be updated one after the other.
JOB_FUNCTION = "clustr.jobs.run_analyzer"
HTTP = "http"  # for analyzers that call services
KINDS = ("default", HTTP, "gpu")

# A job may take the time to set the analyzer up, and a slice of time, which is longer while no
# other analyzer waits. The last analyses may begin at the very end of the slice, and those of a
# batch may be done twice. Clustr's own limits end what hangs; RQ's time-out is a second safeguard.
SLICE_SECONDS = 1
LONGEST_SLICE_SECONDS = 10

BELL_SECONDS = 10

# Redis forgets a job after this time, also when no worker takes it or its worker dies.
JOB_SECONDS_TO_LIVE = 3600

# Returns 1 when a job has to be enqueued. It returns 0 while the bell is set, and while the last
# job of the analyzer still waits in the queue; that job then gets its full time to live again.
# KEYS: the bell, the id of the analyzer's last job, the queue. ARGV: seconds to live of the bell
# and of a job, and the prefix of a job's key.
RING_SCRIPT = """
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', ARGV[1]) then return 0 end
local last = redis.call('GET', KEYS[2])
if not (last and redis.call('LPOS', KEYS[3], last)) then return 1 end
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('EXPIRE', ARGV[3] .. last, ARGV[2])
return 0
"""

# A worker sends a heartbeat at least every 30 s: RQ's interval while a job runs, and otherwise the
# time for which it waits for a job, which is 15 s less than its time to live.
WORKER_SECONDS_TO_LIVE = 45
ALIVE_SECONDS = 60

# What several requests ring within this time takes one exchange with Redis.
RINGER_PAUSE_SECONDS = 0.05


def queue_name(prefix: str, kind: str) -> str:
    """The name of the RQ queue for one kind of work, below the prefix of an installation."""
    return f"{prefix}:{kind}"


class Queue:
    """The doorbells of all analyzers, in Redis.

    Args:
        url: the address of Redis.
        prefix: the prefix of all keys of this installation.
        timeout_seconds: limit for each exchange with Redis.
    """

    def __init__(self, url: str, prefix: str, timeout_seconds: float = 1.0):
        self._redis = connect(url, timeout_seconds)
        self._prefix = prefix
        self._claimed = False
        self._queues = {
            kind: RedisQueue(
                queue_name(prefix, kind), connection=self._redis, serializer=JSONSerializer
            )
            for kind in KINDS
        }

    def claim(self, installation_id: Callable[[], str]) -> None:
        """Mark the keys below the prefix as those of this installation, unless that is done.

        Args:
            installation_id: returns the id of the installation; what it raises is not caught.

        Raises:
            QueueUnavailable: Redis does not answer.
            StartUpError: another installation uses the prefix: they would take each other's jobs.
        """
        if self._claimed:
            return
        installation = installation_id()
        key = f"{self._prefix}:installation"
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.set(key, installation, nx=True)
            pipeline.get(key)
            owner = pipeline.execute()[1]
        if owner != installation.encode():
            raise StartUpError(
                f"REDIS_URL: another installation of Clustr uses this Redis with the prefix "
                f"{self._prefix}; give one of the two another REDIS_PREFIX (if the other is gone, "
                f"delete the key {key})"
            )
        self._claimed = True

    def ring(self, analyzers: Iterable[Analyzer]) -> None:
        """Enqueue a job for each analyzer, unless one waits already (see `RING_SCRIPT`).

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        analyzers = list(analyzers)
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for analyzer in analyzers:
                keys = (
                    self._bell_key(analyzer),
                    self._last_job_key(analyzer),
                    self._queues[analyzer.queue].key,
                )
                arguments = BELL_SECONDS, JOB_SECONDS_TO_LIVE, Job.redis_job_namespace_prefix
                pipeline.eval(RING_SCRIPT, len(keys), *keys, *arguments)
            newly_rung = [
                analyzer
                for analyzer, is_new in zip(analyzers, pipeline.execute(), strict=True)
                if is_new
            ]
            if newly_rung:
                self._enqueue(newly_rung)

    def _enqueue(self, analyzers: list[Analyzer]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for analyzer in analyzers:
            last_seconds = 2 * analyzer.timeout * analyzer.batch_size
            run = uuid4().hex
            job = RedisQueue.prepare_data(
                JOB_FUNCTION,
                args=[analyzer.name, run],
                job_id=run,
                timeout=int(SETUP_SECONDS + LONGEST_SLICE_SECONDS + last_seconds + BELL_SECONDS),
                result_ttl=0,
                failure_ttl=JOB_SECONDS_TO_LIVE,
                ttl=JOB_SECONDS_TO_LIVE,
            )
            self._queues[analyzer.queue].enqueue_many([job], pipeline=pipeline)
            pipeline.set(self._last_job_key(analyzer), run, ex=JOB_SECONDS_TO_LIVE)
        pipeline.execute()

    def clear_bell(self, analyzer: Analyzer) -> None:
        """Clear the bell of an analyzer, so that it can be rung again.

        A worker does so just before it looks for the analyzer's work.

        Raises:
            QueueUnavailable: Redis does not answer; the bell then expires after `BELL_SECONDS`.
        """
        with translate_redis_errors():
            self._redis.delete(self._bell_key(analyzer))

    def is_rung(self, analyzers: Iterable[Analyzer]) -> bool:
        """Whether the bell of one of these analyzers is set, and no worker has cleared it yet.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        bells = [self._bell_key(analyzer) for analyzer in analyzers]
        with translate_redis_errors():
            return bool(bells and self._redis.exists(*bells))

    def count_jobs(self) -> dict[str, int]:
        """Count the jobs that wait, by kind of work.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for queue in self._queues.values():
                pipeline.llen(queue.key)
            return dict(zip(self._queues, pipeline.execute(), strict=True))

    def count_workers(self, kinds: Iterable[str]) -> dict[str, int]:
        """Count the workers that take each of these kinds of work.

        A worker that was killed counts until `ALIVE_SECONDS` after its last heartbeat.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        kinds = sorted(kinds)
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for kind in kinds:
                pipeline.smembers(WORKERS_BY_QUEUE_KEY % self._queues[kind].name)
            keys = dict(zip(kinds, pipeline.execute(), strict=True))
            worker_keys = sorted(set().union(*keys.values()))
            for key in worker_keys:
                pipeline.hget(key, "last_heartbeat")
            heartbeats = dict(zip(worker_keys, pipeline.execute(), strict=True))
        alive = {
            key for key, heartbeat in heartbeats.items() if heartbeat and _is_recent(heartbeat)
        }
        return {kind: len(keys[kind] & alive) for kind in kinds}

    def keep_process(self, name: str, record: str, seconds_to_live: int) -> None:
        """Keep the record of a running process, as an addition or a renewal.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.set(f"{self._prefix}:process:{name}", record, ex=seconds_to_live)
            pipeline.sadd(self._processes_key, name)
            pipeline.execute()

    def processes(self) -> list[str]:
        """The records of all processes that are alive.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        with translate_redis_errors():
            names = sorted(map(_as_text, self._redis.smembers(self._processes_key)))
            keys = [f"{self._prefix}:process:{name}" for name in names]
            records = self._redis.mget(keys) if keys else []
            gone = [name for name, record in zip(names, records, strict=True) if record is None]
            if gone:
                self._redis.srem(self._processes_key, *gone)
        return [_as_text(record) for record in records if record is not None]

    @property
    def _processes_key(self) -> str:
        return f"{self._prefix}:processes"

    def _bell_key(self, analyzer: Analyzer) -> str:
        return f"{self._prefix}:bell:{analyzer.name}"

    def _last_job_key(self, analyzer: Analyzer) -> str:
        """The key that holds the id of the job that was enqueued last for the analyzer."""
        return f"{self._prefix}:call:{analyzer.name}"


def _as_text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _is_recent(heartbeat: bytes) -> bool:
    return datetime.now(UTC) - utcparse(heartbeat.decode()) < timedelta(seconds=ALIVE_SECONDS)


class DoorbellRinger:
    """Rings doorbells in a thread of its own, so that no request waits for Redis.

    When the process dies before it has rung, the reconciler rings.

    Args:
        installation_id: returns the id of the installation. A queue that could not be claimed at
            the start is claimed before the first ring.
    """

    def __init__(self, queue: Queue, installation_id: Callable[[], str]):
        self._queue = queue
        self._installation_id = installation_id
        self._pending: SimpleQueue[Analyzer | None] = SimpleQueue()
        self._stopping = False
        self._thread = Thread(target=self._ring_until_stopped, name="ringer", daemon=True)
        self._thread.start()

    def ring(self, analyzers: Iterable[Analyzer]) -> None:
        """Have the doorbell of each analyzer rung soon; return at once."""
        for analyzer in analyzers:
            self._pending.put(analyzer)

    def stop(self) -> None:
        """Ring for what is pending, and end; to be called before the database is closed."""
        self._pending.put(None)
        self._thread.join()

    def _ring_until_stopped(self) -> None:
        while not self._stopping:
            pending = self._take_pending()
            if pending:
                self._ring(pending)
            if not self._stopping:
                time.sleep(RINGER_PAUSE_SECONDS)

    def _ring(self, pending: Mapping[str, Analyzer]) -> None:
        try:
            self._queue.claim(self._installation_id)
            self._queue.ring(pending.values())
        except ClustrError as error:
            log.warning("bells_not_rung", analyzers=list(pending), reason=str(error))

    def _take_pending(self) -> dict[str, Analyzer]:
        """Wait for an analyzer to ring for, and take all that are pending by then, by name."""
        taken = [self._pending.get()]
        with suppress(Empty):
            while True:
                taken.append(self._pending.get_nowait())
        self._stopping = None in taken
        return {analyzer.name: analyzer for analyzer in taken if analyzer}
