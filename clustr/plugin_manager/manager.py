"""The plugins of a process: what they provide, and calls of their event hooks."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from clustr import logs
from clustr.plugin_manager.analyzer_order import sort_analyzers
from clustr.plugin_manager.configuration_keys import configuration_keys_of
from clustr.plugin_manager.empty_library import EmptyLibrary
from clustr.plugin_manager.load_limit import LoadLimit
from clustr.plugin_manager.plugin import (
    Plugin,
    PluginState,
    Unloadable,
    call_guarded,
    describe_plugin_exception,
    plugin_exc_info,
)
from clustr.plugin_manager.registration import HOOKS, blueprints_of
from clustr.plugin_manager.service_addresses import has_address, is_default_address
from clustr.plugin_manager.upload_fields import share_fields
from clustr.plugins import Analyzer, Filter, Library

if TYPE_CHECKING:  # Workers do without Flask.
    from flask_smorest import Blueprint

log = logs.logger(__name__)

SLOW_SECONDS = 1.0


def announce_nothing(_name: str) -> None:
    """Do nothing: the default for `announce`."""


class PluginManager:
    """All plugins of this process, and what the loaded ones provide.

    Attributes:
        plugins: all plugins that were found, in the order in which they were loaded.
        analyzers: by their names, each after those that it requires.
        filters: those of all plugins.
        library_of: makes the library that event hooks and commands of a plugin are given.
        warnings: sentences about configuration that belongs to nothing that exists.
    """

    def __init__(
        self,
        plugins: Iterable[Plugin],
        warnings: Iterable[str] = (),
        announce: Callable[[str], None] = announce_nothing,
        field_choices: Mapping[str, str] | None = None,
        limit: LoadLimit | None = None,
    ):
        self.plugins = tuple(plugins)
        self._declared_fields = {a.name: a.fields for p in self.plugins for a in p.analyzers}
        self._field_choices = field_choices or {}
        self.warnings = tuple(warnings)
        self.analyzers: dict[str, Analyzer] = {}
        self.filters: list[Filter] = []
        self._plugin_of: dict[str, Plugin] = {}
        self._plugins_by_hook: dict[str, list[Plugin]] = {}
        self._announce = announce
        self.library_of: Callable[[Plugin], Library] = EmptyLibrary
        self._limit = limit or LoadLimit()
        self._count_lock = Lock()
        self._collect()

    def _collect(self) -> None:
        """Collect what the loaded plugins provide, in place: other objects hold these mappings."""
        analyzers = sort_analyzers(self.plugins)
        self.analyzers.clear()
        self.analyzers.update(analyzers)
        share_fields(self.plugins, self._declared_fields, self._field_choices)
        self.filters.clear()
        for plugin in self.plugins:
            self.filters.extend(plugin.filters)
        self._plugin_of = {a.name: plugin for plugin in self.plugins for a in plugin.analyzers}
        loaded = [plugin for plugin in self.plugins if plugin.state is PluginState.LOADED]
        self._plugins_by_hook = {hook: [p for p in loaded if hook in p.hooks] for hook in HOOKS}

    def variables(self) -> set[str]:
        """The environment variables that configure the loaded plugins."""
        return {
            variable
            for plugin in self.plugins
            if plugin.state is PluginState.LOADED and plugin.config_schema
            for key in configuration_keys_of(plugin.name, plugin.config_schema)
            for variable in key.variables
        }

    def plugin_of(self, analyzer: Analyzer) -> Plugin:
        """The plugin that provides this analyzer."""
        return self._plugin_of[analyzer.name]

    def blueprints(
        self,
        library: Callable[[Plugin], Library],
        problem_with: "Callable[[Plugin, list[Blueprint]], str | None]",
    ) -> "list[tuple[Plugin, Blueprint]]":
        """The blueprints of plugins, to be called once, before anything else uses their analyzers.

        A plugin whose hook raises, or returns anything else, is withdrawn with all it provides.

        Args:
            library: makes the `Library` for the routes of a plugin.
            problem_with: returns why the routes of a plugin cannot be used; None if they can.
        """
        found = []
        for plugin in self._plugins_by_hook["clustr_register_blueprints"]:
            self._announce(plugin.name)
            load = partial(self._blueprints_in_time, plugin, library, problem_with)
            try:
                found += call_guarded("making its routes", load)
            except Unloadable as why:
                plugin.withdraw(why)
        self._collect()
        return [
            (plugin, blueprint) for plugin, blueprint in found if plugin.state is PluginState.LOADED
        ]

    def _blueprints_in_time(
        self,
        plugin: Plugin,
        library: Callable[[Plugin], Library],
        problem_with: "Callable[[Plugin, list[Blueprint]], str | None]",
    ) -> "list[tuple[Plugin, Blueprint]]":
        with self._limit.watch(plugin.name, plugin.file):
            blueprints = blueprints_of(plugin, library(plugin))
            problem = call_guarded("mounting its routes", partial(problem_with, plugin, blueprints))
        if problem:
            raise Unloadable(PluginState.FAILED, problem)
        return [(plugin, blueprint) for blueprint in blueprints]

    def contested_fields(self) -> dict[str, tuple[str, ...]]:
        """The analyzers that would fill the same field of uploads; the one that does is first.

        Fields are left out for which the operator has chosen one, and analyzers whose service
        nobody has set.
        """
        fillers: dict[str, list[str]] = {}
        for name, analyzer in self.analyzers.items():
            plugin = self._plugin_of[name]
            if has_address(plugin, analyzer) and is_default_address(plugin):
                continue
            for field in self._declared_fields[name]:
                place = 0 if field in analyzer.fields else len(fillers.get(field, ()))
                fillers.setdefault(field, []).insert(place, name)
        return {
            field: tuple(names)
            for field, names in fillers.items()
            if len(names) > 1 and self._field_choices.get(field) not in names
        }

    def not_loaded(self) -> list[Plugin]:
        """The plugins that somebody wants and that are not loaded, each with a `reason`."""
        fine = (PluginState.LOADED, PluginState.DISABLED)
        return [plugin for plugin in self.plugins if plugin.state not in fine]

    def explain_missing(self, name: str) -> str:
        """Say which plugin is not loaded that may bring what has this name; empty if all are.

        What a plugin would have brought is not known, but its analyzer often has its name.
        """
        for plugin in self.plugins:
            if plugin.name == name and plugin.state is not PluginState.LOADED:
                return f" The plugin {name} is not loaded: {plugin.reason}."
        reasons = "; ".join(f"{plugin.name} ({plugin.reason})" for plugin in self.not_loaded())
        return f" Not loaded are the plugins {reasons}." if reasons else ""

    def implements(self, hook: str) -> bool:
        """Whether any loaded plugin implements a hook."""
        return bool(self._plugins_by_hook[hook])

    def implementing(self, hook: str) -> Sequence[Plugin]:
        """The loaded plugins that implement a hook."""
        return self._plugins_by_hook[hook]

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call an event hook of each plugin that implements it; this never raises."""
        for plugin in self.implementing(hook):
            self.call_hook(plugin, hook, **arguments)

    def call_hook(self, plugin: Plugin, hook: str, **arguments: Any) -> None:
        """Call an event hook of a plugin; its exceptions are logged and counted, and not raised."""
        about = {"plugin": plugin.name, "hook": hook}
        began = time.perf_counter()
        try:
            getattr(plugin.hook, hook)(library=self.library_of(plugin), **arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            with self._count_lock:
                plugin.hook_errors += 1
            log.error(
                "hook_raised",
                **about,
                reason=describe_plugin_exception(error),
                exc_info=plugin_exc_info(error),
            )
        seconds = time.perf_counter() - began
        if seconds > SLOW_SECONDS:
            log.warning("hook_slow", **about, duration_ms=round(seconds * 1000))
