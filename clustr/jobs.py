"""The entrance from the queue: the one function that RQ runs."""

from clustr.limits import Interruption
from clustr.parts import build_worker
from clustr.plugin_host import PluginHost
from clustr.settings import Settings

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
    parts = build_worker(*_prepared)
    try:
        parts.analysts.run(analyzer, run, interruption)
    finally:
        parts.catalog.close()
