"""The plugin host: finds plugins, loads each on its own, and knows what every one of them brings.

Nothing that a plugin does while it is loaded touches another or ends the process: it is listed with
a state and a reason instead.
"""

import filecmp
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from marshmallow import Schema, ValidationError

from clustr import logs, reasons
from clustr.errors import StartUpError
from clustr.plugins import Analyzer, hooks

log = logs.logger(__name__)

API_LEVEL = 1
ENTRY_POINTS = "clustr.plugins"
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
QUEUES = ("default", "http", "gpu")
FIELDS = ("caption", "tags", "dimensions", "taken_at", "faces")
LONGEST_TIMEOUT_SECONDS = 24 * 3600


class PluginState(StrEnum):
    """What became of a plugin that was found."""

    LOADED = "loaded"
    DISABLED = "disabled"
    MISCONFIGURED = "misconfigured"
    FAILED = "failed"
    CONFLICT = "conflict"


class Unloadable(Exception):
    """Why a plugin is not loaded."""

    def __init__(self, state: PluginState, reason: str):
        super().__init__(reason)
        self.state = state


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that was found, whether or not it could be loaded.

    Attributes:
        source: `package` for one that was installed, `folder` for a drop-in.
        reason: why it is in its state, when it is not loaded.
    """

    name: str
    version: str | None
    source: str
    state: PluginState
    reason: str | None = None
    analyzers: tuple[Analyzer, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where a plugin is; `load` imports it."""

    name: str
    version: str | None
    source: str
    load: Callable[[], ModuleType]
    file: Path | None


class PluginHost:
    """All plugins of this process, and the analyzers of those that are loaded."""

    def __init__(self, plugins: Iterable[Plugin]):
        self.plugins = tuple(plugins)
        self.analyzers = {a.name: a for plugin in self.plugins for a in plugin.analyzers}
        self._plugin_of = {a.name: plugin for plugin in self.plugins for a in plugin.analyzers}

    def plugin_of(self, analyzer: Analyzer) -> Plugin:
        """The plugin that brings this analyzer."""
        return self._plugin_of[analyzer.name]


def load_plugins(
    folder: Path,
    enabled: tuple[str, ...] | None,
    disabled: tuple[str, ...],
    config_file: Path,
    environment: Mapping[str, str],
) -> PluginHost:
    """Find and load every plugin.

    Args:
        folder: where drop-ins lie.
        enabled: the only ones to load; None for all.
        disabled: those not to load.
        config_file: the TOML file with a table for each plugin; it need not exist.
        environment: where configuration is looked for first.

    Raises:
        StartUpError: the TOML file cannot be read; which plugins it configures is not known then.
    """
    tables = _read_tables(config_file)
    plugins: list[Plugin] = []
    for candidate in _candidates(folder):
        off = candidate.name in disabled or (enabled is not None and candidate.name not in enabled)
        try:
            if off:
                raise Unloadable(PluginState.DISABLED, "switched off by the settings")
            if candidate.name in {plugin.name for plugin in plugins}:
                raise Unloadable(PluginState.CONFLICT, "another plugin has the same name")
            plugins.append(_load_guarded(candidate, tables, environment, plugins))
        except Unloadable as error:
            plugins.append(
                Plugin(candidate.name, candidate.version, candidate.source, error.state, str(error))
            )
            if error.state is not PluginState.DISABLED:
                log.error("plugin_not_loaded", plugin=candidate.name, reason=str(error))
    return PluginHost(plugins)


def _load_guarded(
    candidate: Candidate,
    tables: Mapping[str, Any],
    environment: Mapping[str, str],
    plugins: Iterable[Plugin],
) -> Plugin:
    """Load one plugin; an object of its own that raises when it is looked at is its failure."""
    analyzers = {a.name: p.name for p in plugins for a in p.analyzers}
    return _guarded("loading it", lambda: _load(candidate, tables, environment, analyzers))


def _candidates(folder: Path) -> Iterator[Candidate]:
    """Installed plugins, the first-party ones before others, then drop-ins, each by name."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    files: list[Path] = []
    for entry in sorted(found, key=lambda e: (e.dist.name != "clustr", e.name)):
        file = _file_of(entry.module)
        files += [file] if file else []
        yield Candidate(entry.name, entry.dist.version, "package", entry.load, file)
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if path.name.startswith(("_", ".")) or file.suffix != ".py" or not file.is_file():
            continue
        if not any(_same(file, installed) for installed in files):
            yield Candidate(path.stem, None, "folder", lambda f=file: _import_file(f), file)


def _file_of(module: str) -> Path | None:
    """The file of a module that may not be importable, without importing it but its parents."""
    try:
        spec = importlib.util.find_spec(module)
    except KeyboardInterrupt:
        raise
    except BaseException:  # What its parents raise is raised again, and said, when it is loaded.
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _same(file: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(file, other, shallow=False)
    except OSError:  # One that cannot be read is listed with that as the reason.
        return False


def _import_file(file: Path) -> ModuleType:
    is_package = file.name == "__init__.py"
    name = f"clustr_dropin_{file.parent.name if is_package else file.stem}"
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(file.parent)] if is_package else None
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load(
    candidate: Candidate,
    tables: Mapping[str, Any],
    environment: Mapping[str, str],
    analyzers: Mapping[str, str],
) -> Plugin:
    if not NAME.fullmatch(candidate.name):
        raise Unloadable(
            PluginState.FAILED, f"a plugin's name must match {NAME.pattern}; rename it"
        )
    module = _guarded("import", candidate.load)
    level = getattr(module, "CLUSTR_API", API_LEVEL)
    if level != API_LEVEL:
        reason = f"it is written for API level {level}; this Clustr has level {API_LEVEL}"
        raise Unloadable(PluginState.FAILED, reason)
    hook = _register(module)
    schema = _guarded("clustr_config_schema()", lambda: (hook.clustr_config_schema() or [None])[0])
    config, secrets = _configure(candidate.name, schema, tables, environment)
    brought = _guarded(
        "clustr_register_analyzers()",
        lambda: [a for some in hook.clustr_register_analyzers(config=config) for a in some],
    )
    for analyzer in brought:
        if problem := _problem_with(analyzer):
            raise Unloadable(PluginState.FAILED, problem)
        if analyzer.name in analyzers:
            reason = f"the plugin {analyzers[analyzer.name]} has the analyzer {analyzer.name} too"
            raise Unloadable(PluginState.CONFLICT, reason)
    names = [analyzer.name for analyzer in brought]
    if len(set(names)) < len(names):
        raise Unloadable(PluginState.FAILED, "two of its analyzers have the same name")
    return Plugin(
        candidate.name,
        candidate.version,
        candidate.source,
        PluginState.LOADED,
        analyzers=tuple(brought),
        config=config,
        secrets=secrets,
    )


def _guarded(what: str, call: Callable[[], Any]) -> Any:
    """Run what belongs to a plugin: whatever it raises, `sys.exit` included, is its failure."""
    try:
        return call()
    except (KeyboardInterrupt, Unloadable):
        raise
    except BaseException as error:
        log.debug("plugin_raised", during=what, exc_info=True)
        reason = f"{what} raised {reasons.of(error)}"
        raise Unloadable(PluginState.FAILED, reason) from error


def _register(module: ModuleType) -> Any:
    """Make the plugin's hooks callable, with no other plugin among them."""
    manager = pluggy.PluginManager("clustr")
    manager.add_hookspecs(hooks)

    def register() -> None:
        manager.register(module)
        manager.check_pending()

    _guarded("registering its hooks", register)
    if not manager.get_hookcallers(module):
        reason = "it implements no hook; mark its clustr_… functions with @hookimpl"
        raise Unloadable(PluginState.FAILED, reason)
    return manager.hook


def _configure(
    name: str,
    schema: type[Schema] | None,
    tables: Mapping[str, Any],
    environment: Mapping[str, str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plugin's configuration, and the part of it that is secret."""
    if schema is not None and not _is_schema(schema):
        reason = "clustr_config_schema() returned no marshmallow Schema; return the class"
        raise Unloadable(PluginState.FAILED, reason)
    table = tables.get(name, {})
    if not isinstance(table, dict):
        reason = f"{name} is no table in the file of plugins' configuration"
        raise Unloadable(PluginState.MISCONFIGURED, reason)
    fields = schema().fields if schema else {}
    prefix = f"CLUSTR_PLUGIN__{name.upper()}__"
    raw = table | {
        variable.removeprefix(prefix).lower(): value
        for variable, value in environment.items()
        if variable.startswith(prefix)
    }
    for key, declared in fields.items():
        if environment.get(declared.metadata.get("env", "")):
            raw[key] = environment[declared.metadata["env"]]
    if raw and not schema:
        reason = f"it takes no configuration, but is given {', '.join(raw)}"
        raise Unloadable(PluginState.MISCONFIGURED, reason)
    try:
        loaded = schema().load(raw) if schema else {}
    except ValidationError as error:
        problems = error.normalized_messages()
        reason = "; ".join(f"{key}: {_joined(messages)}" for key, messages in problems.items())
        raise Unloadable(PluginState.MISCONFIGURED, reason) from error
    secret = {key for key, declared in fields.items() if declared.metadata.get("secret")}
    return (
        {key: value for key, value in loaded.items() if key not in secret},
        {key: value for key, value in loaded.items() if key in secret},
    )


def _joined(messages: Any) -> str:
    return " ".join(map(str, messages)) if isinstance(messages, list) else str(messages)


def _is_schema(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Schema)


def _read_tables(config_file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        problem = error.strerror
    except ValueError as error:  # It is no TOML, whose error says the line, or not in UTF-8.
        problem = str(error)
    raise StartUpError(f"PLUGINS_CONFIG={config_file} cannot be read: {problem}")


def _problem_with(analyzer: object) -> str | None:
    """What is wrong with the declaration of an analyzer, if anything is."""
    if not isinstance(analyzer, Analyzer):
        kind = type(analyzer).__name__
        return f"clustr_register_analyzers() returned a {kind}, which is no Analyzer"
    name = getattr(analyzer, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"the name of an analyzer must match {NAME.pattern}, not be {name!r}"
    checks = {
        "version must be a whole number from 1": _is_whole(analyzer.version),
        "result_schema must be a marshmallow Schema": _is_schema(
            getattr(analyzer, "result_schema", None)
        ),
        "summary must be text": isinstance(analyzer.summary, str),
        f"queue must be one of {', '.join(QUEUES)}": analyzer.queue in QUEUES,
        "formats must be a set of content types": isinstance(analyzer.formats, set | frozenset)
        and all(isinstance(format, str) for format in analyzer.formats),
        f"timeout must be seconds above 0, at most {LONGEST_TIMEOUT_SECONDS}": isinstance(
            analyzer.timeout, int | float
        )
        and 0 < analyzer.timeout <= LONGEST_TIMEOUT_SECONDS,
        "max_attempts must be a whole number from 1": _is_whole(analyzer.max_attempts),
        f"fields must map some of {', '.join(FIELDS)} to keys of the result": isinstance(
            analyzer.fields, Mapping
        )
        and set(analyzer.fields) <= set(FIELDS)
        and all(isinstance(key, str) for key in analyzer.fields.values()),
    }
    failed = next((problem for problem, fine in checks.items() if not fine), None)
    return f"{name}: {failed}" if failed else None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and value >= 1
