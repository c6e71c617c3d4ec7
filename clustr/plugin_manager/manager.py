"""The plugins of a process: what they bring, and how they are told what happens."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from clustr import logs
from clustr.domain import failure_messages
from clustr.plugin_manager.analyzer_order import in_order
from clustr.plugin_manager.configuration_keys import keys_of_configuration
from clustr.plugin_manager.plugin import Plugin, PluginState, Unloadable, authors_frames, guarded
from clustr.plugin_manager.registration import HOOKS, blueprints_of
from clustr.plugins import Analyzer, Filter, Library

if TYPE_CHECKING:  # Workers do without Flask.
    from flask_smorest import Blueprint

log = logs.logger(__name__)

SLOW_SECONDS = 1.0


def announce_to_nobody(_name: str) -> None:
    """Whom it is announced to which plugin comes next, where nobody watches."""


class PluginManager:
    """All plugins of this process, and what those that are loaded bring.

    Attributes:
        plugins: all that were found, in the order in which they were loaded.
        analyzers: by their names, each after those that it requires.
        filters: by the names of analyzer and field.
        warnings: what is configured but belongs to nothing that there is, in sentences.
    """

    def __init__(
        self,
        plugins: Iterable[Plugin],
        warnings: Iterable[str] = (),
        announce: Callable[[str], None] = announce_to_nobody,
    ):
        self.plugins = tuple(plugins)
        self.warnings = tuple(warnings)
        self.analyzers: dict[str, Analyzer] = {}
        self.filters: dict[tuple[str, str], Filter] = {}
        self._plugin_of: dict[str, Plugin] = {}
        self._listening: dict[str, list[Plugin]] = {}
        self._announce = announce
        self._counting = Lock()
        self._settle()

    def _settle(self) -> None:
        """Bring together what those bring that are loaded; others may hold these mappings."""
        analyzers = in_order(self.plugins)
        self.analyzers.clear()
        self.analyzers.update(analyzers)
        self.filters.clear()
        for plugin in self.plugins:
            self.filters.update({(one.analyzer, one.field): one for one in plugin.filters})
        self._plugin_of = {a.name: plugin for plugin in self.plugins for a in plugin.analyzers}
        loaded = [plugin for plugin in self.plugins if plugin.state is PluginState.LOADED]
        self._listening = {hook: [p for p in loaded if hook in p.hooks] for hook in HOOKS}

    def variables(self) -> set[str]:
        """The environment variables that the plugins that are loaded take configuration from."""
        return {
            variable
            for plugin in self.plugins
            if plugin.state is PluginState.LOADED and plugin.config_schema
            for key in keys_of_configuration(plugin.name, plugin.config_schema)
            for variable in key.variables
        }

    def plugin_of(self, analyzer: Analyzer) -> Plugin:
        """The plugin that brings this analyzer."""
        return self._plugin_of[analyzer.name]

    def blueprints(
        self,
        library: Callable[[Plugin], Library],
        problem_with: "Callable[[Plugin, list[Blueprint]], str | None]",
    ) -> "list[tuple[Plugin, Blueprint]]":
        """Ask plugins for their routes; call it once, before anything else uses what they bring.

        A plugin whose hook raises, or returns anything else, is withdrawn with all that it brings.

        Args:
            library: makes the uploads for the routes of a plugin.
            problem_with: says why the routes of a plugin cannot be used, if they cannot.
        """
        found = []
        for plugin in self._listening["clustr_register_blueprints"]:
            self._announce(plugin.name)
            try:
                brought = blueprints_of(plugin, library(plugin))
                problem = guarded("mounting its routes", partial(problem_with, plugin, brought))
                if problem:
                    raise Unloadable(PluginState.FAILED, problem)
                found += [(plugin, one) for one in brought]
            except Unloadable as why:
                plugin.withdraw(why)
        self._settle()
        return [(plugin, one) for plugin, one in found if plugin.state is PluginState.LOADED]

    def implements(self, hook: str) -> bool:
        """Whether a loaded plugin implements a hook: whether it is worth to prepare a notice."""
        return bool(self._listening[hook])

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call an event hook of each plugin that implements it; it never raises.

        What one raises is logged and counted, and touches no other.
        """
        for plugin in self._listening[hook]:
            about = {"plugin": plugin.name, "hook": hook}
            began = time.perf_counter()
            try:
                getattr(plugin.hook, hook)(**arguments)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                with self._counting:
                    plugin.hook_errors += 1
                frames = authors_frames(error)
                log.error(
                    "hook_raised",
                    **about,
                    reason=failure_messages.describe_exception(error),
                    exc_info=frames,
                )
            seconds = time.perf_counter() - began
            if seconds > SLOW_SECONDS:
                log.warning("hook_slow", **about, duration_ms=round(seconds * 1000))
