"""The bells over a real Redis, and what else somebody may put there."""

import os
import pickle
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import photographs
import pytest
from blip_stand_in import BlipStandIn
from redis import Redis
from rq import Queue as RedisQueue
from rq.job import Callback, Job, JobStatus
from rq.serializers import JSONSerializer
from rq.webhook import Webhook
from running import wait_until
from workshop import Outage, Program, Workshop, plugin

from clustr.domain.errors import QueueUnavailable, StartUpError
from clustr.plugin_manager import load_plugins
from clustr.plugins import Analyzer
from clustr.queue import JOB_FUNCTION, JOB_SECONDS_TO_LIVE, DoorbellRinger, Queue
from clustr.queue.doorbells import BELL_SECONDS
from clustr.supervisor import servers as programs

QUEUES = {"fast": "default", "remote": "http", "heavy": "gpu"}


@pytest.fixture
def workshop(workshop: Workshop) -> Workshop:
    """One whose keys in Redis nobody has claimed, for ringers that claim them."""
    workshop.forget_keys()
    return workshop


@pytest.fixture
def analyzers(workshop: Workshop) -> list[Analyzer]:
    """One for each queue."""
    for name, queue in QUEUES.items():
        workshop.analyzer(name, "return {}", queue=queue)
    settings = workshop.settings
    plugin_manager = load_plugins(workshop.plugins, tuple(QUEUES), (), settings.plugins_config, {})
    return [plugin_manager.analyzers[name] for name in QUEUES]


@pytest.fixture
def queue(workshop: Workshop) -> Queue:
    return Queue(workshop.environment["REDIS_URL"], workshop.settings.redis_prefix)


# Ringing


def test_bell_rings_once_until_it_is_answered(queue, analyzers, workshop):
    fast, _, heavy = analyzers
    for _ in range(3):
        queue.ring([fast, heavy])
    assert queue.count_jobs() == {"default": 1, "http": 0, "gpu": 1}
    queue.ring(analyzers)
    assert queue.count_jobs() == {"default": 1, "http": 1, "gpu": 1}
    take_call(workshop)
    queue.clear_bell(fast)
    queue.ring(analyzers)
    assert queue.count_jobs() == {"default": 1, "http": 1, "gpu": 1}


def take_call(workshop: Workshop) -> Job:
    """Take a job for the queue `default`, as a worker does."""
    taken = workshop.redis.lpop(f"rq:queue:{workshop.key('default')}")
    return Job.fetch(taken.decode(), connection=workshop.redis, serializer=JSONSerializer)


def test_calls_that_no_worker_takes_do_not_become_more(queue, analyzers, workshop):
    def ring_anew() -> None:
        """Ring as if nobody had answered for as long as a bell rings."""
        workshop.redis.delete(*workshop.redis.keys(workshop.key("bell:*")))
        queue.ring(analyzers)

    queue.ring(analyzers)
    keys = set(workshop.redis.keys())
    memory_bytes = sum(map(workshop.redis.memory_usage, keys))
    for _ in range(50):
        ring_anew()
    assert queue.count_jobs() == {"default": 1, "http": 1, "gpu": 1}
    assert set(workshop.redis.keys()) == keys
    assert sum(map(workshop.redis.memory_usage, keys)) < memory_bytes + 1_000
    # One that was taken and lost is rung for anew.
    take_call(workshop)
    ring_anew()
    assert queue.count_jobs() == {"default": 1, "http": 1, "gpu": 1}


def test_what_redis_knows_of_a_job_has_an_end(queue, analyzers, workshop):
    queue.ring(analyzers)
    kept = [key for name in ("rq:job:*", workshop.key("*")) for key in workshop.redis.keys(name)]
    assert len(kept) == 9
    assert all(0 < workshop.redis.ttl(key) <= JOB_SECONDS_TO_LIVE for key in kept)
    workshop.analyzer("hangs", "Path('begun').touch(); time.sleep(600)", timeout=600)
    workshop.upload()
    worker = workshop.worker("--queues", "default")
    wait_until((workshop.folder / "begun").exists, 60, "the analysis")
    worker.end()
    for key in workshop.redis.keys("rq:job:*"):
        assert workshop.redis.ttl(key) > 0


def test_while_a_worker_is_held_up_there_are_as_many_calls_as_analyzers(queue, analyzers, workshop):
    worker = workshop.worker()
    [first] = workshop.upload()
    for name in QUEUES:
        workshop.end_of(first, name)
    held = worker.children()[2]
    os.kill(held.pid, signal.SIGSTOP)
    try:
        ids = workshop.upload(*[photographs.photograph(width=40 + n) for n in range(5)])
        for _ in range(20):
            for key in workshop.redis.keys(workshop.key("bell:*")):
                workshop.redis.delete(key)
            queue.ring(analyzers)
        # One may be taken; and the reconciler, which goes on, may have rung at the same moment.
        assert max(queue.count_jobs().values()) <= 2
        assert len(workshop.redis.keys("rq:job:*")) <= 2 * len(QUEUES) + 1
    finally:
        os.kill(held.pid, signal.SIGCONT)
    for upload_id in ids:
        assert workshop.end_of(upload_id, "fast").state == "succeeded"
    wait_until(lambda: not workshop.redis.keys("rq:job:*"), 60, "the end of all jobs")


def test_a_worker_is_known_again_after_redis_has_lost_everything(tmp_path):
    outage = Outage(tmp_path / "servers")
    try:
        outage.start()
        with Workshop(tmp_path, outage) as workshop:
            workshop.analyzer("fast", "return {}")
            queue = Queue(workshop.environment["REDIS_URL"], workshop.settings.redis_prefix)
            workshop.worker()
            wait_until(lambda: queue.count_workers(["default"]) == {"default": 1}, 60, "the worker")
            outage.kill("redis-server")
            outage.start_again("redis-server")
            assert queue.count_workers(["default"]) == {"default": 0}
            wait_until(lambda: queue.count_workers(["default"]) == {"default": 1}, 90, "the worker")
            [upload_id] = workshop.upload()
            assert workshop.end_of(upload_id, "fast").state == "succeeded"
    finally:
        outage.end()


def test_bell_that_nobody_answers_can_be_rung_again_soon(queue, analyzers, workshop):
    queue.ring(analyzers)
    keys = list(workshop.redis.scan_iter(workshop.key("bell:*")))
    assert len(keys) == 3
    assert all(0 < workshop.redis.ttl(key) <= BELL_SECONDS for key in keys)


def test_job_names_its_analyzer_and_a_run_of_its_own(queue, analyzers, workshop):
    queue.ring(analyzers[:1])
    first = take_call(workshop)
    queue.clear_bell(analyzers[0])
    queue.ring(analyzers[:1])
    second = take_call(workshop)
    assert first.func_name == second.func_name == JOB_FUNCTION
    assert first.args[0] == second.args[0] == "fast"
    assert first.args[1] != second.args[1]
    assert first.timeout > analyzers[0].timeout


def test_ringing_takes_two_round_trips_however_many_bells(queue, analyzers, workshop):
    queue.ring(analyzers[:1])  # at the first time it connects, and asks for Redis's version
    queue.clear_bell(analyzers[0])

    def reads() -> int:
        """How often Redis has read from its clients."""
        return workshop.redis.info("stats")["total_reads_processed"]

    def trips(analyzers: list[Analyzer]) -> int:
        before = reads()
        queue.ring(analyzers)
        return reads() - before - 1

    assert trips(analyzers) == 2
    assert trips(analyzers) == 1
    assert trips([]) == 0


def is_refused_at_once(call: Callable[[], object]) -> bool:
    """Whether it took less than a second, in which the machine may have had other things to do."""
    began = time.monotonic()
    with pytest.raises(QueueUnavailable):
        call()
    return time.monotonic() - began < 1


def test_D2_redis_that_is_away_is_said_at_once(analyzers):
    away = Queue(f"redis://127.0.0.1:{programs.free_port()}/0", "clustr")
    for call in (
        lambda: away.ring(analyzers),
        lambda: away.clear_bell(analyzers[0]),
        away.count_jobs,
    ):
        wait_until(lambda call=call: is_refused_at_once(call), 60, "a refusal at once")


def test_address_that_is_none_stops_the_start():
    with pytest.raises(StartUpError, match="REDIS_URL"):
        Queue("redis://localhost:port/0", "clustr")


def test_lost_bell_is_rung_again_by_the_reconciler(workshop, analyzers, monkeypatch):
    monkeypatch.setattr("clustr.queue.doorbells.BELL_SECONDS", 3)  # for the one that is lost
    [upload_id] = workshop.upload()
    wait_until(
        lambda: workshop.redis.delete(f"rq:queue:{workshop.key('default')}"),
        60,
        "the bell",
    )
    workshop.worker()
    assert workshop.end_of(upload_id, "fast").state == "succeeded"


def test_idle_worker_joins_in_a_burst(workshop):
    workshop.analyzer(
        "slow",
        """
        Path(f"worker-{os.getppid()}").touch()
        while context.seconds_left() > 1 and len(list(Path().glob("worker-*"))) < 2:
            time.sleep(0.02)
        return {}
        """,
    )
    workshop.worker("--workers", "2")
    ids = workshop.upload(*[photographs.photograph(width=40)] * 20)
    for upload_id in ids:
        assert workshop.end_of(upload_id, "slow").state == "succeeded"
    assert len(list(workshop.folder.glob("worker-*"))) == 2


def test_worker_takes_only_the_queues_it_is_told(workshop, analyzers):
    [upload_id] = workshop.upload()
    workshop.worker("--queues", "gpu,http")
    assert workshop.end_of(upload_id, "heavy").state == "succeeded"
    assert workshop.end_of(upload_id, "remote").state == "succeeded"
    assert workshop.state_of(upload_id, "fast") == "queued"


# What is in Redis, and what hostile hands put there


def everything(redis: "Redis[bytes]") -> Iterator[bytes]:
    """Every value in Redis, also what RQ has compressed."""
    for key in redis.scan_iter():
        kind = redis.type(key)
        if kind == b"hash":
            values = list(redis.hgetall(key).values())
        elif kind == b"list":
            values = redis.lrange(key, 0, -1)
        elif kind == b"set":
            values = list(redis.smembers(key))
        elif kind == b"zset":
            values = redis.zrange(key, 0, -1)
        elif kind == b"stream":
            values = [v for _, entry in redis.xrange(key) for v in entry.values()]
        elif kind == b"none":  # A worker has removed it since, and may make it anew.
            continue
        else:
            values = [redis.get(key) or b""]
        for value in values:
            yield value
            try:
                yield zlib.decompress(value)
            except zlib.error:
                continue


def is_pickle(value: bytes) -> bool:
    return value[:1] == b"\x80" or (value[-1:] == b"." and value[:1] in b"(cdl]}")


def test_G7_no_pickle_in_redis(workshop, queue, analyzers):
    assert is_pickle(pickle.dumps({"x": 1}))
    assert is_pickle(pickle.dumps(("os.system",), protocol=0))
    workshop.write(
        "crasher", plugin("crasher", "def analyze(self, image, context):", "    os._exit(3)")
    )
    [upload_id] = workshop.upload()
    wait_until(
        lambda: workshop.redis.llen(f"rq:queue:{workshop.key('default')}"),
        60,
        "the bell",
    )
    before = list(everything(workshop.redis))
    assert any(b"clustr.jobs.run_analyzer" in value for value in before)
    assert not [value for value in before if is_pickle(value)]
    worker = workshop.worker()
    workshop.end_of(upload_id, "crasher")  # RQ keeps what it knows of failed jobs for a while
    queue.ring(analyzers)
    assert not [value for value in everything(workshop.redis) if is_pickle(value)]
    assert worker.alive()


class Gadget:
    """Runs a command when it is unpickled."""

    def __init__(self, line: str):
        self._line = line

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self._line,)


@pytest.fixture
def marker(workshop: Workshop) -> Path:
    """A file that any hostile job would make, and a module that makes it when it is imported."""
    marker = workshop.folder / "marker"
    (workshop.folder / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\ndef run(*_): pass\n"
    )
    return marker


@pytest.fixture
def rq(workshop: Workshop) -> RedisQueue:
    """The queue of the worker, to push into it by hand."""
    return RedisQueue(
        workshop.key("default"),
        connection=workshop.redis,
        serializer=JSONSerializer,
    )


def check_all_refused(workshop: Workshop, marker: Path, rq: RedisQueue, worker: Program) -> None:
    """Nothing ran, nothing is left, and the worker is the same and works."""
    wait_until(lambda: rq.count == 0, 60, "the jobs to be taken")
    [upload_id] = workshop.upload()
    assert workshop.end_of(upload_id, "fast").state == "succeeded"
    assert not marker.exists()
    assert "ended" not in worker.output()


def test_G7_hostile_jobs_never_run(workshop, analyzers, marker, rq):
    rq.enqueue("os.system", f"touch {marker}")
    rq.enqueue("evil.run", "fast", "run")
    rq.enqueue(JOB_FUNCTION, "fast", "run", "more")
    rq.enqueue(JOB_FUNCTION, {"$gt": ""}, "run")
    rq.enqueue(JOB_FUNCTION, analyzer="fast", run="run")
    rq.enqueue(JOB_FUNCTION, "fast", "run", on_success=Callback("evil.run"))
    rq.enqueue(JOB_FUNCTION, "fast", "run", on_failure=Callback("evil.run"))
    pickled = RedisQueue(workshop.key("default"), connection=workshop.redis)
    pickled.enqueue("os.system", f"touch {marker}")
    gadget = pickled.enqueue("os.system", "true")
    workshop.redis.hset(gadget.key, "data", pickle.dumps(Gadget(f"touch {marker}")))
    for garbage in (b"", b"null", b"[]", b'["clustr.jobs.run_analyzer"]', b"{", b"\xff"):
        job = rq.enqueue(JOB_FUNCTION, "fast", "run")
        workshop.redis.hset(job.key, "data", garbage)
    endless = rq.enqueue(JOB_FUNCTION, "fast", "run")
    workshop.redis.hdel(endless.key, "timeout")
    check_all_refused(workshop, marker, rq, workshop.worker())


def test_G7_callbacks_of_abandoned_jobs_never_run(workshop, analyzers, marker, rq):
    job = Job.create(
        JOB_FUNCTION,
        ["fast", "run"],
        connection=workshop.redis,
        serializer=JSONSerializer,
        origin=rq.name,
        on_failure=Callback("evil.run"),
        status=JobStatus.STARTED,
    )
    job.save()
    workshop.redis.zadd(f"rq:wip:{rq.name}", {f"{job.id}:execution": 1})
    worker = workshop.worker()
    wait_until(lambda: workshop.redis.zcard(f"rq:wip:{rq.name}") == 0, 60, "RQ's maintenance")
    check_all_refused(workshop, marker, rq, worker)


def test_G8_jobs_call_no_address(workshop, analyzers, marker, rq):
    with BlipStandIn() as listener:
        webhook = Webhook(f"{listener.url}/health", "finished")
        rq.enqueue(JOB_FUNCTION, "fast", "run", webhooks=[webhook])
        check_all_refused(workshop, marker, rq, workshop.worker())
        assert listener.connections == 0


def test_ringer_rings_at_once_and_then_for_many_at_once(queue, analyzers, workshop):
    ringer = DoorbellRinger(queue, lambda: "0" * 24)
    ringer.ring(analyzers[:1])
    wait_until(lambda: queue.count_jobs()["default"] == 1, 60)
    take_call(workshop)
    queue.clear_bell(analyzers[0])
    for _ in range(100):
        ringer.ring(analyzers)
    wait_until(lambda: queue.count_jobs() == {"default": 1, "http": 1, "gpu": 1}, 60)


def test_ringer_rings_for_what_is_pending_before_it_stops(queue, analyzers):
    ringer = DoorbellRinger(queue, lambda: "0" * 24)
    ringer.ring(analyzers)
    ringer.stop()
    assert queue.count_jobs() == {"default": 1, "http": 1, "gpu": 1}


def test_D2_ringer_goes_on_after_redis_was_away(servers, queue, analyzers):
    ringer = DoorbellRinger(queue, lambda: "0" * 24)
    with servers.frozen_redis():
        ringer.ring(analyzers[:1])
        with pytest.raises(QueueUnavailable):
            queue.count_jobs()
    ringer.ring(analyzers)
    wait_until(lambda: queue.count_jobs()["gpu"] == 1, 60)
