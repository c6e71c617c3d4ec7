"""The entrance from the queue: the one function that RQ runs."""

from clustr import logs
from clustr.errors import StartUpError
from clustr.limits import Interruption
from clustr.parts import build_worker
from clustr.plugin_host import PluginHost
from clustr.settings import Settings

log = logs.logger(__name__)

_prepared: tuple[Settings, PluginHost] | None = None


def prepare(settings: Settings, host: PluginHost) -> None:
    """Say, before any job is forked, with which settings and plugins they run."""
    global _prepared
    _prepared = (settings, host)


def run_analyzer(analyzer: str, run: str) -> None:
    """Run an analyzer on what waits for it.

    Args:
        analyzer: its name.
        run: the id under which this run holds what it works on.
    """
    interruption = Interruption()
    try:
        parts = build_worker(*_prepared)
    except StartUpError as error:  # What waits goes on waiting, and is rung for again.
        log.error("job_not_run", analyzer=analyzer, reason=str(error))
        return
    try:
        parts.analysts.run(analyzer, run, interruption)
    finally:
        parts.catalog.close()
