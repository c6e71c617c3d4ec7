"""The door for workers: RQ workers that run analyzers, and the reconciler beside them."""

import os
import signal
import sys
from typing import Any

from rq import Worker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import DequeueStrategy

from clustr import jobs, logs
from clustr.errors import ClustrError
from clustr.parts import WORKER_SECONDS, build_catalog, build_host, build_worker
from clustr.plugin_host import PluginHost
from clustr.processes import Child, Supervisor, die_with_parent, function, notify_ready
from clustr.queue import JOB, connect, queue_name
from clustr.settings import Settings
from clustr.storage import LocalStorage

log = logs.logger(__name__)


class AnalysisWorker(Worker):
    """An RQ worker that runs nothing but Clustr's own job.

    Jobs are JSON, but that alone would let a job name any function of the installation: one that
    names another, or a callback, is refused.
    """

    max_connection_wait_time = 5.0
    settings: Settings
    host: PluginHost

    def execute_job(self, job: Job, queue: Any) -> None:
        if job.func_name != JOB or has_callbacks(job):
            log.error("job_refused", job=job.id)
            job.delete()
            return
        super().execute_job(job, queue)

    def main_work_horse(self, job: Job, queue: Any) -> None:
        die_with_parent(self.pid)
        super().main_work_horse(job, queue)

    def handle_warm_shutdown_request(self) -> None:
        """Ask the running job to stop: what it has not ended is put back at once."""
        if self.horse_pid:
            os.kill(self.horse_pid, signal.SIGTERM)

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: Any) -> None:
        """Take back what the dead process held, without waiting for the end of its lease."""
        name, run = job.args
        analyzer = self.host.analyzers.get(name)
        reason = describe_death(ret_val)
        log.error("work_horse_died", analyzer=name, run=run, reason=reason)
        catalog = build_catalog(self.settings, WORKER_SECONDS)
        try:
            if analyzer:
                catalog.analyses.take_back(name, analyzer.max_attempts, reason, run)
        except ClustrError as error:
            log.warning("analyses_not_taken_back", reason=str(error))
        finally:
            catalog.close()


def has_callbacks(job: Job) -> bool:
    names = (job._success_callback_name, job._failure_callback_name, job._stopped_callback_name)
    return any(names)


def describe_death(status: int | None) -> str:
    """How a process ended, from its wait status."""
    if status is None:
        return "its process was lost"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"its process was killed by {signal.Signals(number).name}"
    return f"its process ended with exit code {os.waitstatus_to_exitcode(status)}"


def run(settings: Settings, queues: tuple[str, ...], workers: int) -> int:
    """Run workers and the reconciler until SIGTERM or SIGINT.

    This process opens no client and loads every plugin once: its children are forks that share
    what was loaded.

    Args:
        queues: the kinds of work to take, the first before the others.
        workers: how many RQ workers.

    Returns:
        the exit code.

    Raises:
        StartUpError: a setting cannot be used.
    """
    logs.configure(settings.log_format, settings.log_level)
    LocalStorage(settings.upload_folder).prepare()
    host = build_host(settings)
    jobs.prepare(settings, host)
    children = [Child("reconciler", function(lambda: run_reconciler(settings, host)))]
    children += [
        Child(f"worker-{n}", function(lambda: run_worker(settings, host, queues)), stop_seconds=5)
        for n in range(1, workers + 1)
    ]
    supervisor = Supervisor(children, report=lambda said: log.error("child_ended", said=said))
    return supervisor.run(when_started=notify_ready)


def run_worker(settings: Settings, host: PluginHost, queues: tuple[str, ...]) -> int:
    """Be one RQ worker."""
    AnalysisWorker.settings = settings
    AnalysisWorker.host = host
    worker = AnalysisWorker(
        [queue_name(kind) for kind in queues],
        connection=connect(settings.redis_url, timeout_seconds=None),
        serializer=JSONSerializer,
    )
    # In turn, or a long backlog of one kind of work would leave the others waiting to its end.
    worker.work(logging_level=None, dequeue_strategy=DequeueStrategy.ROUND_ROBIN)
    return 0


def run_reconciler(settings: Settings, host: PluginHost) -> int:
    """Be the reconciler."""
    parts = build_worker(settings, host)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        parts.reconciler.run_for_ever()
    finally:
        parts.reconciler.stop()
        parts.catalog.close()
    return 0
