"""Marshmallow schemas, such as those of plugins, as JSON schemas that others can read."""

import re
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from clustr import logs

log = logs.logger(__name__)

# Of patterns, what other languages do not know; a filter or a result of a plugin may have it.
PYTHON_ONLY = re.compile(r"\(\?[P#aiLmsux(]|\\[NaZ]|[*+?}]\+")
_inlining = MarshmallowPlugin(schema_name_resolver=lambda _schema: None)
APISpec("", "", "3.0.3", plugins=[_inlining])


def json_schema(schema: type[Schema]) -> dict[str, Any]:
    """A marshmallow schema as one JSON schema, with nothing referred to elsewhere.

    One that cannot be written down, such as one that contains itself, is just an object.
    """
    try:
        return for_javascript(_inlining.converter.schema2jsonschema(schema))
    except Exception:  # What a plugin's schema does must not take anybody else's from sight.
        log.warning("schema_not_described", schema=schema.__name__, exc_info=True)
        return {"type": "object"}


def query_parameters(schema: Schema) -> list[dict[str, Any]]:
    """What a query consists of, as parameters of the OpenAPI document."""
    return for_javascript(_inlining.converter.schema2parameters(schema, location="query"))


def for_javascript(node: Any) -> Any:
    """The schema, with patterns as others read them; what only Python understands is left out."""
    if isinstance(node, list):
        return [for_javascript(one) for one in node]
    if not isinstance(node, dict):
        return node
    written = {key: for_javascript(value) for key, value in node.items()}
    if isinstance(written.get("pattern"), str):
        pattern = written["pattern"].replace(r"\Z", "$").replace(r"\A", "^")
        # marshmallow begins to match at the start of a text.
        pattern = pattern if pattern.startswith("^") else f"^(?:{pattern})"
        written["pattern"] = pattern
        if PYTHON_ONLY.search(pattern):
            del written["pattern"]
    return written
