"""The door for workers: RQ workers that run analyzers; beside them the reconciler and the jobs."""

import contextlib
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
from clustr.analysis.persistent_process import PersistentProcesses
from clustr.analysis.temp_folder import remove_abandoned_folders
from clustr.components import (
    WEB_SECONDS,
    WORKER_SECONDS,
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
    JOB,
    JOB_SECONDS_TO_LIVE,
    WORKER_SECONDS_TO_LIVE,
    Queue,
    answering,
    connect,
    queue_name,
)
from clustr.services.bulk import JobRunner
from clustr.services.reconciler import Reconciler
from clustr.settings import Settings
from clustr.storage import LocalStorage
from clustr.supervisor import servers
from clustr.supervisor.processes import Child, Supervisor, function
from clustr.worker import jobs

log = logs.logger(__name__)

# A process is kept so long for the next call; one of an analyzer with `keep_loaded`, for ever.
IDLE_SECONDS = 60.0
CLAIM_EVERY_SECONDS = 1.0

HUNG = 1  # the exit code after `faulthandler.dump_traceback_later(…, exit=True)`


class AnalysisJob(Job):
    """An RQ job that can do nothing but answer a bell, whatever Redis says about it.

    Jobs are JSON, but that alone would let one name any function of the installation, to be run as
    its work or as a callback, or an address to post to.
    """

    func = None  # It is called by its name in a kept process, and never run by RQ.
    success_callback = failure_callback = stopped_callback = None

    def send_webhooks(self, *_args: Any, **_kwargs: Any) -> None:
        """Call nobody."""

    def is_a_bell(self) -> bool:
        """Whether it is what our own side enqueues: the one function, given two texts."""
        try:
            texts = [isinstance(argument, str) for argument in self.args]
            return self.func_name == JOB and not self.kwargs and texts == [True, True]
        except (DeserializationError, TypeError, ValueError):  # A pickle, for one.
            return False


class AnalysisWorker(Worker):
    """An RQ worker that runs nothing but Clustr's own job."""

    job_class = AnalysisJob
    max_connection_wait_time = 5.0
    settings: Settings
    plugin_manager: PluginManager
    kept = PersistentProcesses(jobs.answer_calls)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Give a sign of life, and be among the workers again after Redis has lost what it had."""
        super().heartbeat(timeout, pipeline)
        register(self, pipeline)
        self.kept.release_idle()

    def execute_job(self, job: AnalysisJob, queue: Any) -> None:
        if not job.is_a_bell():
            log.error("job_refused", job=job.id)
            job.delete()
            return
        if (
            job.args[0] not in self.plugin_manager.analyzers
        ):  # Its work is left to workers that have it.
            log.warning("analyzer_unknown", analyzer=job.args[0])
            job.delete()
            return
        super().execute_job(job, queue)
        if is_under_way(job):  # A plugin ended the process, and with the exit code of a success.
            self.handle_work_horse_killed(job, None, os.EX_OK, None)
            job.delete()

    def fork_work_horse(self, job: AnalysisJob, queue: Any) -> None:
        """Have the job done in the process of its analyzer, which is made if there is none."""
        name, run = job.args
        self.prepare_job_execution(job, len(self.queues) == 1)
        # RQ has just taken its end from it, which it had while it waited.
        self.connection.expire(job.key, job.timeout + JOB_SECONDS_TO_LIVE)
        idle_seconds = None if self.plugin_manager.analyzers[name].keep_loaded else IDLE_SECONDS
        self._horse_pid = self.kept.call(name, run, idle_seconds)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait for the answer of the process, or for its end."""
        return self.horse_pid, self.kept.wait(), None

    def monitor_work_horse(self, job: AnalysisJob, queue: Any, execution: Any) -> None:
        """Wait for the end of the job, within its limit, and tell Redis of it."""
        super().monitor_work_horse(job, queue, execution)
        if self.kept.take_answer():
            job.ended_at = now()
            self.handle_job_success(job, queue, queue.started_job_registry, execution)

    def handle_warm_shutdown_request(self) -> None:
        """Ask the running job to stop: what it has not ended is put back at once."""
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):  # It has ended, just now.
                os.kill(self.horse_pid, signal.SIGTERM)

    def handle_work_horse_killed(
        self, job: AnalysisJob, retpid: int | None, ret_val: int | None, rusage: Any
    ) -> None:
        """Take back what the dead process held, without waiting for the end of its lease."""
        name, run = job.args
        reason = describe_death(ret_val)
        log.error("work_horse_died", analyzer=name, run=run, reason=reason)
        remove_abandoned_folders()
        database = build_database(self.settings, WORKER_SECONDS)
        try:
            most = self.plugin_manager.analyzers[name].max_attempts
            database.analyses.reclaim(name, most, reason, run)
        except ClustrError as error:
            log.warning("analyses_not_taken_back", reason=str(error))
        finally:
            database.close()


def is_under_way(job: Job) -> bool:
    """Whether Redis says that a worker is at it; a job that came to its end is not there at all."""
    try:
        return job.get_status() is JobStatus.STARTED
    except InvalidJobOperation:
        return False


def describe_death(status: int | None) -> str:
    """How a process ended, from its wait status."""
    if status is None:
        return "its process was lost"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        known = number in set(signal.Signals)
        name = signal.Signals(number).name if known else f"signal {number}"
        return f"its process was killed by {name}"
    code = os.waitstatus_to_exitcode(status)
    if code == HUNG:
        return f"its process hung beyond its time limit, or ended itself with exit code {code}"
    return f"its process ended with exit code {code}"


def run(settings: Settings, queues: tuple[str, ...], workers: int) -> int:
    """Run workers and the reconciler until SIGTERM or SIGINT.

    At SIGHUP they end in the same way and the program begins anew under its process id, with the
    settings and plugins that there are by then; when its terminal has closed it ends.

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
    # In a process of its own: it asks MongoDB.
    _, status = os.waitpid(function(lambda: prepare_store(settings))().pid, 0)
    if status:
        return os.waitstatus_to_exitcode(status)
    plugin_manager = build_plugin_manager(settings)
    jobs.prepare(settings, plugin_manager)
    children = [
        Child(
            "reconciler", function(lambda: run_maintenance(settings, plugin_manager, "reconciler"))
        ),
        Child("jobs", function(lambda: run_maintenance(settings, plugin_manager, "bulk"))),
    ]
    children += [
        Child(
            f"worker-{n}",
            function(lambda: run_worker(settings, plugin_manager, queues)),
            stop_seconds=5,
        )
        for n in range(1, workers + 1)
    ]
    supervisor = Supervisor(
        children, report=lambda said: log.error("child_ended", said=said), together=True
    )
    code = supervisor.run()
    reason = supervisor.stopped_by.name if supervisor.stopped_by else "nothing"
    if supervisor.stopped_by is signal.SIGHUP and not supervisor.terminal_closed:
        log.info("worker_restarts", signal=reason)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    log.info("worker_ended", signal=reason, exit_code=code)
    return code


def prepare_store(settings: Settings) -> int:
    """See that the addresses, the database, if it is there, and the store can be used.

    Returns:
        the exit code: 2 when they cannot, and why has been said.
    """
    database = None
    try:
        queue = Queue(settings.redis_url, settings.redis_prefix, WEB_SECONDS)
        database = build_database(settings, WEB_SECONDS)
        with contextlib.suppress(DatabaseUnavailable):
            database.in_use()
        storage = LocalStorage(settings.upload_folder)
        storage.prepare(database.in_use)
        storage.warn_if_open()
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
    """Log which of the servers, as far as they answer, their makers do not support any more.

    Of those that `clustr up` has started it says so itself.
    """
    versions = {}
    with contextlib.suppress(DatabaseUnavailable):
        versions["MONGODB_URL"] = "MongoDB", database.describe()["version"]
    with contextlib.suppress(QueueUnavailable), answering():
        client = connect(settings.redis_url, WEB_SECONDS)
        told = client.info("server")
        client.close()
        if told.get("server_name", "redis") == "redis":  # Valkey says the version of a Redis, too.
            versions["REDIS_URL"] = "Redis", told["redis_version"]
    own, today = servers.noted_addresses(settings.data_folder), datetime.now(UTC).date()
    for setting, (product, version) in versions.items():
        reason = why_unsupported(product, version, today)
        if reason and own.get(setting) != getattr(settings, setting.lower()):
            log.warning("server_unsupported", reason=f"{setting}: {reason}")


def claim_when_there(settings: Settings) -> None:
    """Wait for MongoDB and Redis, and see that Redis and upload folder are this installation's.

    Raises:
        StartUpError: one of them is another's.
    """
    database = build_database(settings, WEB_SECONDS)
    storage = LocalStorage(settings.upload_folder)
    queue = Queue(settings.redis_url, settings.redis_prefix, WEB_SECONDS)
    try:
        while not claim_installation(database, storage, queue):
            time.sleep(CLAIM_EVERY_SECONDS)
    finally:
        database.close()


def run_worker(settings: Settings, plugin_manager: PluginManager, queues: tuple[str, ...]) -> int:
    """Be one RQ worker.

    Returns:
        the exit code: 1 when Redis went away in the middle of something, 2 when it cannot begin.
    """
    try:
        claim_when_there(settings)
    except StartUpError as error:
        log.error("worker_not_started", reason=str(error))
        return 2
    remove_abandoned_folders()
    AnalysisWorker.settings = settings
    AnalysisWorker.plugin_manager = plugin_manager
    try:
        with answering():
            worker = AnalysisWorker(
                [queue_name(settings.redis_prefix, kind) for kind in queues],
                connection=connect(settings.redis_url, timeout_seconds=None),
                serializer=JSONSerializer,
                worker_ttl=WORKER_SECONDS_TO_LIVE,
            )
            # In turn, or a long backlog of one kind of work would leave the others to wait.
            worker.work(logging_level=None, dequeue_strategy=DequeueStrategy.ROUND_ROBIN)
    except QueueUnavailable:
        return 1
    finally:
        AnalysisWorker.kept.stop()
    return 0


def run_maintenance(settings: Settings, plugin_manager: PluginManager, name: str) -> int:
    """Run for ever what works beside the workers; the exit code is 2 when it cannot begin.

    Args:
        name: which of `WorkerParts` that is: `reconciler` or `bulk`.
    """
    try:
        claim_when_there(settings)
        components = build_worker(settings, plugin_manager)
    except StartUpError as error:
        log.error(f"{name}_not_started", reason=str(error))
        return 2
    part: Reconciler | JobRunner = getattr(components, name)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        part.run_forever()
    finally:
        part.stop()
        components.database.close()
    return 0
