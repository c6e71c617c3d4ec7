"""The entrance from the queue: what the process of an analyzer does with the calls that come."""

from socket import socket

from clustr import logs
from clustr.errors import ClustrError, StartUpError
from clustr.kept import Calls
from clustr.limits import Interruption
from clustr.parts import WorkerParts, build_worker
from clustr.plugin_host import PluginHost
from clustr.settings import Settings

log = logs.logger(__name__)

_prepared: tuple[Settings, PluginHost] | None = None


def prepare(settings: Settings, host: PluginHost) -> None:
    """Say, before any job is forked, with which settings and plugins they run."""
    global _prepared
    _prepared = (settings, host)


def answer_calls(analyzer: str, line: socket) -> int:
    """Run an analyzer again and again, in a process that is kept; the exit code.

    Args:
        line: where the calls come from, each with the id of its run.
    """
    interruption = Interruption()
    calls = Calls(line, interruption)
    parts = None
    for run in calls:
        parts = parts or _build()
        fit = False
        try:
            fit = parts is not None and parts.analysts.run(analyzer, run, interruption)
        except ClustrError as error:  # What it holds is taken back when its lease has ended.
            log.error("call_not_finished", analyzer=analyzer, reason=str(error))
        except Exception:  # A fault of ours, or a database whose indexes are not made yet.
            log.exception("call_failed", analyzer=analyzer)
        calls.answer(last=not fit)
        if not fit:
            break
    if parts:
        parts.analysts.close()
        parts.catalog.close()
    return 0


def _build() -> WorkerParts | None:
    try:
        return build_worker(*_prepared)
    except StartUpError as error:  # What waits goes on waiting, and is rung for again.
        log.error("job_not_run", reason=str(error))
        return None
