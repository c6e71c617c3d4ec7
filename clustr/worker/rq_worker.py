"""`clustr worker`: RQ workers that run analyzers, and beside them the reconciler and the jobs."""

import contextlib
import functools
import gc
import os
import signal
import sys
import time
from datetime import UTC, datetime
from typing import Any

from rq import Worker
from rq.exceptions import DeserializationError, InvalidJobOperation
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import DequeueStrategy
from rq.worker_registration import register

from clustr import logs
from clustr.analysis.engine import calls_lease
from clustr.analysis.persistent_process import PersistentProcesses
from clustr.analysis.temp_folder import remove_abandoned_folders
from clustr.components import (
    WEB_TIMEOUT_SECONDS,
    WORKER_TIMEOUT_SECONDS,
    build_database,
    build_plugin_manager,
    build_worker,
    claim_installation,
)
from clustr.database import Database
from clustr.domain.errors import ClustrError, DatabaseUnavailable, QueueUnavailable, StartUpError
from clustr.domain.supported_releases import why_unsupported
from clustr.plugin_manager import PluginManager
from clustr.queue import (
    HTTP,
    JOB_FUNCTION,
    JOB_SECONDS_TO_LIVE,
    WORKER_SECONDS_TO_LIVE,
    Queue,
    connect,
    queue_name,
    translate_redis_errors,
)
from clustr.settings import Settings
from clustr.storage import LocalStorage
from clustr.supervisor import servers
from clustr.supervisor.child import Child
from clustr.supervisor.forking import function_starter, lower_priority
from clustr.supervisor.supervisor import Supervisor
from clustr.worker import jobs

log = logs.logger(__name__)

# How long a process stays for the next call; that of an analyzer with `keep_loaded` stays for ever.
IDLE_SECONDS = 60.0
# While MongoDB, Redis or the upload folder is away, a process looks for them less and less often.
FIRST_CLAIM_SECONDS = 1.0
LONGEST_CLAIM_SECONDS = 10.0

HUNG_EXIT_CODE = 1  # the exit code after `faulthandler.dump_traceback_later(…, exit=True)`


class AnalysisJob(Job):
    """An RQ job that can do nothing but run an analyzer, whatever Redis says about it.

    Jobs are JSON. Even so, a job of RQ can name any function of the installation as its work or as
    a callback, or a URL to post to: that is switched off here.
    """

    func = None  # A persistent process runs the analyzer; RQ never calls a function.
    success_callback = failure_callback = stopped_callback = None

    def send_webhooks(self, *_args: Any, **_kwargs: Any) -> None:
        """Send none."""

    def is_analysis_job(self) -> bool:
        """Whether `Queue.ring` enqueues such jobs: `JOB_FUNCTION` with two texts and a timeout."""
        try:
            texts = [isinstance(argument, str) for argument in self.args]
            is_ours = self.func_name == JOB_FUNCTION and isinstance(self.timeout, int)
            return is_ours and not self.kwargs and texts == [True, True]
        except (DeserializationError, TypeError, ValueError):  # A pickle, for one.
            return False


class AnalysisWorker(Worker):
    """An RQ worker that runs nothing but Clustr's own job."""

    job_class = AnalysisJob
    max_connection_wait_time = 5.0
    settings: Settings
    plugin_manager: PluginManager
    processes = PersistentProcesses(jobs.answer_calls)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Send a heartbeat; register again, in case that Redis has lost its data."""
        super().heartbeat(timeout, pipeline)
        register(self, pipeline)
        self.processes.release_idle()

    def execute_job(self, job: Job, queue: Any) -> None:
        assert isinstance(job, AnalysisJob)  # RQ makes every job that it reads a `job_class`.
        if not job.is_analysis_job():
            log.error("job_refused", job=job.id)
            job.delete()
            return
        # Its work is left to workers that have the analyzer.
        if job.args[0] not in self.plugin_manager.analyzers:
            log.warning("analyzer_unknown", analyzer=job.args[0])
            job.delete()
            return
        super().execute_job(job, queue)
        if is_started(job):  # A plugin ended the process with exit code 0.
            self.handle_work_horse_killed(job, None, os.EX_OK, None)
            job.delete()

    def fork_work_horse(self, job: Job, queue: Any) -> None:
        """Call the persistent process of the job's analyzer, which is forked if there is none."""
        name, run = job.args
        self.prepare_job_execution(job, len(self.queues) == 1)
        assert isinstance(job.timeout, int)  # `Queue.ring` gives every job one.
        # RQ has just removed the expiry that the job had while it waited.
        self.connection.expire(job.key, job.timeout + JOB_SECONDS_TO_LIVE)
        idle_seconds = None if self.plugin_manager.analyzers[name].keep_loaded else IDLE_SECONDS
        self._horse_pid = self.processes.call(name, run, idle_seconds)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait until the process answers or ends: its id, the wait status, no resource usage."""
        return self.horse_pid, self.processes.wait(), None

    def monitor_work_horse(self, job: Job, queue: Any, execution: Any) -> None:
        """Wait for the end of the job within its time-out, and record a success in Redis."""
        super().monitor_work_horse(job, queue, execution)
        if self.processes.take_answer():
            job.ended_at = now()
            self.handle_job_success(job, queue, queue.started_job_registry, execution)

    def handle_warm_shutdown_request(self) -> None:
        """Ask the running job to stop: it releases the analyses that it has not finished."""
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):  # It has ended, just now.
                os.kill(self.horse_pid, signal.SIGTERM)

    def handle_work_horse_killed(
        self, job: Job, retpid: int | None, ret_val: int | None, rusage: Any
    ) -> None:
        """Reclaim the analyses of the dead process without waiting for the end of their lease."""
        name, run = job.args
        reason = describe_death(ret_val)
        log.error("work_horse_died", analyzer=name, run=run, reason=reason)
        remove_abandoned_folders()
        database = build_database(self.settings, WORKER_TIMEOUT_SECONDS)
        try:
            analyzer = self.plugin_manager.analyzers[name]
            database.analyses.reclaim(name, analyzer.max_attempts, reason, run, analyzer.version)
            if lease := calls_lease(analyzer):
                database.leases.release(lease, run)
        except ClustrError as error:
            log.warning("analyses_not_taken_back", reason=str(error))
        finally:
            database.close()


def is_started(job: Job) -> bool:
    """Whether Redis still has the job as started; a job that has ended is not in Redis any more."""
    try:
        return job.get_status() is JobStatus.STARTED
    except InvalidJobOperation:
        return False


def describe_death(status: int | None) -> str:
    """How a process ended, in words.

    Args:
        status: its wait status (wait(2)); None when that is not known.
    """
    if status is None:
        return "its process was lost"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        has_name = number in set(signal.Signals)
        name = signal.Signals(number).name if has_name else f"signal {number}"
        return f"its process was killed by {name}"
    code = os.waitstatus_to_exitcode(status)
    if code == HUNG_EXIT_CODE:
        return f"its process hung beyond its time limit, or ended itself with exit code {code}"
    return f"its process ended with exit code {code}"


def run(settings: Settings, queues: tuple[str, ...], workers: int) -> int:
    """Run workers and the reconciler until SIGTERM or SIGINT.

    At SIGHUP they end as well; the program then starts again under the same process id and reads
    settings and plugins anew. When SIGHUP came because the terminal has closed, it ends.

    This process opens no client. It loads every plugin once, and its forks share what was loaded.

    Args:
        queues: the kinds of work to take (`clustr.queue.KINDS`).
        workers: the number of RQ workers; `queues_of_workers` adds those that call services.

    Returns:
        the exit code.

    Raises:
        StartUpError: a setting cannot be used.
    """
    logs.configure(settings.log_format, settings.log_level)
    # NumPy, where an analyzer imports it: by default its BLAS starts a thread for each core and
    # reserves memory for it, in each process of an analyzer.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # In a process of its own, because it opens clients, which no fork may inherit.
    _, status = os.waitpid(function_starter(lambda: prepare_backends(settings))().pid, 0)
    if status:
        return os.waitstatus_to_exitcode(status)
    plugin_manager = build_plugin_manager(settings)
    jobs.configure(settings, plugin_manager)
    gc.freeze()  # A collection in a fork would write to each object, and so copy it.
    children = [
        Child(
            "reconciler",
            function_starter(lambda: run_maintenance(settings, plugin_manager, "reconciler")),
        ),
        Child("jobs", function_starter(lambda: run_maintenance(settings, plugin_manager, "bulk"))),
    ]
    children += [
        Child(
            f"worker-{n}",
            function_starter(functools.partial(run_worker, settings, plugin_manager, kinds)),
            stop_seconds=5,
        )
        for n, kinds in enumerate(queues_of_workers(queues, workers, plugin_manager), 1)
    ]
    supervisor = Supervisor(
        children, report=lambda text: log.error("child_ended", said=text), stop_together=True
    )
    code = supervisor.run()
    reason = supervisor.stopped_by.name if supervisor.stopped_by else "nothing"
    if supervisor.stopped_by is signal.SIGHUP and not supervisor.terminal_closed:
        log.info("worker_restarts", signal=reason)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    log.info("worker_ended", signal=reason, exit_code=code)
    return code


def queues_of_workers(
    queues: tuple[str, ...], workers: int, plugin_manager: PluginManager
) -> list[tuple[str, ...]]:
    """The kinds of work that each RQ worker takes.

    Analyzers that call services get workers of their own, one each, so that nothing else waits for
    a service that is slow.
    """
    others = tuple(kind for kind in queues if kind != HTTP)
    if HTTP not in queues or not others:
        return [queues] * workers
    callers = sum(analyzer.queue == HTTP for analyzer in plugin_manager.analyzers.values())
    return [others] * workers + [(HTTP,)] * callers


def prepare_backends(settings: Settings) -> int:
    """Check the addresses, the store, and the database if it answers; prepare the store.

    Returns:
        the exit code: 2 when one of them cannot be used; the reason is on standard error.
    """
    database = None
    try:
        queue = Queue(settings.redis_url, settings.redis_prefix, WEB_TIMEOUT_SECONDS)
        database = build_database(settings, WEB_TIMEOUT_SECONDS)
        with contextlib.suppress(DatabaseUnavailable):
            database.in_use()
        storage = LocalStorage(settings.upload_folder)
        storage.prepare(database.in_use)
        storage.warn_if_world_readable()
        claim_installation(database, storage, queue)
        log_unsupported(settings, database)
    except StartUpError as error:
        sys.stderr.write(f"clustr: {error}\n")
        return 2
    finally:
        if database:
            database.close()
    return 0


def log_unsupported(settings: Settings, database: Database) -> None:
    """Log a warning for each server that answers in a release that its maker no longer supports.

    Servers that `clustr up` has started are left out: it logs them itself.
    """
    versions = {}
    with contextlib.suppress(DatabaseUnavailable):
        versions["MONGODB_URL"] = "MongoDB", database.describe()["version"]
    with contextlib.suppress(QueueUnavailable), translate_redis_errors():
        client = connect(settings.redis_url, WEB_TIMEOUT_SECONDS)
        server_info = client.info("server")
        client.close()
        # Valkey gives a `redis_version`, too: that of the Redis it is compatible with.
        if server_info.get("server_name", "redis") == "redis":
            versions["REDIS_URL"] = "Redis", server_info["redis_version"]
    own_urls, today = servers.read_addresses(settings.data_folder), datetime.now(UTC).date()
    for setting, (product, version) in versions.items():
        reason = why_unsupported(product, version, today)
        if reason and own_urls.get(setting) != getattr(settings, setting.lower()):
            log.warning("server_unsupported", reason=f"{setting}: {reason}")


def claim_when_there(settings: Settings) -> bool:
    """Wait for MongoDB and Redis, and see that Redis and upload folder are this installation's.

    Returns:
        whether it had to wait, because one of them was away.

    Raises:
        StartUpError: one of them is another's.
    """
    database = build_database(settings, WEB_TIMEOUT_SECONDS)
    storage = LocalStorage(settings.upload_folder)
    queue = Queue(settings.redis_url, settings.redis_prefix, WEB_TIMEOUT_SECONDS)
    seconds, has_waited = FIRST_CLAIM_SECONDS, False
    try:
        while not claim_installation(database, storage, queue):
            has_waited = True
            time.sleep(seconds)
            seconds = min(2 * seconds, LONGEST_CLAIM_SECONDS)
    finally:
        database.close()
    return has_waited


def run_worker(settings: Settings, plugin_manager: PluginManager, queues: tuple[str, ...]) -> int:
    """Run one RQ worker until it is asked to stop.

    Returns:
        the exit code: 1 when Redis went away in the middle of something, 2 when it cannot begin.
    """
    try:
        claim_when_there(settings)
    except StartUpError as error:
        log.error("worker_not_started", reason=str(error))
        return 2
    lower_priority(settings.worker_nice)  # The processes of analyzers are forked from this one.
    remove_abandoned_folders()
    AnalysisWorker.settings = settings
    AnalysisWorker.plugin_manager = plugin_manager
    try:
        with translate_redis_errors():
            worker = AnalysisWorker(
                [queue_name(settings.redis_prefix, kind) for kind in queues],
                connection=connect(settings.redis_url, timeout_seconds=None),
                serializer=JSONSerializer,
                worker_ttl=WORKER_SECONDS_TO_LIVE,
            )
            # Round robin, or a long backlog of one kind of work would make the others wait.
            worker.work(logging_level=None, dequeue_strategy=DequeueStrategy.ROUND_ROBIN)
    except QueueUnavailable:
        return 1
    finally:
        AnalysisWorker.processes.stop()
    return 0


def run_maintenance(settings: Settings, plugin_manager: PluginManager, name: str) -> int:
    """Run the reconciler or the bulk jobs until SIGTERM.

    Args:
        name: `reconciler` or `bulk`, as in the log.

    Returns:
        the exit code: 2 when it cannot start.
    """
    try:
        was_away = claim_when_there(settings)
        components = build_worker(settings, plugin_manager)
    except StartUpError as error:
        log.error(f"{name}_not_started", reason=str(error))
        return 2
    component = components.reconciler if name == "reconciler" else components.job_runner
    if component is components.job_runner:  # Others wait for what the reconciler does.
        lower_priority(settings.worker_nice)
    else:  # One record for all processes of this `clustr worker`: they share its plugins.
        components.running_processes.announce("worker", os.getppid(), components.database)
        if was_away:  # MongoDB, it may be; then other hosts have runs that could not renew.
            components.reconciler.note_outage()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        component.run_forever()
    finally:
        component.stop()
        components.database.close()
    return 0
