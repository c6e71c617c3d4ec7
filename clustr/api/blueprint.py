"""flask-smorest's blueprint, a little stricter and with a name for every operation."""

from collections.abc import Callable
from typing import Any, ClassVar

import flask_smorest
from marshmallow import RAISE, Schema
from webargs.flaskparser import FlaskParser

from clustr.api.origins import SAFE_METHODS


class Parser(FlaskParser):
    """webargs' parser, told not to ignore what it does not know in a query."""

    DEFAULT_UNKNOWN_BY_LOCATION: ClassVar = {
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "query": RAISE,
    }


class Blueprint(flask_smorest.Blueprint):
    """A misspelt parameter is an error that says so: ignored, it would look as if it worked."""

    ARGUMENTS_PARSER = Parser()

    def arguments(self, schema: type[Schema], **options: Any) -> Callable[..., Any]:
        """Load arguments with one schema object, not with a new one for each request."""
        return super().arguments(schema(), **options)

    def alt_response(self, *args: Any, **options: Any) -> Callable[..., Any]:
        """Document an answer, without one more function to call around the view for each."""
        document = super().alt_response(*args, **options)

        def documented(view: Callable[..., Any]) -> Callable[..., Any]:
            view._apidoc = document(view)._apidoc
            return view

        return documented

    def route(self, rule: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        """Register a view, whose name also names the operation in clients that are generated."""
        register = super().route(rule, **options)
        describe = [self.alt_response(400, "BAD_REQUEST")]
        if not SAFE_METHODS.issuperset(options.get("methods", ("GET",))):
            describe.append(self.alt_response(403, "FORBIDDEN"))

        def documented(view: Callable[..., Any]) -> Any:
            view = self.doc(operationId=view.__name__)(view)
            for answer in describe:
                view = answer(view)
            return register(view)

        return documented
