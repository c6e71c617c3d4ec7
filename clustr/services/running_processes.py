"""What each running process has loaded, so that a change of a plugin without a restart is noticed.

Every web process and every `clustr worker` keeps a record in Redis for as long as it lives. Whoever
asks compares the records with the files that are there.
"""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from clustr import logs
from clustr.database import Database
from clustr.domain.errors import ClustrError
from clustr.plugin_manager import Plugin, PluginManager
from clustr.queue import Queue
from clustr.supervisor.forking import start_time

log = logs.logger(__name__)

RENEW_SECONDS = 20.0
SECONDS_TO_LIVE = 60

RESTART_ADVICE = (
    "Restart it: end `clustr up` and start it again, or reload the units (`systemctl reload "
    "clustr-web clustr-worker`)."
)


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin as a process has loaded it.

    Attributes:
        version: that of its package.
        code: the hash of its code (`clustr.plugin_manager.code_hash`).
        analyzers: the versions of its analyzers by their names; none if it is not loaded.
    """

    version: str | None
    code: str
    analyzers: Mapping[str, int]

    def __str__(self) -> str:
        versions = [f"{name} v{version}" for name, version in sorted(self.analyzers.items())]
        return ", ".join(versions) or self.version or "without an analyzer"


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process and what it has loaded.

    Attributes:
        kind: `web` or `worker`.
        started_at: when it started, in ticks since the host did; tells it from a later process
            that has the same id.
    """

    kind: str
    host: str
    pid: int
    started_at: str
    plugins: Mapping[str, LoadedPlugin]

    def __str__(self) -> str:
        return f"{self.kind} {self.pid}"

    def differences(self, files: Mapping[str, LoadedPlugin]) -> Iterator[str]:
        """Yield a sentence for each plugin of which it runs something else than its files have."""
        for name in sorted({*files, *self.plugins}):
            running, found = self.plugins.get(name), files.get(name)
            if running is None:
                yield f"{self} on {self.host} does not have the plugin {name}, which is new."
            elif found is None:
                yield f"{self} on {self.host} has the plugin {name}, which is not there any more."
            elif running.code != found.code:
                yield (
                    f"{self} on {self.host} runs other code of the plugin {name} ({running}) than "
                    f"its files have ({found})."
                )


def loaded_plugin(plugin: Plugin) -> LoadedPlugin:
    """The record of a plugin of this process."""
    versions = {analyzer.name: analyzer.version for analyzer in plugin.analyzers}
    return LoadedPlugin(plugin.version, plugin.code, versions)


class RunningProcesses:
    """The records of all processes of an installation, in Redis.

    Args:
        plugin_manager: what this process has loaded.
    """

    def __init__(self, queue: Queue, plugin_manager: PluginManager):
        self._queue = queue
        self._plugin_manager = plugin_manager

    def announce(self, kind: str, pid: int, database: Database) -> None:
        """Keep the record of a process, in a thread, until the database is closed.

        Args:
            kind: `web` or `worker`.
            pid: its id: this process, or the one that has loaded the plugins for it.
        """
        host, started_at = socket.gethostname(), start_time(pid)
        process = RunningProcess(kind, host, pid, started_at or "", self.loaded())
        arguments = (f"{kind}:{host}:{pid}", json.dumps(asdict(process)), database)
        threading.Thread(target=self._renew, args=arguments, name="process", daemon=True).start()

    def _renew(self, name: str, record: str, database: Database) -> None:
        while not database.closed.is_set():
            try:
                self._queue.claim(database.installation)
                self._queue.keep_process(name, record, SECONDS_TO_LIVE)
            except ClustrError as error:
                log.debug("process_not_announced", reason=str(error))
            except Exception:
                if not database.closed.is_set():  # PyMongo says so in several ways.
                    raise
            database.closed.wait(RENEW_SECONDS)

    def loaded(self) -> dict[str, LoadedPlugin]:
        """What this process has loaded, by the names of the plugins."""
        return {plugin.name: loaded_plugin(plugin) for plugin in self._plugin_manager.plugins}

    def running(self) -> list[RunningProcess]:
        """All processes that run.

        One of another host that has ended counts until `SECONDS_TO_LIVE` have passed.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        return read_processes(self._queue)

    def with_analyzer(self, analyzer: str) -> list[str]:
        """Say which processes have loaded a plugin with an analyzer: a sentence for each.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        return [
            f"{process} on {process.host} still has the plugin {name}, which brings {analyzer}."
            for process in self.running()
            for name, plugin in process.plugins.items()
            if analyzer in plugin.analyzers
        ]

    def outdated_workers(self, analyzer: str) -> list[str]:
        """Say which workers run another version of an analyzer than this process.

        Returns:
            a sentence for each; none where this process does not have the analyzer either.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        found = self._plugin_manager.analyzers.get(analyzer)
        if found is None:
            return []
        loaded, name = self.loaded(), self._plugin_manager.plugin_of(found).name
        return [
            sentence
            for process in self.running()
            if process.kind == "worker" and name in process.plugins
            if process.plugins[name].analyzers.get(analyzer) != found.version
            for sentence in process.differences({**process.plugins, name: loaded[name]})
        ]


def read_processes(queue: Queue) -> list[RunningProcess]:
    """All processes that run (`RunningProcesses.running`).

    Raises:
        QueueUnavailable: Redis does not answer.
    """
    found = []
    for record in queue.processes():
        with suppress(ValueError, TypeError, KeyError):  # That of another release.
            fields = json.loads(record)
            plugins = {name: LoadedPlugin(**plugin) for name, plugin in fields["plugins"].items()}
            found.append(RunningProcess(**{**fields, "plugins": plugins}))
    return sorted((p for p in found if _may_run(p)), key=lambda p: (p.kind, p.host, p.pid))


def _may_run(process: RunningProcess) -> bool:
    return process.host != socket.gethostname() or start_time(process.pid) == process.started_at
