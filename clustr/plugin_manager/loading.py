"""Loading plugins, one after the other, so that a failure affects only one of them."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clustr import logs
from clustr.domain import failure_messages
from clustr.domain.errors import StartUpError
from clustr.plugin_manager.configuration import (
    RESERVED,
    Configuration,
    misconfigured_error,
    read_tables,
)
from clustr.plugin_manager.declarations import NAME, problem_with_analyzer, problem_with_filters
from clustr.plugin_manager.discovery import Candidate, code_hash, find_candidates
from clustr.plugin_manager.load_limit import LoadLimit
from clustr.plugin_manager.manager import SLOW_SECONDS, PluginManager, announce_nothing
from clustr.plugin_manager.plugin import Plugin, PluginState, Unloadable, call_guarded
from clustr.plugin_manager.registration import call_registration_hook, register_hooks
from clustr.plugin_manager.service_addresses import address_setting
from clustr.plugins import HttpAnalyzer

log = logs.logger(__name__)


def load_plugins(
    folder: Path,
    enabled: tuple[str, ...] | None,
    disabled: tuple[str, ...],
    config_file: Path,
    environment: Mapping[str, str],
    lost: Mapping[str, str] | None = None,
    announce: Callable[[str], None] = announce_nothing,
    limit: LoadLimit | None = None,
) -> PluginManager:
    """Find and load every plugin.

    Args:
        folder: the folder of drop-ins.
        enabled: the names of the only plugins to load; None for all.
        disabled: the names of plugins that are not to be loaded.
        config_file: the TOML file with a table for each plugin; it need not exist.
        environment: environment variables, which take precedence over the file.
        lost: the names of plugins that must not be imported, with the reason.
        announce: called with the name of each plugin before any of its code runs.
        limit: how long each plugin may take; None for any time.

    Raises:
        StartUpError: the TOML file cannot be read, so that its plugins are unknown.
    """
    configuration = Configuration(read_tables(config_file), environment)
    limit = limit or LoadLimit()
    loader = Loader(configuration, enabled, disabled, lost or {}, limit)
    for candidate in find_candidates(folder):
        announce(candidate.name)
        loader.add(candidate)
    warnings = list(loader.ignored())
    for warning in warnings:
        log.warning("configuration_ignored", reason=warning)
    return PluginManager(loader.plugins, warnings, announce, configuration.field_choices(), limit)


def require_importable(
    candidate: Candidate,
    earlier: Collection[str],
    enabled: tuple[str, ...] | None,
    disabled: tuple[str, ...],
) -> None:
    """Check that a plugin may be imported.

    Args:
        earlier: the names of the plugins that were found before it.
        enabled, disabled: as in `load_plugins`.

    Raises:
        Unloadable: it may not, whatever its code is.
    """
    name = candidate.name
    if name in disabled or (enabled is not None and name not in enabled):
        raise Unloadable(PluginState.DISABLED, "switched off by the settings")
    if name in earlier:
        raise Unloadable(PluginState.CONFLICT, "another plugin has the same name")
    if not NAME.fullmatch(name):
        reason = f"a plugin's name must match {NAME.pattern}; rename it"
        raise Unloadable(PluginState.FAILED, reason)
    if name in RESERVED:
        reason = f"no plugin can have the name {name}, which is kept for Clustr; rename it"
        raise Unloadable(PluginState.FAILED, reason)
    if problem := call_guarded("looking at its files", candidate.problem_with_owner):
        raise Unloadable(PluginState.FAILED, problem)


def check_enabled(folder: Path, enabled: tuple[str, ...] | None) -> None:
    """Check that at least one of the enabled plugins exists, without importing any.

    Args:
        folder: the folder of drop-ins.
        enabled: the names of the only plugins to load; None for all, and empty for none.

    Raises:
        StartUpError: none exists; the service would do nothing with uploads.
    """
    if not enabled:
        return
    names = {candidate.name for candidate in find_candidates(folder)}
    if not names.intersection(enabled):
        message = "; ".join(
            failure_messages.unknown_name("plugin", name, names) for name in enabled
        )
        raise StartUpError(f"PLUGINS_ENABLED={','.join(enabled)!r}: {message}")


def ignored_names(
    enabled: tuple[str, ...] | None, disabled: tuple[str, ...], plugins: Collection[str]
) -> Iterator[str]:
    """One sentence for each name in the settings that no plugin has."""
    for setting, names in (("PLUGINS_ENABLED", enabled or ()), ("PLUGINS_DISABLED", disabled)):
        for name in names:
            if name not in plugins:
                yield f"{setting}: {failure_messages.unknown_name('plugin', name, plugins)}"


@dataclass
class Loader:
    """Loads plugins and checks each against those loaded before."""

    configuration: Configuration
    enabled: tuple[str, ...] | None
    disabled: tuple[str, ...]
    lost: Mapping[str, str]
    limit: LoadLimit
    plugins: list[Plugin] = field(default_factory=list)

    def add(self, candidate: Candidate) -> None:
        """Load a plugin and add it to `plugins`, on a failure with its state and reason."""
        file = candidate.file
        plugin = Plugin(candidate.name, candidate.version, candidate.source, file=file)
        plugin.code = code_hash(file)
        began = time.perf_counter()
        try:
            self._require_loadable(plugin, candidate)
            # Objects of the plugin may raise on any access; that fails only this plugin.
            call_guarded("loading it", lambda: self._load(plugin, candidate))
        except Unloadable as why:
            plugin.withdraw(why)
        seconds = time.perf_counter() - began
        plugin.load_ms = round(seconds * 1000, 1)
        if seconds > SLOW_SECONDS:
            log.warning("plugin_slow_to_load", plugin=plugin.name, duration_ms=plugin.load_ms)
        self.plugins.append(plugin)

    def ignored(self) -> Iterator[str]:
        """One sentence for each part of the configuration that belongs to nothing that exists."""
        plugins = [plugin.name for plugin in self.plugins]
        analyzers = [a.name for plugin in self.plugins for a in plugin.analyzers]
        # The analyzers of a plugin that is not loaded are unknown, but often have its name.
        analyzers += [p.name for p in self.plugins if p.state is not PluginState.LOADED]
        yield from ignored_names(self.enabled, self.disabled, plugins)
        yield from self.configuration.ignored(plugins, analyzers)
        fields = {a.name: a.fields for plugin in self.plugins for a in plugin.analyzers}
        yield from self.configuration.ignored_choices(fields)
        for plugin in self.plugins:
            for analyzer in plugin.analyzers:
                if isinstance(analyzer, HttpAnalyzer):
                    yield from self.configuration.ignored_timeout(plugin, analyzer)

    def _require_loadable(self, plugin: Plugin, candidate: Candidate) -> None:
        name = plugin.name
        earlier = [other.name for other in self.plugins]
        require_importable(candidate, earlier, self.enabled, self.disabled)
        if name in self.lost:
            raise Unloadable(PluginState.FAILED, self.lost[name])
        if trace := self.limit.traceback_of_end(name, plugin.file):
            reason = (
                f"loading it did not end within {self.limit.seconds:g} seconds and held the "
                "interpreter, so that its process was ended; it is tried again when its code or "
                "PLUGINS_LOAD_SECONDS changes"
            )
            raise Unloadable(PluginState.FAILED, reason, trace)

    def _load(self, plugin: Plugin, candidate: Candidate) -> None:
        with self.limit.watch(plugin.name, plugin.file):
            self._load_in_time(plugin, candidate)

    def _load_in_time(self, plugin: Plugin, candidate: Candidate) -> None:
        module = call_guarded("import", candidate.load)
        plugin.hook, plugin.hooks = register_hooks(module)
        schema = call_guarded(
            "clustr_config_schema()",
            lambda: (plugin.hook.clustr_config_schema() or [None])[0],
        )
        plugin.config_schema = schema if isinstance(schema, type) else None
        loaded = self.configuration.load(plugin.name, schema)
        plugin.config, plugin.secrets = loaded.config, loaded.secrets
        plugin.configured_keys, plugin.config_hash = loaded.configured_keys, loaded.hash
        self._register_analyzers(plugin)
        plugin.filters = tuple(
            call_registration_hook(plugin, "clustr_register_filters", config=plugin.config)
        )
        if problem := problem_with_filters(plugin.filters, plugin.analyzers):
            raise Unloadable(PluginState.FAILED, problem)
        owners = {f.name: other.name for other in self.plugins for f in other.filters if f.name}
        for filter in plugin.filters:
            if filter.name in owners:
                reason = f"the plugin {owners[filter.name]} has a filter {filter.name} too"
                raise Unloadable(PluginState.CONFLICT, reason)

    def _register_analyzers(self, plugin: Plugin) -> None:
        analyzers = call_registration_hook(
            plugin, "clustr_register_analyzers", config=plugin.config
        )
        owners = {a.name: other.name for other in self.plugins for a in other.analyzers}
        for analyzer in analyzers:
            if problem := problem_with_analyzer(analyzer):
                raise Unloadable(PluginState.FAILED, problem)
            if analyzer.name in owners:
                reason = f"the plugin {owners[analyzer.name]} has the analyzer {analyzer.name} too"
                raise Unloadable(PluginState.CONFLICT, reason)
            if isinstance(analyzer, HttpAnalyzer):
                analyzer.address_setting = address_setting(plugin, self.configuration.environment)
            adjusted = self.configuration.configure_analyzer(analyzer)
            if adjusted and (problem := problem_with_analyzer(analyzer)):
                raise misconfigured_error(f"analyzers.{problem}")
        if len({analyzer.name for analyzer in analyzers}) < len(analyzers):
            raise Unloadable(PluginState.FAILED, "two of its analyzers have the same name")
        plugin.analyzers = tuple(analyzers)
