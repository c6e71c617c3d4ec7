"""The configuration of plugins: reading, validation, and secrets.

Errors name the key of an invalid value, never the value.
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
from clustr.domain.secrets import Secrets, credentials_in, register_secrets, wrap_secrets
from clustr.plugin_manager.plugin import (
    Plugin,
    PluginState,
    Unloadable,
    call_guarded,
    empty_configuration,
)
from clustr.plugins import Analyzer, HttpAnalyzer
from clustr.plugins.http import PREPARATION_SECONDS

# Tables of the file that belong to no plugin; no plugin can have these names.
ANALYZERS, PLUGINS, FIELDS = "analyzers", "plugins", "fields"
RESERVED = (ANALYZERS, FIELDS, PLUGINS)
# The keys that an operator can set for any analyzer.
ANALYZER_KEYS = ("queue", "timeout", "auto")
LARGEST_FILE_BYTES = 1_000_000
VARIABLE_PREFIX = "CLUSTR_PLUGIN__"
ENV, FILE = "$env", "$file"
SECRET = "(secret)"  # noqa: S105  It replaces a secret in messages.


@dataclass(frozen=True, slots=True)
class PluginConfiguration:
    """A plugin's configuration, with its secrets apart.

    Attributes:
        configured_keys: the keys of both that are set; the others have their defaults.
    """

    config: Mapping[str, Any] = field(default_factory=empty_configuration)
    secrets: Secrets = field(default_factory=Secrets, repr=False)
    configured_keys: frozenset[str] = frozenset()

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of a hash of the configuration without its secrets."""
        text = json.dumps(dict(self.config), default=_json_default, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _json_default(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def read_tables(config_file: Path) -> dict[str, Any]:
    """The tables of the TOML file for plugins; none when the file does not exist.

    Raises:
        StartUpError: the file cannot be read, so that its plugins are unknown.
    """
    try:
        if (size_bytes := config_file.stat().st_size) > LARGEST_FILE_BYTES:
            raise ValueError(f"it has {size_bytes} bytes; at most {LARGEST_FILE_BYTES} are allowed")
        return tomllib.loads(config_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        problem = error.strerror
    except ValueError as error:  # It is no TOML (the message has the line), or not in UTF-8.
        problem = str(error)
    except RecursionError:
        problem = "its values are nested too deeply"
    raise StartUpError(f"PLUGINS_CONFIG={config_file} cannot be read: {problem}")


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration of all plugins, from the file and the environment."""

    tables: Mapping[str, Any] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)

    def load(self, plugin: str, schema: type[Schema] | None) -> PluginConfiguration:
        """The configuration of one plugin.

        Args:
            schema: the schema that the plugin declares; None if it takes no configuration.

        Raises:
            Unloadable: a value is invalid, or the schema is no marshmallow schema.
        """
        if schema is None:
            if given := self._configured_values(plugin, {}):
                raise misconfigured_error(
                    f"it takes no configuration, but is given {', '.join(given)}"
                )
            return PluginConfiguration()
        if not (isinstance(schema, type) and issubclass(schema, Schema)):
            reason = "clustr_config_schema() returned no marshmallow Schema; return the class"
            raise Unloadable(PluginState.FAILED, reason)
        schema_instance = call_guarded("making its configuration schema", schema)
        keys = keys_of(schema_instance)
        values = self._configured_values(plugin, keys)
        if schema_instance.unknown != INCLUDE and (
            unknown := [key for key in values if key not in keys]
        ):
            raise misconfigured_error(
                "; ".join(failure_messages.unknown_name("key", key, keys) for key in unknown)
            )
        values = {key: self._resolve(key, value) for key, value in values.items()}
        hidden = [
            text for key in keys if is_secret(keys[key]) for text in _texts_in(values.get(key))
        ]
        attributes = {
            key: declared.attribute or declared.name or key for key, declared in keys.items()
        }
        configured_keys = frozenset(attributes.get(key, key) for key in values)
        return replace(
            _split_secrets(schema_instance, _load_values(plugin, schema_instance, values, hidden)),
            configured_keys=configured_keys,
        )

    def configure_analyzer(self, analyzer: Analyzer) -> bool:
        """Set the attributes of an analyzer that the operator has configured; return whether any.

        Raises:
            Unloadable: the table of the analyzer is invalid.
        """
        table = self._table(ANALYZERS).get(analyzer.name, {})
        where = f"{ANALYZERS}.{analyzer.name}"
        if not isinstance(table, dict):
            raise misconfigured_error(f"{where} is no table in the file of plugins' configuration")
        if unknown := [key for key in table if key not in ANALYZER_KEYS]:
            message = "; ".join(
                failure_messages.unknown_name("key", key, ANALYZER_KEYS) for key in unknown
            )
            raise misconfigured_error(f"{where}: {message}")
        for key, value in table.items():
            setattr(analyzer, key, value)
        return bool(table)

    def ignored(self, plugins: Iterable[str], analyzers: Iterable[str]) -> Iterator[str]:
        """One sentence for each part of the configuration that belongs to nothing that exists."""
        plugins, analyzers = list(plugins), list(analyzers)
        for name in self._table(PLUGINS):
            yield f"[{PLUGINS}.{name}] is not read; a plugin's table is just [{name}]"
        for name in self._table(ANALYZERS):
            if name not in analyzers:
                reason = failure_messages.unknown_name("analyzer", name, analyzers)
                yield f"[{ANALYZERS}.{name}]: {reason}"
        for name in self.tables:
            if name not in (*plugins, *RESERVED):
                yield f"[{name}]: {failure_messages.unknown_name('plugin', name, plugins)}"
        yield from ignored_variables(self.environment, plugins)

    def field_choices(self) -> dict[str, str]:
        """The analyzers that the operator wants to fill fields of uploads, by these fields."""
        return {field: str(name) for field, name in self._table(FIELDS).items()}

    def ignored_choices(self, declared: Mapping[str, Collection[str]]) -> Iterator[str]:
        """One sentence for each choice of an analyzer that does not fill that field.

        Args:
            declared: the fields that each analyzer fills, by its name.
        """
        for filled, name in self.field_choices().items():
            if filled not in declared.get(name, ()):
                able = sorted(other for other in declared if filled in declared[other])
                known = f"it is filled by {', '.join(able)}" if able else "nothing fills it"
                yield f"[{FIELDS}] {filled}: {name} does not fill it; {known}"

    def ignored_timeout(self, plugin: Plugin, analyzer: HttpAnalyzer) -> Iterator[str]:
        """A sentence where the `timeout` of an analyzer is longer than its calls may ever take."""
        own = type(analyzer)  # Of one that calls its service in a way of its own that is not known.
        for method in ("analyze", "ask", "check_answer"):
            if getattr(own, method) is not getattr(HttpAnalyzer, method):
                return
        seconds = self._table(ANALYZERS).get(analyzer.name, {}).get("timeout", 0)
        limit = plugin.config.get("timeout")
        if isinstance(limit, int | float) and seconds > limit + PREPARATION_SECONDS:
            yield (
                f"[{ANALYZERS}.{analyzer.name}] timeout = {seconds} gives no answer more time: "
                f"calls end after {limit:g} seconds; raise timeout in [{plugin.name}]"
            )

    def _table(self, name: str) -> Mapping[str, Any]:
        table = self.tables.get(name, {})
        return table if isinstance(table, dict) else {}

    def _configured_values(
        self, plugin: str, keys: Mapping[str, fields.Field[Any]]
    ) -> dict[str, Any]:
        """The configured values of a plugin, before validation, by their keys."""
        table = self.tables.get(plugin, {})
        if not isinstance(table, dict):
            raise misconfigured_error(f"{plugin} is no table in the file of plugins' configuration")
        values = dict(table)
        begin = variable_prefix(plugin)
        spelled = {key.lower(): key for key in keys}
        for variable, value in self.environment.items():
            if variable.startswith(begin):
                key = variable.removeprefix(begin).lower()
                values[spelled.get(key, key)] = _parse_variable(
                    keys.get(spelled.get(key, key)), value
                )
        for key, declared in keys.items():
            named = map(self.environment.get, named_variables(declared))
            if text := next(filter(None, named), None):
                values[key] = _parse_variable(declared, text)
        return values

    def _resolve(self, key: str, value: Any) -> Any:
        """The value, with `$env` and `$file` replaced by the variable or the file's content."""
        if isinstance(value, list):
            return [self._resolve(key, one) for one in value]
        if isinstance(value, str) and not failure_messages.is_utf8(value):
            raise misconfigured_error(f"{key}: it is no text in UTF-8")
        if not isinstance(value, dict):
            return value
        references = [name for name in value if name.startswith("$")]
        if not references:
            return {name: self._resolve(f"{key}.{name}", one) for name, one in value.items()}
        [name, *more] = value
        if more or name not in (ENV, FILE) or not isinstance(value[name], str):
            references_syntax = f'{{ "{ENV}" = "NAME" }} or {{ "{FILE}" = "/path" }}'
            raise misconfigured_error(f"{key}: expected a value, or {references_syntax}")
        return (
            self._read_variable(key, value[name])
            if name == ENV
            else _read_secret_file(key, value[name])
        )

    def _read_variable(self, key: str, variable: str) -> str:
        if value := self.environment.get(variable):
            return value
        raise misconfigured_error(f"{key}: the environment variable {variable} is not set")


def ignored_variables(environment: Mapping[str, str], plugins: Collection[str]) -> Iterator[str]:
    """One sentence for each environment variable that configures none of these plugins."""
    prefixes = tuple(map(variable_prefix, plugins))
    for variable in environment:
        if variable.startswith(VARIABLE_PREFIX) and not variable.startswith(prefixes):
            name = variable.removeprefix(VARIABLE_PREFIX).partition("__")[0].lower()
            reason = failure_messages.unknown_name("plugin", name, plugins)
            yield f"{failure_messages.as_plain_text(variable)}: {reason}"


def variable_prefix(plugin: str) -> str:
    """The prefix of the environment variables that configure a plugin."""
    return f"{VARIABLE_PREFIX}{plugin.upper()}__"


def named_variables(declared: fields.Field[Any]) -> tuple[str, ...]:
    """The environment variables that a field names, in the order of their precedence."""
    named = declared.metadata.get("env", ())
    return (named,) if isinstance(named, str) else tuple(named)


def keys_of(schema: Schema) -> dict[str, fields.Field[Any]]:
    """The fields of a schema, by their keys in the input."""
    return {declared.data_key or name: declared for name, declared in schema.load_fields.items()}


def is_secret(declared: fields.Field[Any], inside: tuple[type, ...] = ()) -> bool:
    """Whether a field, or a field nested in it, is declared secret."""
    if declared.metadata.get("secret"):
        return True
    if isinstance(declared, fields.Nested) and type(declared.schema) not in inside:
        members = declared.schema.fields.values()
        return any(is_secret(one, (*inside, type(declared.schema))) for one in members)
    return isinstance(declared, fields.List) and is_secret(declared.inner, inside)


def misconfigured_error(reason: str) -> Unloadable:
    return Unloadable(PluginState.MISCONFIGURED, reason)


def _parse_variable(declared: fields.Field[Any] | None, text: str) -> Any:
    """The value of an environment variable, in which commas separate the items of a list."""
    if isinstance(declared, fields.List):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _read_secret_file(key: str, file: str) -> str:
    path = Path(file)
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        problem = error.strerror
    except ValueError:
        problem = "it is no text in UTF-8"
    raise misconfigured_error(f"{key}: the file {path.name} cannot be read: {problem}")


def _texts_in(value: Any) -> Iterator[str]:
    """Each text and number in a value, in the forms in which a message can contain it."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _texts_in(one)
    elif value not in (None, ""):
        yield str(value)
        yield repr(value)[1:-1] if isinstance(value, str) else repr(value)


def _load_values(
    plugin: str, schema: Schema, values: dict[str, Any], hidden: list[str]
) -> dict[str, Any]:
    """Load the values with the schema; `hidden` are texts to remove from errors."""
    try:
        loaded = schema.load(values, unknown=schema.unknown)
    except ValidationError as error:
        messages = error.normalized_messages()
        sentences = [*_problems(messages, schema, values)]
        for key, declared in keys_of(schema).items():
            if key in messages and key not in values:
                own = f"{variable_prefix(plugin)}{key.upper()}"
                variable = next(iter(named_variables(declared)), own)
                where = f"{variable}, or {key} in the table [{plugin}] of PLUGINS_CONFIG"
                sentences.append(f"set {where}")
        raise misconfigured_error(_redact("; ".join(sentences), hidden)) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # It is not chained: its traceback could hold a secret.
        message = f"loading its configuration raised {failure_messages.describe_exception(error)}"
        raise misconfigured_error(_redact(message, hidden)) from None
    if not isinstance(loaded, dict):
        reason = f"its configuration schema loads a {type(loaded).__name__}; it must load a dict"
        raise Unloadable(PluginState.FAILED, reason)
    return loaded


def _split_secrets(schema: Schema, loaded: Mapping[str, Any]) -> PluginConfiguration:
    declared = {f.attribute or name: f for name, f in schema.load_fields.items() if is_secret(f)}
    config = {key: value for key, value in loaded.items() if key not in declared}
    for value in config.values():  # The address of a service can have a password.
        register_secrets(credentials_in(value) if isinstance(value, str) else ())
    secrets = {
        key: _wrap_secret_parts(declared[key], loaded[key]) for key in declared if key in loaded
    }
    return PluginConfiguration(MappingProxyType(config), Secrets(secrets))


def _wrap_secret_parts(declared: fields.Field[Any], value: Any) -> Any:
    """The value of a field with its secret parts wrapped, so that `repr` does not show them."""
    if declared.metadata.get("secret"):
        return wrap_secrets(value)
    if isinstance(declared, fields.List) and isinstance(value, list):
        return [_wrap_secret_parts(declared.inner, one) for one in value]
    if isinstance(declared, fields.Nested) and isinstance(value, dict):
        below = {f.attribute or name: f for name, f in declared.schema.load_fields.items()}
        return Secrets(
            {k: _wrap_secret_parts(below[k], v) if k in below else v for k, v in value.items()}
        )
    return value


def _problems(messages: Any, schema: Schema | None, values: Any, path: str = "") -> Iterator[str]:
    """What is wrong with each value, with its key; without details for a secret."""
    if not isinstance(messages, dict):
        message = " ".join(map(str, messages)) if isinstance(messages, list) else str(messages)
        yield (
            f"{path}: {failure_messages.without_paths(message)}"
            if path
            else failure_messages.without_paths(message)
        )
        return
    for key, below in messages.items():
        where = path if key == "_schema" else f"{path}.{key}" if path else str(key)
        declared = None if schema is None else keys_of(schema).get(key)
        value = values.get(key) if isinstance(values, dict) else None
        nested = declared.schema if isinstance(declared, fields.Nested) else None
        if schema is not None and declared is None and value is not None:
            yield f"{path}: {failure_messages.unknown_name('key', str(key), keys_of(schema))}"
        elif declared and is_secret(declared) and value is not None and not nested:
            yield f"{where}: it cannot be used; as it is a secret, no more is said"
        else:
            yield from _problems(below, nested, value, where)


def _redact(text: str, hidden: Iterable[str]) -> str:
    for secret in sorted(set(hidden), key=len, reverse=True):
        text = text.replace(secret, SECRET)
    return text
