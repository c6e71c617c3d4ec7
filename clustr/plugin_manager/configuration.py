"""The configuration of plugins: where values come from, what may be said of them, what is secret.

What is wrong with a value is said with its key, never with the value.
"""

import hashlib
import json
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields

from clustr.domain import failure_messages
from clustr.domain.errors import StartUpError
from clustr.domain.secrets import Secrets, credentials_in, remember, wrapped
from clustr.plugin_manager.plugin import PluginState, Unloadable, guarded, nothing
from clustr.plugins import Analyzer

# Tables of the file that belong to no plugin, so that none can have these names.
ANALYZERS, PLUGINS = "analyzers", "plugins"
RESERVED = (ANALYZERS, PLUGINS)
# What an operator can say of any analyzer.
OF_ANALYZERS = ("queue", "timeout", "auto")
LARGEST_FILE_BYTES = 1_000_000
VARIABLE = "CLUSTR_PLUGIN__"
ENV, FILE = "$env", "$file"
SECRET = "(secret)"  # noqa: S105  It is what stands in the place of one.


@dataclass(frozen=True, slots=True)
class PluginConfiguration:
    """A plugin's configuration, and the part of it that is secret.

    Attributes:
        given: the keys of both whose value is not that of the schema, but was set by somebody.
    """

    config: Mapping[str, Any] = field(default_factory=nothing)
    secrets: Secrets = field(default_factory=Secrets, repr=False)
    given: frozenset[str] = frozenset()

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that are others when what is not secret is something else."""
        text = json.dumps(dict(self.config), default=_plain, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def read_tables(config_file: Path) -> dict[str, Any]:
    """The tables of the file of configuration, which need not exist.

    Raises:
        StartUpError: it cannot be read; which plugins it configures is not known then.
    """
    try:
        if (size_bytes := config_file.stat().st_size) > LARGEST_FILE_BYTES:
            raise ValueError(f"it has {size_bytes} bytes; at most {LARGEST_FILE_BYTES} are allowed")
        return tomllib.loads(config_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        problem = error.strerror
    except ValueError as error:  # It is no TOML, whose error says the line, or not in UTF-8.
        problem = str(error)
    except RecursionError:
        problem = "its values are nested too deeply"
    raise StartUpError(f"PLUGINS_CONFIG={config_file} cannot be read: {problem}")


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the file and the environment say about all plugins."""

    tables: Mapping[str, Any] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)

    def load(self, plugin: str, schema: type[Schema] | None) -> PluginConfiguration:
        """The configuration of one plugin.

        Raises:
            Unloadable: something of it cannot be used, or the schema is none.
        """
        if schema is None:
            if given := self._given(plugin, {}):
                raise misconfigured(f"it takes no configuration, but is given {', '.join(given)}")
            return PluginConfiguration()
        if not (isinstance(schema, type) and issubclass(schema, Schema)):
            reason = "clustr_config_schema() returned no marshmallow Schema; return the class"
            raise Unloadable(PluginState.FAILED, reason)
        made = guarded("making its configuration schema", schema)
        keys = keys_of(made)
        values = self._given(plugin, keys)
        if made.unknown != INCLUDE and (unknown := [key for key in values if key not in keys]):
            raise misconfigured(
                "; ".join(failure_messages.unknown_name("key", key, keys) for key in unknown)
            )
        values = {key: self._resolved(key, value) for key, value in values.items()}
        hidden = [text for key in keys if is_secret(keys[key]) for text in _texts(values.get(key))]
        attributes = {key: declared.attribute or declared.name for key, declared in keys.items()}
        given = frozenset(attributes.get(key, key) for key in values)
        return replace(_split(made, _loaded(made, values, hidden)), given=given)

    def adjust(self, analyzer: Analyzer) -> bool:
        """Give an analyzer what the operator wants of it; whether there was anything.

        Raises:
            Unloadable: the table cannot be used.
        """
        table = self._below(ANALYZERS).get(analyzer.name, {})
        where = f"{ANALYZERS}.{analyzer.name}"
        if not isinstance(table, dict):
            raise misconfigured(f"{where} is no table in the file of plugins' configuration")
        if unknown := [key for key in table if key not in OF_ANALYZERS]:
            said = "; ".join(
                failure_messages.unknown_name("key", key, OF_ANALYZERS) for key in unknown
            )
            raise misconfigured(f"{where}: {said}")
        for key, value in table.items():
            setattr(analyzer, key, value)
        return bool(table)

    def ignored(self, plugins: Iterable[str], analyzers: Iterable[str]) -> Iterator[str]:
        """What is configured but belongs to nothing that there is, each in one sentence."""
        plugins, analyzers = list(plugins), list(analyzers)
        for name in self._below(PLUGINS):
            yield f"[{PLUGINS}.{name}] is not read; a plugin's table is just [{name}]"
        for name in self._below(ANALYZERS):
            if name not in analyzers:
                reason = failure_messages.unknown_name("analyzer", name, analyzers)
                yield f"[{ANALYZERS}.{name}]: {reason}"
        for name in self.tables:
            if name not in (*plugins, *RESERVED):
                yield f"[{name}]: {failure_messages.unknown_name('plugin', name, plugins)}"
        yield from ignored_variables(self.environment, plugins)

    def _below(self, name: str) -> Mapping[str, Any]:
        table = self.tables.get(name, {})
        return table if isinstance(table, dict) else {}

    def _given(self, plugin: str, keys: Mapping[str, fields.Field[Any]]) -> dict[str, Any]:
        """The values as they are written down, by their keys."""
        table = self.tables.get(plugin, {})
        if not isinstance(table, dict):
            raise misconfigured(f"{plugin} is no table in the file of plugins' configuration")
        values = dict(table)
        begin = prefix(plugin)
        spelled = {key.lower(): key for key in keys}
        for variable, value in self.environment.items():
            if variable.startswith(begin):
                key = variable.removeprefix(begin).lower()
                values[spelled.get(key, key)] = _from_text(keys.get(spelled.get(key, key)), value)
        for key, declared in keys.items():
            if value := self.environment.get(declared.metadata.get("env", "")):
                values[key] = _from_text(declared, value)
        return values

    def _resolved(self, key: str, value: Any) -> Any:
        """The value, with what it takes from variables of the environment and from files."""
        if isinstance(value, list):
            return [self._resolved(key, one) for one in value]
        if isinstance(value, str) and not failure_messages.is_utf8(value):
            raise misconfigured(f"{key}: it is no text in UTF-8")
        if not isinstance(value, dict):
            return value
        references = [name for name in value if name.startswith("$")]
        if not references:
            return {name: self._resolved(f"{key}.{name}", one) for name, one in value.items()}
        [name, *more] = value
        if more or name not in (ENV, FILE) or not isinstance(value[name], str):
            wanted = f'{{ "{ENV}" = "NAME" }} or {{ "{FILE}" = "/path" }}'
            raise misconfigured(f"{key}: expected a value, or {wanted}")
        return self._of_variable(key, value[name]) if name == ENV else _of_file(key, value[name])

    def _of_variable(self, key: str, variable: str) -> str:
        if value := self.environment.get(variable):
            return value
        raise misconfigured(f"{key}: the environment variable {variable} is not set")


def ignored_variables(environment: Mapping[str, str], plugins: Collection[str]) -> Iterator[str]:
    """The variables that configure none of these plugins, each in one sentence."""
    prefixes = tuple(map(prefix, plugins))
    for variable in environment:
        if variable.startswith(VARIABLE) and not variable.startswith(prefixes):
            name = variable.removeprefix(VARIABLE).partition("__")[0].lower()
            reason = failure_messages.unknown_name("plugin", name, plugins)
            yield f"{failure_messages.as_plain_text(variable)}: {reason}"


def prefix(plugin: str) -> str:
    """How the environment variables begin that configure a plugin."""
    return f"{VARIABLE}{plugin.upper()}__"


def keys_of(schema: Schema) -> dict[str, fields.Field[Any]]:
    """The fields of a schema, by the keys that they are given with."""
    return {declared.data_key or name: declared for name, declared in schema.load_fields.items()}


def is_secret(declared: fields.Field[Any], inside: tuple[type, ...] = ()) -> bool:
    """Whether a field is declared secret, or something in it is."""
    if declared.metadata.get("secret"):
        return True
    if isinstance(declared, fields.Nested) and type(declared.schema) not in inside:
        members = declared.schema.fields.values()
        return any(is_secret(one, (*inside, type(declared.schema))) for one in members)
    return isinstance(declared, fields.List) and is_secret(declared.inner, inside)


def misconfigured(reason: str) -> Unloadable:
    return Unloadable(PluginState.MISCONFIGURED, reason)


def _from_text(declared: fields.Field[Any] | None, text: str) -> Any:
    """A value of the environment, where lists are separated by commas."""
    if isinstance(declared, fields.List):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _of_file(key: str, file: str) -> str:
    path = Path(file)
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        problem = error.strerror
    except ValueError:
        problem = "it is no text in UTF-8"
    raise misconfigured(f"{key}: the file {path.name} cannot be read: {problem}")


def _texts(value: Any) -> Iterator[str]:
    """Each text and number in a value, as it can turn up in what somebody says."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif value not in (None, ""):
        yield str(value)
        yield repr(value)[1:-1] if isinstance(value, str) else repr(value)


def _loaded(schema: Schema, values: dict[str, Any], hidden: list[str]) -> dict[str, Any]:
    """What the schema makes of the values; `hidden` are texts that nobody must read."""
    try:
        loaded = schema.load(values, unknown=schema.unknown)
    except ValidationError as error:
        said = "; ".join(_problems(error.normalized_messages(), schema, values))
        raise misconfigured(_without(said, hidden)) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # Its traceback could hold a secret: it goes no further.
        said = f"loading its configuration raised {failure_messages.describe_exception(error)}"
        raise misconfigured(_without(said, hidden)) from None
    if not isinstance(loaded, dict):
        reason = f"its configuration schema loads a {type(loaded).__name__}; it must load a dict"
        raise Unloadable(PluginState.FAILED, reason)
    return loaded


def _split(schema: Schema, loaded: Mapping[str, Any]) -> PluginConfiguration:
    declared = {f.attribute or name: f for name, f in schema.load_fields.items() if is_secret(f)}
    config = {key: value for key, value in loaded.items() if key not in declared}
    for value in config.values():  # The address of a service can have a password.
        remember(credentials_in(value) if isinstance(value, str) else ())
    secrets = {key: _hidden(declared[key], loaded[key]) for key in declared if key in loaded}
    return PluginConfiguration(MappingProxyType(config), Secrets(secrets))


def _hidden(declared: fields.Field[Any], value: Any) -> Any:
    """What is secret in the value of a field, with a representation that does not show it."""
    if declared.metadata.get("secret"):
        return wrapped(value)
    if isinstance(declared, fields.List) and isinstance(value, list):
        return [_hidden(declared.inner, one) for one in value]
    if isinstance(declared, fields.Nested) and isinstance(value, dict):
        below = {f.attribute or name: f for name, f in declared.schema.load_fields.items()}
        return Secrets({k: _hidden(below[k], v) if k in below else v for k, v in value.items()})
    return value


def _problems(messages: Any, schema: Schema, values: Any, path: str = "") -> Iterator[str]:
    """What is wrong with each value, with its key; of a secret no more than that."""
    if not isinstance(messages, dict):
        said = " ".join(map(str, messages)) if isinstance(messages, list) else str(messages)
        yield (
            f"{path}: {failure_messages.without_paths(said)}"
            if path
            else failure_messages.without_paths(said)
        )
        return
    for key, below in messages.items():
        where = path if key == "_schema" else f"{path}.{key}" if path else str(key)
        declared = None if schema is None else keys_of(schema).get(key)
        value = values.get(key) if isinstance(values, dict) else None
        nested = declared.schema if isinstance(declared, fields.Nested) else None
        unknown = schema is not None and declared is None and value is not None
        if unknown:
            yield f"{path}: {failure_messages.unknown_name('key', str(key), keys_of(schema))}"
        elif declared and is_secret(declared) and value is not None and not nested:
            yield f"{where}: it cannot be used; as it is a secret, no more is said"
        else:
            yield from _problems(below, nested, value, where)


def _without(text: str, hidden: Iterable[str]) -> str:
    for one in sorted(set(hidden), key=len, reverse=True):
        text = text.replace(one, SECRET)
    return text
