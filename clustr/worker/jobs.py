"""The entrance from the queue: what the process of an analyzer does with the calls that come."""

from socket import socket

from clustr import logs
from clustr.analysis.limits import Interruption
from clustr.analysis.persistent_process import IncomingCalls
from clustr.components import WorkerComponents, build_worker
from clustr.domain.errors import ClustrError, StartUpError
from clustr.plugin_manager import PluginManager
from clustr.settings import Settings

log = logs.logger(__name__)

_prepared: tuple[Settings, PluginManager] | None = None


def prepare(settings: Settings, plugin_manager: PluginManager) -> None:
    """Say, before any job is forked, with which settings and plugins they run."""
    global _prepared
    _prepared = (settings, plugin_manager)


def answer_calls(analyzer: str, line: socket) -> int:
    """Run an analyzer again and again, in a process that is kept; the exit code.

    Args:
        line: where the calls come from, each with the id of its run.
    """
    interruption = Interruption()
    calls = IncomingCalls(line, interruption)
    components = None
    for run in calls:
        components = components or _build()
        fit = False
        try:
            fit = components is not None and components.engine.run(analyzer, run, interruption)
        except ClustrError as error:  # What it holds is taken back when its lease has ended.
            log.error("call_not_finished", analyzer=analyzer, reason=str(error))
        except Exception:  # A fault of ours, or a database whose indexes are not made yet.
            log.exception("call_failed", analyzer=analyzer)
        calls.answer(last=not fit)
        if not fit:
            break
    if components:
        components.engine.close()
        components.database.close()
    return 0


def _build() -> WorkerComponents | None:
    try:
        return build_worker(*_prepared)
    except StartUpError as error:  # What waits goes on waiting, and is rung for again.
        log.error("job_not_run", reason=str(error))
        return None
