"""Jobs: what is to be done with many uploads.

A request or a command stores a job in the database; `clustr.services.job_runner` does it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clustr import logs
from clustr.database import (
    ANY_VERSION,
    AnalysisSelection,
    Database,
    DatabaseView,
    Job,
    LeftBehind,
    ReanalysisSelection,
    UploadSelection,
    Versions,
)
from clustr.domain import failure_messages
from clustr.domain.errors import InvalidInput, NotFound
from clustr.domain.models import Upload
from clustr.plugin_manager import PluginManager
from clustr.queue import DoorbellRinger
from clustr.services.default_services import DefaultServices
from clustr.services.job_kinds import (
    AnalyzeUploads,
    ForgetAnalyzer,
    RestoreUploads,
    analyzer_named,
    dependents_of,
    left_behind,
    require_gone,
)
from clustr.services.running_processes import RESTART_ADVICE, RunningProcesses

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The size of a job before it is created.

    Attributes:
        matched: how many uploads are selected.
        seconds: how long one worker would take for them; None while the analyzer's speed is
            unknown.
    """

    matched: int
    seconds: float | None


class AnalysisJobs:
    """Creates jobs that run an analyzer on uploads that lack its analysis, or run it again."""

    def __init__(
        self,
        database: DatabaseView,
        plugin_manager: PluginManager,
        ringer: DoorbellRinger,
        services: DefaultServices,
    ):
        self._database = database
        self._plugin_manager = plugin_manager
        self._ringer = ringer
        self._services = services

    def estimate(self, selection: ReanalysisSelection) -> Estimate:
        """Estimate the size of the job that `create` would create.

        Raises:
            InvalidInput: there is no such analyzer.
            NotConfigured: the address of its service is not known.
            TooSlow: there are too many uploads to count them within a request.
        """
        analyzer = analyzer_named(self._plugin_manager, selection.analyzer)
        self._services.require(analyzer)
        matched = self._database.selections.count(self._with_config(selection), analyzer)
        durations = self._database.statistics.durations(analyzer)
        seconds = round(matched * durations.p50 / 1000, 1) if durations else None
        return Estimate(matched, seconds)

    def create(self, selection: ReanalysisSelection, request_id: str) -> Job:
        """Create a job that runs the analyzer on the selected uploads.

        Args:
            request_id: of the request that creates it, for the log.

        Raises:
            InvalidInput: there is no such analyzer.
            NotConfigured: the address of its service is not known.
            TooManyJobs: as many jobs as are allowed wait or run already.
        """
        self._services.require(analyzer_named(self._plugin_manager, selection.analyzer))
        self._database.jobs.require_capacity()
        return add_analysis_job(self._database, self._with_config(selection), request_id)

    def _with_config(self, selection: ReanalysisSelection) -> ReanalysisSelection:
        """The selection with the configuration as it is now, if it asks for what others made."""
        if selection.select is not AnalysisSelection.OTHER_CONFIG:
            return selection
        analyzer = analyzer_named(self._plugin_manager, selection.analyzer)
        plugin = self._plugin_manager.plugin_of(analyzer)
        return replace(selection, config_hash=plugin.config_hash)

    def stale_analyzers(self) -> list[str]:
        """The names of the analyzers that have stale analyses, each after those it requires.

        Raises:
            TooSlow: there are too many uploads to count them within a request.
        """
        return [
            name
            for name, analyzer in self._plugin_manager.analyzers.items()
            if self._database.selections.count(
                ReanalysisSelection(name, AnalysisSelection.STALE), analyzer
            )
        ]

    def run_again(
        self,
        upload_id: str,
        name: str,
        versions: Versions = ANY_VERSION,
        only_missing: bool = False,
    ) -> Upload:
        """Queue the analysis of one upload by one analyzer (again), like that of a new upload.

        Args:
            versions: the versions that the upload may have (`If-Match`).
            only_missing: whether to leave alone an analysis that has a result, was skipped by the
                analyzer, or is under way.

        Returns:
            the upload with the analysis as it is then; its last good result stays for now.

        Raises:
            NotFound: there is no such upload, or no such analyzer.
            NotConfigured: the address of its service is not known.
            Outdated: the upload has none of these versions.
            UnderWay: the analysis has not ended yet; not with `only_missing`.
        """
        if name not in self._plugin_manager.analyzers:
            problem = failure_messages.unknown_name(
                "analyzer", name, self._plugin_manager.analyzers
            )
            missing = self._plugin_manager.explain_missing(name)
            raise NotFound(f"{problem[0].upper()}{problem[1:]}{missing and '.'}{missing}")
        analyzer = self._plugin_manager.analyzers[name]
        self._services.require(analyzer)
        dependents = dependents_of(self._plugin_manager, name)
        upload = self._database.selections.queue_analysis(
            upload_id, analyzer, dependents, versions, only_missing
        )
        self._ringer.ring([analyzer])
        return upload


class BulkJobs:
    """Creates jobs that do one of `BULK_KINDS` to many uploads."""

    def __init__(self, database: DatabaseView):
        self._database = database

    def count_matched(self, kind: str, selected_uploads: UploadSelection) -> int:
        """Count the uploads that a job of this kind would handle now.

        Raises:
            TooSlow: there are too many uploads to count them within a request.
        """
        return self._database.selections.count_uploads(
            replace(selected_uploads, trashed=kind == RestoreUploads.kind)
        )

    def create(
        self,
        kind: str,
        selected_uploads: UploadSelection,
        tags: Sequence[str] | None,
        request_id: str,
    ) -> Job:
        """Create a job of this kind for the selected uploads.

        Args:
            kind: `delete`, `restore`, `tag` or `untag`.
            tags: which to add or remove, for the last two kinds.
            request_id: of the request that creates it, for the log.

        Raises:
            TooManyJobs: as many jobs as are allowed wait or run already.
        """
        self._database.jobs.require_capacity()
        parameters = selected_uploads.parameters() | ({"tags": [*tags]} if tags else {})
        return _add_job(self._database, kind, parameters, request_id)


def add_analysis_job(
    database: DatabaseView, selection: ReanalysisSelection, request_id: str
) -> Job:
    """Store a job that runs an analyzer on the selected uploads, however many jobs wait."""
    return _add_job(database, AnalyzeUploads.kind, selection.parameters(), request_id)


def _add_job(
    database: DatabaseView, kind: str, parameters: Mapping[str, Any], request_id: str
) -> Job:
    """Store a job. The log gets the number of its ids instead of thousands of ids."""
    job = database.jobs.add(kind, parameters, request_id)
    logged = {name: len(v) if name == "ids" else v for name, v in parameters.items()}
    log.info("job_added", job=job.id, kind=kind, parameters=logged)
    return job


class ForgettingJobs:
    """Creates jobs that remove what is left of analyzers."""

    def __init__(
        self,
        database: Database,
        plugin_manager: PluginManager,
        running_processes: RunningProcesses,
    ):
        self._database = database
        self._plugin_manager = plugin_manager
        self._running_processes = running_processes

    def left_behind(self, analyzer: str) -> LeftBehind:
        """What there is of an analyzer that is gone.

        Raises:
            InvalidInput: it is not gone, or there is nothing of it.
            QueueUnavailable: Redis does not answer.
        """
        self._require_gone(analyzer)
        left = left_behind(self._database, analyzer)
        if left == LeftBehind(0, 0, ()):
            raise InvalidInput({"analyzer": [f"there is nothing of an analyzer {analyzer}"]})
        return left

    def create(self, analyzer: str, request_id: str) -> Job:
        """Create a job that removes all that is left of an analyzer.

        Raises:
            InvalidInput: it is not gone.
            QueueUnavailable: Redis does not answer.
            TooManyJobs: as many jobs as are allowed wait or run already.
        """
        self._require_gone(analyzer)
        self._database.jobs.require_capacity()
        return _add_job(self._database, ForgetAnalyzer.kind, {"analyzer": analyzer}, request_id)

    def _require_gone(self, analyzer: str) -> None:
        """Check that neither a plugin here nor a running process has an analyzer."""
        require_gone(self._plugin_manager, analyzer)
        if loaded := self._running_processes.with_analyzer(analyzer):
            raise InvalidInput({"analyzer": [*loaded, RESTART_ADVICE]})
