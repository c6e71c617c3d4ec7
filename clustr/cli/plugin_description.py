"""Describes plugins in JSON values, for printing and for messages between processes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from marshmallow import Schema

from clustr.domain import failure_messages
from clustr.domain.secrets import credentials_in
from clustr.plugin_manager import Plugin
from clustr.plugin_manager.configuration import SECRET
from clustr.plugin_manager.configuration_keys import configuration_keys_of, type_of
from clustr.plugin_manager.declarations import warnings_about_analyzer
from clustr.plugin_manager.service_addresses import (
    advice,
    has_address,
    is_default_address,
    why_off,
)
from clustr.plugins import Analyzer, Filter, HttpAnalyzer, HttpConfig, Vector


def describe_plugin(
    plugin: Plugin, routes: int = 0, plugins: Iterable[Plugin] = ()
) -> dict[str, Any]:
    """Describe a plugin in JSON values, without its secrets.

    Args:
        routes: how many blueprints it brings.
        plugins: all plugins.
    """
    return {
        "name": plugin.name,
        "version": plugin.version,
        "source": plugin.source,
        "state": plugin.state,
        "reason": plugin.reason
        or " ".join(_missing_address_advice(plugin, plugins))
        or why_off(plugin),
        "code": plugin.code,
        "load_ms": plugin.load_ms,
        "file": str(plugin.file) if plugin.file else None,
        "hooks": list(plugin.hooks),
        "analyzers": [_describe_analyzer(analyzer) for analyzer in plugin.analyzers],
        "filters": [_describe_filter(filter) for filter in plugin.filters],
        "blueprints": routes,
        "config": _describe_configuration(plugin),
        "traceback": plugin.trace,
    }


def describe_broken_plugin(plugin: Plugin, error: BaseException) -> dict[str, Any]:
    """Describe a plugin whose own objects raise when they are read."""
    plugin.config_schema = None
    plugin.analyzers = plugin.filters = ()
    reason = f"looking at it raised {failure_messages.describe_exception(error)}"
    return {**describe_plugin(plugin), "state": "failed", "reason": plugin.reason or reason}


def _missing_address_advice(plugin: Plugin, plugins: Iterable[Plugin]) -> Iterator[str]:
    """Yield what to set for each analyzer whose service is at its default address.

    Whether the service was found there is known to the database alone.
    """
    for analyzer in plugin.analyzers:
        if has_address(plugin, analyzer) and is_default_address(plugin):
            yield advice(plugin, analyzer, plugins)


def _describe_analyzer(analyzer: Analyzer) -> dict[str, Any]:
    return {
        "name": analyzer.name,
        "version": analyzer.version,
        "queue": analyzer.queue,
        "summary": analyzer.summary,
        "formats": sorted(analyzer.formats),
        "requires": list(analyzer.requires),
        "timeout": analyzer.timeout,
        "max_attempts": analyzer.max_attempts,
        "memory_mb": analyzer.memory_mb,
        "auto": analyzer.auto,
        "batch_size": analyzer.batch_size,
        "keep_loaded": analyzer.keep_loaded,
        "fields": dict(analyzer.fields),
        "result": _result_fields(analyzer.result_schema),
        "vectors": {vector.field: vector_as_json(vector) for vector in analyzer.vectors},
        "warnings": warnings_about_analyzer(analyzer),
    }


def vector_as_json(vector: Vector) -> dict[str, Any]:
    """What is declared of a vector, but for its key."""
    return {"dimensions": vector.dimensions, "kind": vector.kind, "metric": vector.metric}


def describe_vector(declared: Mapping[str, Any]) -> str:
    """The same for people, such as `64 float16, cosine`."""
    return f"{declared['dimensions']} {declared['kind']}, {declared['metric']}"


def _result_fields(schema: type[Schema]) -> dict[str, str]:
    fields = {field.data_key or name: field for name, field in schema().fields.items()}
    return {name: type_of(field) for name, field in fields.items()}


def _describe_filter(filter: Filter) -> dict[str, Any]:
    return {
        "analyzer": filter.analyzer,
        "field": filter.field,
        "name": filter.name or None,
        "type": _filter_type(filter),
        "operators": list(filter.operators),
        "title": filter.title,
        "summary": filter.summary,
        "indexed": filter.indexed,
        "internal": filter.internal,
    }


def _filter_type(filter: Filter) -> str:
    if isinstance(filter.type, Mapping):
        keys = ", ".join(f"{key}: {type_of(type)}" for key, type in filter.type.items())
        return f"objects with {keys}"
    return type_of(filter.type)


def _describe_configuration(plugin: Plugin) -> list[dict[str, Any]]:
    if plugin.config_schema is None:
        return []
    of_class = _values_of_class(plugin)
    described = []
    for key in configuration_keys_of(plugin.name, plugin.config_schema):
        value = _printable_value(plugin, key.attribute, key.secret)
        inherited = of_class.get(key.attribute)
        described.append(
            {
                "key": key.name,
                "value": inherited if value is None else value,
                "type": key.type,
                "required": key.required,
                "default": inherited if key.default is None else key.default,
                "description": key.description,
                "secret": key.secret,
                "environment": list(key.variables),
            }
        )
    return described


def _values_of_class(plugin: Plugin) -> dict[str, int]:
    """What `HttpConfig` leaves to the class, by the key, where the plugin's analyzers agree."""
    if plugin.config_schema is None or not issubclass(plugin.config_schema, HttpConfig):
        return {}
    classes = [type(one) for one in plugin.analyzers if isinstance(one, HttpAnalyzer)]
    values = {key: {getattr(one, key) for one in classes} for key in ("concurrency", "max_side")}
    return {key: found.pop() for key, found in values.items() if len(found) == 1}


def _printable_value(plugin: Plugin, attribute: str, secret: bool) -> Any:
    if secret:
        return SECRET if plugin.secrets.get(attribute) else None
    value = plugin.config.get(attribute)
    if isinstance(value, str) and credentials_in(value):
        return failure_messages.without_credentials(value)
    return value
