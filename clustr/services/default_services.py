"""Default services: analyzers whose service has no configured address.

An analyzer such as that of a captioner expects its service at a default address. As long as no
other address is set and no service has answered there, the analyzer is *not configured*: uploads
are accepted without an analysis by it. Workers look for the service now and then. Once it answers,
or an address is set, a back-fill makes the missing analyses.
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
from clustr.plugin_manager import Plugin, PluginManager, plugin_exc_info
from clustr.plugin_manager.service_addresses import advice, has_address, is_default_address
from clustr.plugins import Analyzer, Context, HttpAnalyzer

log = logs.logger(__name__)

REFRESH_EVERY_SECONDS = 5.0
SEARCH_SECONDS = 3.0


class DefaultServices:
    """Knows which analyzers are not configured.

    Attributes:
        not_configured: the names of those analyzers, as far as this process knows. It is in
            memory; `refresh` and `watch` keep it up to date.
    """

    def __init__(self, database: Database, plugin_manager: PluginManager):
        self._database = database
        self._plugin_manager = plugin_manager
        analyzers = plugin_manager.analyzers.values()
        with_service = frozenset(
            a.name for a in analyzers if has_address(plugin_manager.plugin_of(a), a)
        )
        # The analyzers that MongoDB does not have as configured yet.
        self._unconfirmed = with_service
        self._at_default_address = frozenset(
            name
            for name in with_service
            if is_default_address(plugin_manager.plugin_of(plugin_manager.analyzers[name]))
        )
        self.not_configured = self._at_default_address

    def refresh(self) -> None:
        """Read from MongoDB which services were found, and store which addresses are set.

        Raises:
            DatabaseUnavailable: MongoDB does not answer; `not_configured` stays as it was.
        """
        for name in self._unconfirmed:
            if self._database.default_services.is_configured(
                name, name not in self._at_default_address
            ):
                self._unconfirmed -= {name}
        self.not_configured = self._at_default_address & self._unconfirmed

    def watch(self) -> None:
        """Refresh now, and then every few seconds in a thread until all are configured.

        An analyzer that is configured once stays so. The thread ends when the database is closed.
        """
        self._try_refresh()
        if self._unconfirmed:
            threading.Thread(
                target=self._refresh_until_confirmed, name="services", daemon=True
            ).start()

    def _refresh_until_confirmed(self) -> None:
        while self._unconfirmed and not self._database.closed.wait(REFRESH_EVERY_SECONDS):
            self._try_refresh()

    def _try_refresh(self) -> None:
        try:
            self.refresh()
        except ClustrError as error:
            log.warning("default_services_not_read", reason=str(error))
        except Exception:
            if not self._database.closed.is_set():  # PyMongo says so in several ways.
                raise

    def search(self) -> None:
        """Ask at each default address whether the service answers by now.

        Where it does not, analyses that are queued for the analyzer are withdrawn.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        self.refresh()
        for name in self.not_configured:
            if self._service_answers(self._plugin_manager.analyzers[name]):
                if self._database.default_services.mark_configured(name):
                    log.info("default_service_found", analyzer=name)
            elif withdrawn := self._database.analyses.withdraw(name):
                self._database.circuit_breakers.close(name)
                log.info("analyses_withdrawn", analyzer=name, count=withdrawn)
        self.refresh()

    def _service_answers(self, analyzer: Analyzer) -> bool:
        try:
            with context_of(self._plugin_manager.plugin_of(analyzer), SEARCH_SECONDS) as context:
                return isinstance(analyzer, HttpAnalyzer) and analyzer.is_there(context)
        except Exception as error:  # A plugin may have its own way to ask.
            frames = plugin_exc_info(error)
            log.error("default_service_search_raised", analyzer=analyzer.name, exc_info=frames)
            return False

    def require(self, analyzer: Analyzer) -> None:
        """Check that an analyzer is configured.

        Raises:
            NotConfigured: it is not; the error says how to configure it.
        """
        if analyzer.name in self.not_configured:
            self.refresh()
        if analyzer.name in self.not_configured:
            raise NotConfigured(f"{analyzer.name} is not configured. {self.advice(analyzer)}")

    def advice(self, analyzer: Analyzer) -> str:
        """How an analyzer that is not configured gets its service, in a sentence."""
        manager = self._plugin_manager
        return advice(manager.plugin_of(analyzer), analyzer, manager.plugins)


@contextmanager
def context_of(plugin: Plugin, seconds: float) -> Iterator[Context]:
    """The context with which an analyzer asks its service for its health.

    Args:
        seconds: how long that may take.
    """
    with tempfile.TemporaryDirectory(prefix="clustr-") as folder, Session() as http:
        yield Context(
            config=plugin.config,
            secrets=plugin.secrets,
            log=logs.logger(f"clustr.plugin.{plugin.name}"),
            http=http,
            deadline=time.monotonic() + seconds,
            tmpdir=Path(folder),
        )
