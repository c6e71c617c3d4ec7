"""Default services: what is done while nobody has said where the service of an analyzer is.

An analyzer such as that of a captioner expects its service at a default address. As long as no
other address was set and nothing has answered there, the analyzer is *not configured*: uploads are
accepted without an analysis by it. Workers look for the service now and then; once it is found, or
an address is set, what is missing is made by a back-fill.
"""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clustr import logs
from clustr.analysis.http_session import Session
from clustr.database import Database
from clustr.domain.errors import ClustrError, NotConfigured
from clustr.plugin_manager import Plugin, PluginManager, authors_frames
from clustr.plugin_manager.service_addresses import advice, has_address, is_default_address
from clustr.plugins import Analyzer, Context, HttpAnalyzer

log = logs.logger(__name__)

LOOK_EVERY_SECONDS = 5.0
SEARCH_SECONDS = 3.0


class DefaultServices:
    """Knows which analyzers are not configured.

    Attributes:
        not_configured: the names of those analyzers, as far as this process knows. To read it
            costs nothing; `look` and `watch` keep it up to date.
    """

    def __init__(self, database: Database, plugin_manager: PluginManager):
        self._database = database
        self._plugin_manager = plugin_manager
        analyzers = plugin_manager.analyzers.values()
        calling = frozenset(
            a.name for a in analyzers if has_address(plugin_manager.plugin_of(a), a)
        )
        self._unsettled = calling  # Of these MongoDB has not said yet that they are configured.
        self._unset = frozenset(
            name
            for name in calling
            if is_default_address(plugin_manager.plugin_of(plugin_manager.analyzers[name]))
        )
        self.not_configured = self._unset

    def look(self) -> None:
        """Read from MongoDB what was found, and write down whose address is set.

        Raises:
            DatabaseUnavailable: MongoDB does not answer; what was known before still counts.
        """
        for name in self._unsettled:
            if self._database.default_services.is_configured(name, name not in self._unset):
                self._unsettled -= {name}
        self.not_configured = self._unset & self._unsettled

    def watch(self) -> None:
        """Look now, and every few seconds in a thread of its own, until all are configured.

        What is configured once stays so. The thread ends with the database.
        """
        self._look_if_possible()
        if self._unsettled:
            threading.Thread(target=self._keep_looking, name="services", daemon=True).start()

    def _keep_looking(self) -> None:
        while self._unsettled and not self._database.closed.wait(LOOK_EVERY_SECONDS):
            self._look_if_possible()

    def _look_if_possible(self) -> None:
        try:
            self.look()
        except ClustrError as error:
            log.warning("default_services_not_read", reason=str(error))
        except Exception:
            if not self._database.closed.is_set():  # PyMongo says so in several ways.
                raise

    def search(self) -> None:
        """Ask at each default address whether the service is there by now.

        Analyses that were ordered before anybody knew that it is not are withdrawn.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        self.look()
        for name in self.not_configured:
            if self._is_there(self._plugin_manager.analyzers[name]):
                if self._database.default_services.configure(name):
                    log.info("default_service_found", analyzer=name)
            elif withdrawn := self._database.analyses.withdraw(name):
                self._database.circuit_breakers.close(name)
                log.info("analyses_withdrawn", analyzer=name, count=withdrawn)
        self.look()

    def _is_there(self, analyzer: Analyzer) -> bool:
        try:
            with context_of(self._plugin_manager.plugin_of(analyzer), SEARCH_SECONDS) as context:
                return isinstance(analyzer, HttpAnalyzer) and analyzer.is_there(context)
        except Exception as error:  # A plugin may have its own way to ask.
            frames = authors_frames(error)
            log.error("default_service_search_raised", analyzer=analyzer.name, exc_info=frames)
            return False

    def require(self, analyzer: Analyzer) -> None:
        """See that an analyzer can be asked for something.

        Raises:
            NotConfigured: it cannot; the error says how it could.
        """
        if analyzer.name in self.not_configured:
            self.look()
        if analyzer.name in self.not_configured:
            raise NotConfigured(f"{analyzer.name} is not configured. {self.advice(analyzer)}")

    def advice(self, analyzer: Analyzer) -> str:
        """How an analyzer that is not configured gets its service, in a sentence."""
        return advice(self._plugin_manager.plugin_of(analyzer), analyzer)


@contextmanager
def context_of(plugin: Plugin, seconds: float) -> Iterator[Context]:
    """What an analyzer of a plugin may use to ask its service how it is, within so many seconds."""
    with tempfile.TemporaryDirectory(prefix="clustr-") as folder, Session() as http:
        yield Context(
            config=plugin.config,
            secrets=plugin.secrets,
            log=logs.logger(f"clustr.plugin.{plugin.name}"),
            http=http,
            deadline=time.monotonic() + seconds,
            tmpdir=Path(folder),
        )
