"""A plugin that was found, and what keeps one from being loaded."""

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
from clustr.plugins import Analyzer, Filter

log = logs.logger(__name__)

# Frames of these come before a plugin's own in a traceback, and say nothing about it.
OURS = f"{Path(__file__).parent.parent}{os.sep}"
MACHINERY = (OURS, f"{Path(pluggy.__file__).parent}{os.sep}", "<frozen importlib")


def nothing() -> Mapping[str, Any]:
    """A configuration without a value."""
    return MappingProxyType({})


class PluginState(StrEnum):
    """What became of a plugin that was found."""

    LOADED = "loaded"
    DISABLED = "disabled"
    MISCONFIGURED = "misconfigured"
    FAILED = "failed"
    CONFLICT = "conflict"


class Unloadable(Exception):
    """Why a plugin is not loaded.

    Args:
        reason: for everybody to read: without secrets and absolute paths.
        trace: where it happened in the plugin's code, for those at the shell.
    """

    def __init__(self, state: PluginState, reason: str, trace: str | None = None):
        super().__init__(reason)
        self.state = state
        self.trace = trace


@dataclass(slots=True, eq=False)
class Plugin:
    """A plugin that was found, whether or not it could be loaded.

    Attributes:
        source: `package` for one that was installed, `folder` for a drop-in.
        reason: why it is in its state, when it is not loaded.
        analyzers, filters: what it brings; nothing when it is not loaded.
        config: its configuration without what is secret.
        given: the keys of its configuration that somebody has set.
        config_hash: of `config`, 16 hexadecimal digits.
        config_schema: what can be configured, as soon as that is known.
        hooks: the names of those that it implements.
        hook: calls them; there is no other plugin behind it.
        file: where its code is, if that is known.
        trace: where in its code the loading ended, when that was an exception.
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
    config: Mapping[str, Any] = field(default_factory=nothing)
    secrets: Mapping[str, Any] = field(default_factory=Secrets, repr=False)
    given: frozenset[str] = frozenset()
    config_hash: str = ""
    config_schema: type[Schema] | None = None
    hooks: tuple[str, ...] = ()
    hook: Any = field(default=None, repr=False)
    file: Path | None = None
    trace: str | None = field(default=None, repr=False)
    load_ms: float = 0.0
    hook_errors: int = 0

    def withdraw(self, why: Unloadable) -> None:
        """Take it out: all that it brings goes, so that nobody works with a half of it."""
        self.state = why.state
        self.reason = str(why)
        self.trace = why.trace
        self.analyzers = self.filters = ()
        if why.state is not PluginState.DISABLED:
            log.error("plugin_not_loaded", plugin=self.name, reason=self.reason)


def guarded(what: str, call: Callable[[], Any]) -> Any:
    """Run what belongs to a plugin: whatever it raises, `sys.exit` included, is its failure.

    Raises:
        Unloadable: it raised something.
    """
    try:
        return call()
    except (KeyboardInterrupt, Unloadable):
        raise
    except BaseException as error:
        log.debug("plugin_raised", during=what, exc_info=authors_frames(error))
        reason = f"{what} raised {failure_messages.describe_exception(error)}"
        raise Unloadable(PluginState.FAILED, reason, trace_of(error)) from error


def authors_frames(
    error: BaseException,
) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """An exception for the log, with the frames from where the plugin's own code begins."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename.startswith(MACHINERY):
        trace = trace.tb_next
    return type(error), error, trace


def trace_of(error: BaseException) -> str:
    """The traceback of an exception, from where the plugin's own code begins."""
    _, _, trace = authors_frames(error)
    try:
        lines = traceback.format_exception(type(error), error, trace)
    except BaseException:  # It may be an exception of a plugin's own making.
        lines = [*traceback.format_tb(trace), failure_messages.describe_exception(error)]
    return without_secrets("".join(lines).rstrip())
