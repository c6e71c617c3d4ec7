"""The queue: bells that tell workers, over Redis and RQ, for which analyzer there is work.

What there is to do is in MongoDB alone. A bell that is lost costs a moment, until the reconciler
rings again; one that is rung twice costs an empty job.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue
from threading import Thread
from urllib.parse import urlsplit
from uuid import uuid4

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue as RedisQueue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import utcparse
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from clustr import logs
from clustr.domain import failure_messages
from clustr.domain.errors import ClustrError, QueueUnavailable, StartUpError
from clustr.domain.secrets import credentials_in, remember
from clustr.plugins import Analyzer
from clustr.plugins.analyzer import SETUP_SECONDS

log = logs.logger(__name__)

# The name of every job in Redis. Nothing imports it; workers of every release know it, so that they
# can be updated one after the other.
JOB = "clustr.jobs.run_analyzer"
KINDS = ("default", "http", "gpu")

# What a job may take: preparing the analyzer, then a slice of time, which is longer while nobody
# else waits, and in which the last analyses may begin at its very end; those of a batch perhaps
# twice. Clustr's own limits end what hangs; RQ's is the net below them.
SLICE_SECONDS = 1
LONGEST_SLICE_SECONDS = 10

BELL_SECONDS = 10

# What Redis knows of a job has an end, also when no worker ever takes it or one dies over it.
JOB_SECONDS_TO_LIVE = 3600

# Whether a worker is to be called: not while a call hangs in the queue that none has taken yet,
# however often it is rung meanwhile. KEYS: the bell, the last job for it, the queue. ARGV: seconds
# to live of the bell and of a job, and what the key of a job begins with.
RING = """
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', ARGV[1]) then return 0 end
local last = redis.call('GET', KEYS[2])
if not (last and redis.call('LPOS', KEYS[3], last)) then return 1 end
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('EXPIRE', ARGV[3] .. last, ARGV[2])
return 0
"""

# A worker gives a sign of life at least every 30 s: while a job runs that is RQ's interval, and
# otherwise it waits for one for 15 s less than it is told to live.
WORKER_SECONDS_TO_LIVE = 45
ALIVE_SECONDS = 60

# What many requests ask for within this time is one exchange with Redis.
RINGER_PAUSE_SECONDS = 0.05


def queue_name(prefix: str, kind: str) -> str:
    """The name of the RQ queue for one kind of work, below the prefix of an installation."""
    return f"{prefix}:{kind}"


@contextmanager
def answering() -> Iterator[None]:
    """Turn Redis being away, frozen or full into `QueueUnavailable`."""
    try:
        yield
    except RedisError as error:
        log.warning("queue_unavailable", error=f"{type(error).__name__}: {error}"[:300])
        raise QueueUnavailable from error


def connect(url: str, timeout_seconds: float | None) -> Redis:
    """Make a client that gives up after `timeout_seconds` and does not try twice.

    The defaults of redis-py would let a frozen Redis hold a request for most of a minute.

    Raises:
        StartUpError: the address is none.
    """
    remember(credentials_in(url))
    try:
        _ = urlsplit(url).port  # The error of redis-py shows what it takes for one.
    except ValueError:
        raise StartUpError("REDIS_URL is no address of a Redis: its port is no number") from None
    try:
        return Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError) as error:
        said = failure_messages.as_plain_text(error)
        raise StartUpError(f"REDIS_URL is no address of a Redis: {said}") from None


class Queue:
    """The bells.

    Args:
        url: where Redis is.
        prefix: what all keys begin with.
        timeout_seconds: limit for each exchange with it.
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
        """Mark what is below the prefix as this installation's, unless this object has done so.

        Args:
            installation_id: gives the id of the installation; what it raises is not caught.

        Raises:
            QueueUnavailable: Redis does not answer.
            StartUpError: it is another's; two would take each other's bells.
        """
        if self._claimed:
            return
        installation = installation_id()
        key = f"{self._prefix}:installation"
        with answering():
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
        """Call a worker for each analyzer, unless one has been called and is not there yet.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        analyzers = list(analyzers)
        with answering():
            pipeline = self._redis.pipeline(transaction=False)
            for analyzer in analyzers:
                keys = self._bell(analyzer), self._last(analyzer), self._queues[analyzer.queue].key
                lives = BELL_SECONDS, JOB_SECONDS_TO_LIVE, Job.redis_job_namespace_prefix
                pipeline.eval(RING, len(keys), *keys, *lives)
            rung = [a for a, won in zip(analyzers, pipeline.execute(), strict=True) if won]
            if rung:
                self._enqueue(rung)

    def _enqueue(self, analyzers: list[Analyzer]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for analyzer in analyzers:
            last_seconds = 2 * analyzer.timeout * analyzer.batch_size
            run = uuid4().hex
            job = RedisQueue.prepare_data(
                JOB,
                args=[analyzer.name, run],
                job_id=run,
                timeout=int(SETUP_SECONDS + LONGEST_SLICE_SECONDS + last_seconds + BELL_SECONDS),
                result_ttl=0,
                failure_ttl=JOB_SECONDS_TO_LIVE,
                ttl=JOB_SECONDS_TO_LIVE,
            )
            self._queues[analyzer.queue].enqueue_many([job], pipeline=pipeline)
            pipeline.set(self._last(analyzer), run, ex=JOB_SECONDS_TO_LIVE)
        pipeline.execute()

    def answer(self, analyzer: Analyzer) -> None:
        """Let the bell of an analyzer be rung again: a worker is about to look for its work.

        Raises:
            QueueUnavailable: Redis does not answer; the bell then ends by itself.
        """
        with answering():
            self._redis.delete(self._bell(analyzer))

    def is_rung(self, analyzers: Iterable[Analyzer]) -> bool:
        """Whether a worker has been called for one of these analyzers and is not there yet.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        bells = [self._bell(analyzer) for analyzer in analyzers]
        with answering():
            return bool(bells and self._redis.exists(*bells))

    def lengths(self) -> dict[str, int]:
        """How many jobs wait, by kind of work.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        with answering():
            pipeline = self._redis.pipeline(transaction=False)
            for queue in self._queues.values():
                pipeline.llen(queue.key)
            return dict(zip(self._queues, pipeline.execute(), strict=True))

    def workers(self, kinds: Iterable[str]) -> dict[str, int]:
        """How many workers there are for each of these kinds of work.

        One that was killed counts until `ALIVE_SECONDS` after its last sign of life.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        kinds = sorted(kinds)
        with answering():
            pipeline = self._redis.pipeline(transaction=False)
            for kind in kinds:
                pipeline.smembers(WORKERS_BY_QUEUE_KEY % self._queues[kind].name)
            keys = dict(zip(kinds, pipeline.execute(), strict=True))
            every = sorted(set().union(*keys.values()))
            for key in every:
                pipeline.hget(key, "last_heartbeat")
            beats = dict(zip(every, pipeline.execute(), strict=True))
        alive = {key for key, beat in beats.items() if beat and _is_recent(beat)}
        return {kind: len(keys[kind] & alive) for kind in kinds}

    def _bell(self, analyzer: Analyzer) -> str:
        return f"{self._prefix}:bell:{analyzer.name}"

    def _last(self, analyzer: Analyzer) -> str:
        """The key that holds the id of the job with which a worker was called last."""
        return f"{self._prefix}:call:{analyzer.name}"


def _is_recent(heartbeat: bytes) -> bool:
    return datetime.now(UTC) - utcparse(heartbeat.decode()) < timedelta(seconds=ALIVE_SECONDS)


class DoorbellRinger:
    """Rings beside the requests: none of them waits for Redis, however slow that is.

    What is not rung when the process dies, the reconciler rings.

    Args:
        installation_id: gives the id of the installation. Where the queue could not be claimed at
            the start it is before the first ring.
    """

    def __init__(self, queue: Queue, installation_id: Callable[[], str]):
        self._queue = queue
        self._installation_id = installation_id
        self._wanted: SimpleQueue[Analyzer] = SimpleQueue()
        Thread(target=self._ring_forever, name="ringer", daemon=True).start()

    def ring(self, analyzers: Iterable[Analyzer]) -> None:
        """Have a worker called for each analyzer, at once or a moment later."""
        for analyzer in analyzers:
            self._wanted.put(analyzer)

    def _ring_forever(self) -> None:
        while True:
            wanted = self._take()
            try:
                self._queue.claim(self._installation_id)
                self._queue.ring(wanted.values())
            except ClustrError as error:
                log.warning("bells_not_rung", analyzers=list(wanted), reason=str(error))
            time.sleep(RINGER_PAUSE_SECONDS)

    def _take(self) -> dict[str, Analyzer]:
        """Wait for an analyzer to ring for, and take all that are asked for by then."""
        analyzer = self._wanted.get()
        wanted = {analyzer.name: analyzer}
        with suppress(Empty):
            while True:
                analyzer = self._wanted.get_nowait()
                wanted[analyzer.name] = analyzer
        return wanted
