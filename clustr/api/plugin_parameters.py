"""Refuses query parameters that a route of a plugin does not declare, as Clustr's own routes do."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from flask import request
from marshmallow import INCLUDE, Schema

from clustr.domain import failure_messages
from clustr.domain.errors import InvalidInput

MAX_ERRORS = 5


def refuse_unknown_parameters(view: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a view so that it is not called with query parameters that it does not declare.

    Views that declare none, and those with a schema that includes unknown ones, get all of them.
    """

    @functools.wraps(view)
    def checked(*arguments: Any, **named: Any) -> Any:
        schemas = [*_query_schemas(_function_of(view))]
        if schemas and not any(schema.unknown == INCLUDE for schema in schemas):
            known = [
                field.data_key or name
                for schema in schemas
                for name, field in schema.fields.items()
            ]
            unknown = [name for name in request.args if name not in known]
            if unknown:
                raise InvalidInput(
                    {
                        name: [failure_messages.unknown_name("parameter", name, known)]
                        for name in unknown[:MAX_ERRORS]
                    }
                )
        return view(*arguments, **named)

    return checked


def _function_of(view: Callable[..., Any]) -> Callable[..., Any]:
    """The function that answers this request: a view, or a method of a class of views."""
    view_class = getattr(view, "view_class", None)
    method = request.method.lower()
    return getattr(view_class, method, view) if view_class else view


def _query_schemas(function: Callable[..., Any]) -> Iterator[Schema]:
    """The schemas of the query parameters that flask-smorest's decorators declare."""
    documented = getattr(function, "_apidoc", {})
    for parameters in documented.get("arguments", {}).get("parameters", ()):
        if parameters.get("in") == "query":
            schema = parameters["schema"]
            yield schema() if isinstance(schema, type) else schema
