"""The `Plugin` class, and running code of plugins so that its failures are contained."""

import concurrent.futures
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import pluggy
from marshmallow import Schema

from clustr import logs
from clustr.domain import failure_messages
from clustr.domain.secrets import Secrets, without_secrets
from clustr.plugin_manager.load_limit import TookTooLong
from clustr.plugins import Analyzer, Filter

log = logs.logger(__name__)

# A traceback begins with frames of files in these folders, before those of the plugin.
OWN_FOLDER = f"{Path(__file__).parent.parent}{os.sep}"
FRAMEWORK_FOLDERS = (OWN_FOLDER, f"{Path(pluggy.__file__).parent}{os.sep}", "<frozen importlib")
# Through these libraries Clustr calls code of plugins, too, and plugins that of Clustr.
LIBRARIES = ("click", "flask", "flask_smorest", "marshmallow", "requests", "werkzeug")
LIBRARY_FOLDERS = (
    *(f"{Path(pluggy.__file__).parent.parent / name}{os.sep}" for name in LIBRARIES),
    f"{Path(concurrent.futures.__file__).parent}{os.sep}",
)

# Of a traceback that is kept: a heading, two lines for each of so many frames, and the exception.
MAX_FRAMES = 4


def empty_configuration() -> Mapping[str, Any]:
    """An empty configuration, which cannot be changed."""
    return MappingProxyType({})


class PluginState(StrEnum):
    """The state of a plugin that was found."""

    LOADED = "loaded"
    DISABLED = "disabled"
    MISCONFIGURED = "misconfigured"
    FAILED = "failed"
    CONFLICT = "conflict"


class Unloadable(Exception):
    """Why a plugin is not loaded.

    Args:
        reason: a sentence without secrets and absolute paths, for all readers.
        trace: the traceback in the plugin's code, for the command line.
        place: the line in the plugin's code, for the log.
    """

    def __init__(
        self,
        state: PluginState,
        reason: str,
        trace: str | None = None,
        place: str | None = None,
    ):
        super().__init__(reason)
        self.state = state
        self.trace = trace
        self.place = place


@dataclass(slots=True, eq=False)
class Plugin:
    """A plugin that was found, whether or not it could be loaded.

    Attributes:
        source: `package` for one that was installed, `folder` for a drop-in.
        reason: why it is in its state, when it is not loaded.
        analyzers, filters: what it provides; empty when it is not loaded.
        config: its configuration without its secrets.
        configured_keys: the keys of its configuration that are set; the others have defaults.
        config_hash: of `config`, 16 hexadecimal digits.
        config_schema: the schema of its configuration, as soon as that is known.
        hooks: the names of the hooks that it implements.
        hook: pluggy's hook relay for this plugin alone.
        file: the file of its code, if known.
        trace: the traceback in its code, if an exception ended the loading.
        code: a hash of its code as it was when it was loaded.
        load_ms: how long loading it took, in milliseconds.
        hook_errors: how many calls of its event hooks raised in this process.
    """

    name: str
    version: str | None
    source: str
    state: PluginState = PluginState.LOADED
    reason: str | None = None
    analyzers: tuple[Analyzer, ...] = ()
    filters: tuple[Filter, ...] = ()
    config: Mapping[str, Any] = field(default_factory=empty_configuration)
    secrets: Mapping[str, Any] = field(default_factory=Secrets, repr=False)
    configured_keys: frozenset[str] = frozenset()
    config_hash: str = ""
    config_schema: type[Schema] | None = None
    hooks: tuple[str, ...] = ()
    hook: Any = field(default=None, repr=False)
    file: Path | None = None
    trace: str | None = field(default=None, repr=False)
    code: str = ""
    load_ms: float = 0.0
    hook_errors: int = 0

    def withdraw(self, why: Unloadable) -> None:
        """Mark it as not loaded and drop all that it provides, so that no part of it is used."""
        self.state = why.state
        self.reason = str(why)
        self.trace = why.trace
        self.analyzers = self.filters = ()
        if why.state is not PluginState.DISABLED:
            place = {"place": why.place} if why.place else {}
            log.error("plugin_not_loaded", plugin=self.name, reason=self.reason, **place)


def call_guarded(what: str, call: Callable[[], Any]) -> Any:
    """Call code of a plugin, and turn any exception, `SystemExit` included, into `Unloadable`.

    Args:
        what: names the call in the reason.

    Raises:
        Unloadable: the call raised something.
    """
    try:
        return call()
    except (KeyboardInterrupt, Unloadable):
        raise
    except BaseException as error:
        log.debug("plugin_raised", during=what, exc_info=plugin_exc_info(error))
        if isinstance(error, TookTooLong):
            reason = f"{what} {error}"
        else:
            reason = f"{what} raised {failure_messages.describe_exception(error)}"
        trace, place = plugin_traceback(error), plugin_line(error)
        raise Unloadable(PluginState.FAILED, reason, trace, place) from error


def plugin_exc_info(
    error: BaseException,
) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """The `exc_info` of an exception for the log, with frames from the plugin's code on."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename.startswith(FRAMEWORK_FOLDERS):
        trace = trace.tb_next
    return type(error), error, trace


def describe_plugin_exception(error: BaseException) -> str:
    """The class and the message of an exception, and where in the plugin's code it was.

    Such as `KeyError: 'boxes' (sharpness.py, line 41, in analyze)`.
    """
    described, place = failure_messages.describe_exception(error), plugin_line(error)
    return f"{described} ({place})" if place else described


def plugin_line(error: BaseException) -> str | None:
    """Where in the plugin's code an exception was, such as `sharpness.py, line 41, in analyze`.

    It is the innermost line of the plugin's files: an error may come from a library that the
    plugin called. Of a comprehension or a lambda the function around it is named.
    """
    frames = _plugin_frames(error)
    if not frames:
        return None
    last = frames[-1]
    names = [frame.name for frame in frames if frame.filename == last.filename]
    while names and names[-1].startswith("<") and names[-1] != "<module>":
        names.pop()
    function = f", in {names[-1]}" if names and names[-1] != "<module>" else ""
    path = Path(last.filename)
    name = f"{path.parent.name}/{path.name}" if path.name == "__init__.py" else path.name
    return f"{name}, line {last.lineno}{function}"


def author_traceback(error: BaseException) -> str | None:
    """The traceback of an exception with the frames of the plugin's own files, and its description.

    Returns:
        at most ten lines without secrets; None when it was not raised below code of
        the plugin.
    """
    frames = _plugin_frames(error)
    if not frames:
        return None
    lines = [line for frame in frames[-MAX_FRAMES:] for line in _frame_lines(frame)]
    described = failure_messages.describe_exception(error).splitlines() or [""]
    return without_secrets("\n".join(["Traceback (most recent call last):", *lines, described[0]]))


def _frame_lines(frame: traceback.FrameSummary) -> list[str]:
    place = f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}'
    return [place, f"    {frame.line}"] if frame.line else [place]


def _plugin_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of an exception in the plugin's own files, the innermost last.

    Its files are those beside the first one that is not of a framework, if that is a package.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*FRAMEWORK_FOLDERS, *LIBRARY_FOLDERS))
    ]
    if not frames:
        return []
    file = Path(frames[0].filename)
    is_package = (file.parent / "__init__.py").exists()
    own = f"{file.parent}{os.sep}" if is_package else frames[0].filename
    return [frame for frame in frames if frame.filename.startswith(own)]


def plugin_traceback(error: BaseException) -> str:
    """The traceback of an exception as text, with frames from the plugin's code on."""
    _, _, trace = plugin_exc_info(error)
    try:
        lines = traceback.format_exception(type(error), error, trace)
    except BaseException:  # The exception of a plugin may raise when it is formatted.
        lines = [*traceback.format_tb(trace), failure_messages.describe_exception(error)]
    return without_secrets("".join(lines).rstrip())
