"""Loading plugins, one after the other and each on its own."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clustr import logs
from clustr.domain import failure_messages
from clustr.domain.errors import StartUpError
from clustr.plugin_manager.configuration import RESERVED, Configuration, misconfigured, read_tables
from clustr.plugin_manager.declarations import NAME, problem_with_analyzer, problem_with_filters
from clustr.plugin_manager.discovery import Candidate, find_candidates, problem_with_owner
from clustr.plugin_manager.manager import SLOW_SECONDS, PluginManager, announce_to_nobody
from clustr.plugin_manager.plugin import Plugin, PluginState, Unloadable, guarded
from clustr.plugin_manager.registration import register, registered_by

log = logs.logger(__name__)


def load_plugins(
    folder: Path,
    enabled: tuple[str, ...] | None,
    disabled: tuple[str, ...],
    config_file: Path,
    environment: Mapping[str, str],
    lost: Mapping[str, str] | None = None,
    announce: Callable[[str], None] = announce_to_nobody,
) -> PluginManager:
    """Find and load every plugin.

    Args:
        folder: where drop-ins lie.
        enabled: the only ones to load; None for all.
        disabled: those not to load.
        config_file: the TOML file with a table for each plugin; it need not exist.
        environment: where configuration is looked for first.
        lost: those that must not be imported, with the reason.
        announce: told the name of each before anything of it is run to see what it brings.

    Raises:
        StartUpError: the TOML file cannot be read; which plugins it configures is not known then.
    """
    configuration = Configuration(read_tables(config_file), environment)
    loader = Loader(configuration, enabled, disabled, lost or {})
    for candidate in find_candidates(folder):
        announce(candidate.name)
        loader.add(candidate)
    warnings = list(loader.ignored())
    for warning in warnings:
        log.warning("configuration_ignored", reason=warning)
    return PluginManager(loader.plugins, warnings, announce)


def is_switched_off(name: str, enabled: tuple[str, ...] | None, disabled: tuple[str, ...]) -> bool:
    """Whether the settings keep a plugin from being loaded."""
    return name in disabled or (enabled is not None and name not in enabled)


def check_enabled(folder: Path, enabled: tuple[str, ...] | None) -> None:
    """See that one of the only plugins to load is there, without importing any.

    Args:
        folder: where drop-ins lie.
        enabled: their names; None for all, and empty for none.

    Raises:
        StartUpError: none is; the service would do nothing with uploads.
    """
    names = {candidate.name for candidate in find_candidates(folder)}
    if enabled and not names.intersection(enabled):
        said = "; ".join(failure_messages.unknown_name("plugin", name, names) for name in enabled)
        raise StartUpError(f"PLUGINS_ENABLED={','.join(enabled)!r}: {said}")


def ignored_names(
    enabled: tuple[str, ...] | None, disabled: tuple[str, ...], plugins: Collection[str]
) -> Iterator[str]:
    """The names that the settings switch and no plugin has, each in one sentence."""
    for setting, names in (("PLUGINS_ENABLED", enabled or ()), ("PLUGINS_DISABLED", disabled)):
        for name in names:
            if name not in plugins:
                yield f"{setting}: {failure_messages.unknown_name('plugin', name, plugins)}"


@dataclass
class Loader:
    """Loads plugins, and knows those that were loaded before."""

    configuration: Configuration
    enabled: tuple[str, ...] | None
    disabled: tuple[str, ...]
    lost: Mapping[str, str]
    plugins: list[Plugin] = field(default_factory=list)

    def add(self, candidate: Candidate) -> None:
        """Load a plugin; when that fails it is kept with its state and reason."""
        file = candidate.file
        plugin = Plugin(candidate.name, candidate.version, candidate.source, file=file)
        began = time.perf_counter()
        try:
            self._admit(plugin)
            # An object of the plugin's own that raises when it is looked at is its failure.
            guarded("loading it", lambda: self._load(plugin, candidate))
        except Unloadable as why:
            plugin.withdraw(why)
        seconds = time.perf_counter() - began
        plugin.load_ms = round(seconds * 1000, 1)
        if seconds > SLOW_SECONDS:
            log.warning("plugin_slow_to_load", plugin=plugin.name, duration_ms=plugin.load_ms)
        self.plugins.append(plugin)

    def ignored(self) -> Iterator[str]:
        """What is configured but belongs to nothing that there is."""
        plugins = [plugin.name for plugin in self.plugins]
        analyzers = [a.name for plugin in self.plugins for a in plugin.analyzers]
        # What one that is not loaded would bring is not known, but is often called as it is.
        analyzers += [p.name for p in self.plugins if p.state is not PluginState.LOADED]
        yield from ignored_names(self.enabled, self.disabled, plugins)
        yield from self.configuration.ignored(plugins, analyzers)

    def _admit(self, plugin: Plugin) -> None:
        name = plugin.name
        if is_switched_off(name, self.enabled, self.disabled):
            raise Unloadable(PluginState.DISABLED, "switched off by the settings")
        if any(name == other.name for other in self.plugins):
            raise Unloadable(PluginState.CONFLICT, "another plugin has the same name")
        if not NAME.fullmatch(name):
            reason = f"a plugin's name must match {NAME.pattern}; rename it"
            raise Unloadable(PluginState.FAILED, reason)
        if name in RESERVED:
            reason = f"no plugin can have the name {name}, which is kept for Clustr; rename it"
            raise Unloadable(PluginState.FAILED, reason)
        if name in self.lost:
            raise Unloadable(PluginState.FAILED, self.lost[name])
        if plugin.source == "folder":
            problem = guarded("looking at its files", lambda: problem_with_owner(plugin.file))
            if problem:
                raise Unloadable(PluginState.FAILED, problem)

    def _load(self, plugin: Plugin, candidate: Candidate) -> None:
        module = guarded("import", candidate.load)
        plugin.hook, plugin.hooks = register(module)
        schema = guarded(
            "clustr_config_schema()",
            lambda: (plugin.hook.clustr_config_schema() or [None])[0],
        )
        plugin.config_schema = schema if isinstance(schema, type) else None
        loaded = self.configuration.load(plugin.name, schema)
        plugin.config, plugin.secrets = loaded.config, loaded.secrets
        plugin.given, plugin.config_hash = loaded.given, loaded.hash
        self._register_analyzers(plugin)
        plugin.filters = tuple(
            registered_by(plugin, "clustr_register_filters", config=plugin.config)
        )
        if problem := problem_with_filters(plugin.filters, plugin.analyzers):
            raise Unloadable(PluginState.FAILED, problem)

    def _register_analyzers(self, plugin: Plugin) -> None:
        analyzers = registered_by(plugin, "clustr_register_analyzers", config=plugin.config)
        owners = {a.name: other.name for other in self.plugins for a in other.analyzers}
        for analyzer in analyzers:
            if problem := problem_with_analyzer(analyzer):
                raise Unloadable(PluginState.FAILED, problem)
            if analyzer.name in owners:
                reason = f"the plugin {owners[analyzer.name]} has the analyzer {analyzer.name} too"
                raise Unloadable(PluginState.CONFLICT, reason)
            adjusted = self.configuration.adjust(analyzer)
            if adjusted and (problem := problem_with_analyzer(analyzer)):
                raise misconfigured(f"analyzers.{problem}")
        if len({analyzer.name for analyzer in analyzers}) < len(analyzers):
            raise Unloadable(PluginState.FAILED, "two of its analyzers have the same name")
        plugin.analyzers = tuple(analyzers)
