"""What the persistent process of an analyzer does: it runs the analyzer for each call it gets."""

from socket import socket

from clustr import logs
from clustr.analysis.limits import Interruption
from clustr.analysis.persistent_process import IncomingCalls
from clustr.components import WorkerComponents, build_worker
from clustr.domain.errors import ClustrError, StartUpError
from clustr.plugin_manager import PluginManager
from clustr.settings import Settings

log = logs.logger(__name__)

_configuration: tuple[Settings, PluginManager] | None = None


def configure(settings: Settings, plugin_manager: PluginManager) -> None:
    """Set the settings and plugins of all jobs, before the first process is forked."""
    global _configuration
    _configuration = (settings, plugin_manager)


def answer_calls(analyzer: str, connection: socket) -> int:
    """Run an analyzer once for each call, until a run leaves this process unfit for another.

    A run that MongoDB goes away under is the last. The process ends when what it held is released.

    Args:
        analyzer: its name.
        connection: brings the calls, each with the id of its run.

    Returns:
        the exit code.
    """
    interruption = Interruption()
    calls = IncomingCalls(connection, interruption)
    components = None
    for run in calls:
        components = components or _build_components()
        reusable = False
        try:
            reusable = components is not None and components.engine.run(analyzer, run, interruption)
        except ClustrError as error:  # The reconciler reclaims its analyses when their lease ends.
            log.error("call_not_finished", analyzer=analyzer, reason=str(error))
        except Exception:  # A fault of ours, or a database whose indexes are not made yet.
            log.exception("call_failed", analyzer=analyzer)
        calls.answer(last=not reusable)
        if not reusable:
            break
    if components:
        components.engine.close()
        components.engine.release_held(interruption)
        components.database.close()
    return 0


def _build_components() -> WorkerComponents | None:
    assert _configuration is not None  # The worker calls `configure` before it forks.
    try:
        return build_worker(*_configuration)
    except StartUpError as error:  # Its work stays queued, and the reconciler rings again.
        log.error("job_not_run", reason=str(error))
        return None
