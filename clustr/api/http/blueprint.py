"""flask-smorest's blueprint, stricter about parameters and with an id for every operation."""

from collections.abc import Callable
from typing import Any, cast

import flask_smorest
from flask import Request
from marshmallow import RAISE, Schema, ValidationError
from webargs.core import missing
from webargs.flaskparser import FlaskParser, is_json_request
from werkzeug.exceptions import RequestEntityTooLarge

from clustr.api.http.routing import PATH_OF_UPLOAD
from clustr.api.http.urls import MOVED_RESPONSE
from clustr.domain import failure_messages, json_input
from clustr.domain.access import Scope
from clustr.domain.access import needs as mark_needs
from clustr.domain.errors import InvalidInput, NotJson


class Parser(FlaskParser):
    """webargs' parser, which refuses unknown query parameters.

    It parses JSON with `clustr.domain.json_input`, which has the limits for all foreign JSON.
    """

    DEFAULT_UNKNOWN_BY_LOCATION = FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION | {"query": RAISE}

    def _raw_load_json(self, req: Request) -> Any:
        if not is_json_request(req):
            # webargs would treat a body of another type as if there were none.
            if req.mimetype or req.get_data():
                raise NotJson(req.mimetype)
            return missing
        body = req.get_data()
        max_bytes = req.max_content_length
        # werkzeug silently cuts off a chunked body at the limit.
        if req.content_length is None and max_bytes and len(body) >= max_bytes:
            raise RequestEntityTooLarge
        try:
            return json_input.loads(body) if body else missing
        except json_input.InvalidJSON as error:
            raise InvalidInput({"body": [str(error)]}) from None

    def handle_error(
        self, error: ValidationError, req: Request, schema: Schema, **more: Any
    ) -> Any:
        """List the known names in the error for an unknown one."""
        for messages in error.messages_dict.values():
            if not isinstance(messages, dict):
                continue
            unknown = [schema.error_messages["unknown"]]
            for name in [name for name, message in messages.items() if message == unknown]:
                known = [field.data_key or key for key, field in schema.fields.items()]
                messages[name] = [failure_messages.unknown_name("parameter", name, known)]
        super().handle_error(error, req, schema, **more)


class Blueprint(flask_smorest.Blueprint):
    """A blueprint that refuses misspelt parameters, which would otherwise have no effect."""

    ARGUMENTS_PARSER = Parser()

    def arguments(self, schema: type[Schema], **options: Any) -> Callable[..., Any]:
        """Load arguments with one schema object instead of a new one for each request."""
        load = self._name_error_response(super().arguments(schema(), **options))
        if options.get("location", "json") != "json":
            return load
        not_json = self.alt_response(415, "UNSUPPORTED_MEDIA_TYPE")
        too_large = self.alt_response(413, "REQUEST_ENTITY_TOO_LARGE")
        return lambda view: too_large(not_json(load(view)))

    @staticmethod
    def _name_error_response(load: Callable[..., Any]) -> Callable[..., Any]:
        """Name the 422 response; the name that flask-smorest uses depends on Python's version."""

        def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
            view_with_arguments: Any = load(view)
            view_with_arguments._apidoc["arguments"]["responses"][422] = "UNPROCESSABLE_ENTITY"
            return cast("Callable[..., Any]", view_with_arguments)

        return decorate

    def alt_response(self, *args: Any, **options: Any) -> Callable[..., Any]:
        """Document a response without wrapping the view in one more function."""
        document = super().alt_response(*args, **options)

        def decorate(view: Any) -> Any:
            view._apidoc = document(view)._apidoc
            return view

        return decorate

    def route(
        self,
        rule: str,
        *,
        needs: Scope | frozenset[Scope],
        or_signed: bool = False,
        **options: Any,
    ) -> Callable[[Callable[..., Any]], Any]:
        """Register a view; its name becomes the `operationId`, which generated clients use.

        Args:
            needs: the scope that a request needs, or those of which it needs one.
            or_signed: whether a signed address will do as well.
        """
        mark = mark_needs(*([needs] if isinstance(needs, Scope) else needs))
        register = super().route(rule, **options)
        response_decorators = [
            self.alt_response(400, "BAD_REQUEST"),
            self.alt_response(429, "TOO_MANY_REQUESTS"),
        ]
        if f"{self.url_prefix or ''}{rule}".startswith(PATH_OF_UPLOAD):
            response_decorators.append(self.alt_response(308, **MOVED_RESPONSE))

        def decorate(view: Callable[..., Any]) -> Any:
            view = self.doc(operationId=view.__name__)(mark(view))
            view.clustr_takes_signature = or_signed  # type: ignore[attr-defined]
            for add_response in response_decorators:
                view = add_response(view)
            return register(view)

        return decorate
