"""flask-smorest's blueprint, a little stricter and with a name for every operation."""

from collections.abc import Callable
from typing import Any, ClassVar

import flask_smorest
from flask import Request
from marshmallow import RAISE, Schema, ValidationError
from webargs.core import missing
from webargs.flaskparser import FlaskParser, is_json_request
from werkzeug.exceptions import RequestEntityTooLarge

from clustr.api.http.origins import SAFE_METHODS
from clustr.domain import failure_messages, json_input
from clustr.domain.errors import InvalidInput, NotJson


class Parser(FlaskParser):
    """webargs' parser, told not to ignore what it does not know in a query.

    It reads JSON within the limits of all JSON from outside.
    """

    DEFAULT_UNKNOWN_BY_LOCATION: ClassVar = {
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "query": RAISE,
    }

    def _raw_load_json(self, req: Request) -> Any:
        if not is_json_request(req):
            # To take what is sent in another type for nothing would be to answer beside the point.
            if req.mimetype or req.get_data():
                raise NotJson(req.mimetype)
            return missing
        body = req.get_data()
        most_bytes = req.max_content_length
        # Of a body in chunks werkzeug reads no more than is allowed, and does not say so.
        if req.content_length is None and most_bytes and len(body) >= most_bytes:
            raise RequestEntityTooLarge
        try:
            return json_input.loads(body) if body else missing
        except json_input.InvalidJSON as error:
            raise InvalidInput({"body": [str(error)]}) from None

    def handle_error(
        self, error: ValidationError, req: Request, schema: Schema, **more: Any
    ) -> Any:
        """Say of names that are unknown which there are."""
        for said in error.messages.values():
            if not isinstance(said, dict):
                continue
            unknown = [schema.error_messages["unknown"]]
            for name in [name for name, one in said.items() if one == unknown]:
                known = [field.data_key or key for key, field in schema.fields.items()]
                said[name] = [failure_messages.unknown_name("parameter", name, known)]
        super().handle_error(error, req, schema, **more)


class Blueprint(flask_smorest.Blueprint):
    """A misspelt parameter is an error that says so: ignored, it would look as if it worked."""

    ARGUMENTS_PARSER = Parser()

    def arguments(self, schema: type[Schema], **options: Any) -> Callable[..., Any]:
        """Load arguments with one schema object, not with a new one for each request."""
        load = self._named(super().arguments(schema(), **options))
        if options.get("location", "json") != "json":
            return load
        not_json = self.alt_response(415, "UNSUPPORTED_MEDIA_TYPE")
        too_large = self.alt_response(413, "REQUEST_ENTITY_TOO_LARGE")
        return lambda view: too_large(not_json(load(view)))

    @staticmethod
    def _named(load: Callable[..., Any]) -> Callable[..., Any]:
        """Refer to the answer for wrong arguments by our name; flask-smorest's is up to Python."""

        def named(view: Callable[..., Any]) -> Callable[..., Any]:
            loading = load(view)
            loading._apidoc["arguments"]["responses"][422] = "UNPROCESSABLE_ENTITY"
            return loading

        return named

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
