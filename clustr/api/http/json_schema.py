"""Converts marshmallow schemas, such as those of plugins, to JSON schemas."""

import re
from collections.abc import Sequence
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from clustr import logs

log = logs.logger(__name__)

# Syntax of regular expressions that JavaScript lacks; schemas of plugins may have it.
PYTHON_ONLY = re.compile(r"\(\?[P#aiLmsux(]|\\[NaZ]|[*+?}]\+")
# None means no name; apispec allows it, but its types do not.
_inlining_plugin = MarshmallowPlugin(
    schema_name_resolver=lambda _schema: None  # type: ignore[arg-type,return-value]
)
APISpec("", "", "3.0.3", plugins=[_inlining_plugin])
assert _inlining_plugin.converter is not None  # `APISpec` has just made it.
_converter = _inlining_plugin.converter
_converter.add_parameter_attribute_function(
    lambda _converter, field, **_: (
        {"explode": False} if getattr(field, "is_multiple", None) is False else {}
    )
)


def json_schema(schema: type[Schema], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Convert a marshmallow schema to one JSON schema without references.

    Args:
        left_out: the paths of fields that are not described.

    One that cannot be converted, such as one that contains itself, becomes `{"type": "object"}`.
    """
    try:
        shown = schema(exclude=left_out) if left_out else schema
        converted: dict[str, Any] = for_javascript(_converter.schema2jsonschema(shown))
    except Exception:  # An error in one plugin's schema must not hide the others.
        log.warning("schema_not_described", schema=schema.__name__, exc_info=True)
        return {"type": "object"}
    return converted


def query_parameters(schema: Schema) -> list[dict[str, Any]]:
    """Convert the schema of a query to parameters of the OpenAPI document."""
    converted = _converter.schema2parameters(schema, location="query")
    parameters: list[dict[str, Any]] = for_javascript(converted)
    return parameters


def for_javascript(node: Any) -> Any:
    """Rewrite the patterns of a JSON schema for JavaScript; leave out those it cannot read."""
    if isinstance(node, list):
        return [for_javascript(item) for item in node]
    if not isinstance(node, dict):
        return node
    converted = {key: for_javascript(value) for key, value in node.items()}
    if isinstance(converted.get("pattern"), str):
        pattern = converted["pattern"].replace(r"\Z", "$").replace(r"\A", "^")
        # marshmallow uses `re.match`, which begins at the start of a text.
        pattern = pattern if pattern.startswith("^") else f"^(?:{pattern})"
        converted["pattern"] = pattern
        if PYTHON_ONLY.search(pattern):
            del converted["pattern"]
    return converted
