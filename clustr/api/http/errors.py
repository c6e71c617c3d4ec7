"""Errors as problem documents (RFC 9457), with the table that maps each error to a status."""

import http
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from threading import Lock
from typing import Any
from urllib.parse import quote

import flask_smorest
from apispec.ext.marshmallow import MarshmallowPlugin, resolver
from flask import Flask, Response, current_app, g, redirect, request
from flask_smorest import Blueprint
from flask_smorest.utils import prepare_response
from gunicorn.http.errors import NoMoreData, ParseException
from werkzeug import Response as BaseResponse
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
)

from clustr import logs
from clustr.api.http.json_schema import for_javascript
from clustr.api.http.problem_schema import ProblemSchema
from clustr.api.http.request_context import request_id
from clustr.api.http.service_addresses import without_addresses
from clustr.domain import errors, failure_messages
from clustr.domain.access import needs
from clustr.domain.quotas import REQUESTS, Quota, Standing

log = logs.logger(__name__)

# marshmallow's key for errors of a whole object, and our names for webargs' locations.
SCHEMA_KEY = "_schema"
LOCATION_NAMES = {"json": "body"}

# Appended to messages of marshmallow that do not say what is allowed.
EXPECTATIONS = {
    "Not a valid boolean.": " Expected true or false.",
    "Not a valid integer.": " Expected a whole number, such as 20.",
    "Not a valid number.": " Expected a number, such as 0.5.",
    "Not a valid string.": " Expected a text.",
    "Not a valid list.": " Expected a list, in brackets: […].",
    "Field may not be null.": " Give a value, or leave the field out.",
    "Invalid JSON body.": " Send JSON (RFC 8259) in UTF-8.",
}

PROBLEM_CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "5"
# Limits on what a problem document repeats: a body can have any number of errors, of any depth.
MAX_LISTED_ERRORS = 100
LONGEST_NAME = 200
MAX_DEPTH = 5


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """The status of an error, and the name and title of its problem document."""

    status: int
    name: str
    title: str


DATABASE_UNAVAILABLE = ErrorRow(503, "database_unavailable", "Database unavailable")

# A domain error without a row would be answered with 500; a test checks that each has one.
ERROR_TABLE: dict[type[errors.ClustrError], ErrorRow] = {
    errors.InvalidInput: ErrorRow(422, "invalid_input", "Invalid input"),
    errors.NotFound: ErrorRow(404, "not_found", "Not found"),
    errors.InTrash: ErrorRow(404, "in_trash", "In the trash"),
    errors.ForeignRecord: ErrorRow(404, "foreign_record", "Foreign record"),
    errors.MalformedHost: ErrorRow(400, "malformed_host", "Malformed host"),
    errors.HostNotAllowed: ErrorRow(421, "host_not_allowed", "Host not allowed"),
    errors.OriginNotAllowed: ErrorRow(403, "origin_not_allowed", "Origin not allowed"),
    errors.KeyRequired: ErrorRow(401, "key_required", "Key required"),
    errors.KeyMistyped: ErrorRow(401, "key_mistyped", "Key mistyped"),
    errors.KeyRefused: ErrorRow(401, "key_refused", "Key refused"),
    errors.KeyExpired: ErrorRow(401, "key_expired", "Key expired"),
    errors.SessionEnded: ErrorRow(401, "session_ended", "Session ended"),
    errors.CsrfTokenRequired: ErrorRow(403, "csrf_token_required", "CSRF token required"),
    errors.TwoKeys: ErrorRow(400, "two_keys", "Two keys"),
    errors.AddressAltered: ErrorRow(403, "address_altered", "Address altered"),
    errors.AddressExpired: ErrorRow(403, "address_expired", "Address expired"),
    errors.AddressRevoked: ErrorRow(403, "address_revoked", "Address revoked"),
    errors.TooManyShares: ErrorRow(409, "too_many_shares", "Too many shares"),
    errors.MissingScope: ErrorRow(403, "missing_scope", "Missing scope"),
    errors.QuotaExceeded: ErrorRow(429, "quota_exceeded", "Quota exceeded"),
    errors.LargerThanQuota: ErrorRow(413, "larger_than_quota", "Larger than the quota"),
    errors.TooManyAtOnce: ErrorRow(429, "too_many_at_once", "Too many at once"),
    errors.NameTaken: ErrorRow(409, "name_taken", "Name taken"),
    errors.PluginNotLoaded: ErrorRow(404, "plugin_not_loaded", "Plugin not loaded"),
    errors.NoResult: ErrorRow(404, "no_result", "No result"),
    errors.NotJson: ErrorRow(415, "not_json", "Not JSON"),
    errors.BeingAnswered: ErrorRow(409, "being_answered", "Being answered"),
    errors.Outdated: ErrorRow(412, "outdated", "Outdated"),
    errors.UnderWay: ErrorRow(409, "under_way", "Under way"),
    errors.NotConfigured: ErrorRow(409, "not_configured", "Not configured"),
    errors.DatabaseUnavailable: DATABASE_UNAVAILABLE,
    errors.DatabaseRefused: DATABASE_UNAVAILABLE,
    errors.KeyNotChecked: DATABASE_UNAVAILABLE,
    errors.TooSlow: ErrorRow(503, "too_slow", "Too slow"),
    errors.MalformedBody: ErrorRow(400, "malformed_body", "Malformed body"),
    errors.TooBusy: ErrorRow(503, "too_busy", "Too busy"),
    errors.TooManyJobs: ErrorRow(503, "too_many_jobs", "Too many jobs"),
    errors.QueueUnavailable: ErrorRow(503, "queue_unavailable", "Queue unavailable"),
    errors.StorageFull: ErrorRow(507, "storage_full", "Storage full"),
    errors.StorageUnavailable: ErrorRow(503, "storage_unavailable", "Storage unavailable"),
    errors.BeingPrepared: ErrorRow(503, "being_prepared", "Being prepared"),
    errors.BeingMade: ErrorRow(503, "being_made", "Being made"),
    errors.MetadataNotRemovable: ErrorRow(422, "metadata_not_removable", "Metadata not removable"),
    errors.BeingRead: ErrorRow(503, "being_read", "Being read"),
    errors.UnsupportedType: ErrorRow(415, "unsupported_type", "Unsupported type"),
    errors.TooLarge: ErrorRow(413, "too_large", "File too large"),
    errors.TooManyPixels: ErrorRow(413, "too_many_pixels", "Too many pixels"),
    errors.Undecodable: ErrorRow(422, "undecodable", "Undecodable image"),
    errors.Empty: ErrorRow(422, "empty", "Empty file"),
    errors.NoFiles: ErrorRow(422, "no_files", "No files"),
}
ROWS_BY_NAME = {row.name: row for row in ERROR_TABLE.values()}
# They may quote why an analysis has failed or a plugin is not loaded.
QUOTING_PLUGINS = (errors.InvalidInput, errors.NoResult, errors.PluginNotLoaded)

# The example in the OpenAPI document for a status that several errors can have.
EXAMPLE_FIELD_ERRORS = {
    "limit": ["Must be greater than or equal to 1 and less than or equal to 100."]
}
EXAMPLE_STANDING = Standing(Quota(REQUESTS, "", 60, 60), True, 0, 12)
# The names of Python up to 3.12 and of werkzeug, so that the document is the same on every Python.
STATUS_NAMES = {
    413: ("REQUEST_ENTITY_TOO_LARGE", "Request Entity Too Large"),
    414: ("REQUEST_URI_TOO_LONG", "Request-URI Too Long"),
    416: ("REQUESTED_RANGE_NOT_SATISFIABLE", "Requested Range Not Satisfiable"),
    422: ("UNPROCESSABLE_ENTITY", "Unprocessable Entity"),
}
# What it calls them since, and flask-smorest then does where a plugin's routes take arguments.
NEW_NAMES = {
    "CONTENT_TOO_LARGE": 413,
    "URI_TOO_LONG": 414,
    "RANGE_NOT_SATISFIABLE": 416,
    "UNPROCESSABLE_CONTENT": 422,
}
EXAMPLE_ERRORS: dict[int, tuple[errors.ClustrError, dict[str, Any]]] = {
    401: (errors.KeyRequired(), {}),
    403: (errors.MissingScope(["uploads:read"]), {"missing_scopes": ["uploads:read"]}),
    409: (errors.BeingAnswered(), {}),
    404: (errors.NotFound("There is no upload with the id 692192f4e13f5a0c4d1b7a90."), {}),
    412: (errors.Outdated(), {}),
    415: (errors.NotJson("text/plain"), {}),
    422: (errors.InvalidInput(EXAMPLE_FIELD_ERRORS), {"errors": EXAMPLE_FIELD_ERRORS}),
    429: (errors.QuotaExceeded(EXAMPLE_STANDING), {}),
    503: (errors.DatabaseUnavailable(), {}),
    507: (errors.StorageFull(), {}),
}
# Where the title of one of several errors would say too little.
DESCRIPTIONS = {
    401: "The key is missing, or is not right",
    403: "The key lacks a scope, or the page is of an origin that is not allowed",
}
# Replaces werkzeug's descriptions, which address people with browsers.
DEFAULT_DETAILS = {
    400: "The request is malformed and cannot be read.",
    401: "The request has to say who sends it.",
    403: "The request is not allowed.",
    404: "There is nothing at this path.",
    405: "This method is not allowed here.",
    406: "The answer cannot be given in a type that the request accepts.",
    408: "The request took too long to arrive.",
    409: "The request does not go with how things are at this moment.",
    410: "What was here is gone for good.",
    411: "The request has to say how long its body is, with Content-Length.",
    412: "A condition of the request does not hold.",
    413: "The body of the request is too large.",
    414: "The address is too long.",
    415: "The body is of a type that is not read here.",
    416: "The file has none of the bytes that Range asks for.",
    422: "What was sent cannot be used.",
    429: "Too many requests have come of late; please try again later.",
    431: "A header of the request is too long.",
    501: "The request uses something that is not known here.",
    503: "This cannot be answered at the moment; please try again.",
}
EXAMPLE_REQUEST_ID = "7f2c9d0e5b1a4c3f8e6d7a9b0c1d2e3f"


class ProblemApi(flask_smorest.Api):
    """flask-smorest's Api with problem documents for all errors.

    Attributes:
        complete_document: changes the OpenAPI document once all routes are known, and returns it.
    """

    ERROR_SCHEMA = ProblemSchema

    def __init__(self, app: Flask, spec_kwargs: dict[str, Any] | None = None):
        self._schema_prefix = ""
        self._undescribed: list[tuple[Blueprint, str, str]] = []
        self._document: dict[str, Any] | None = None
        self._document_lock = Lock()
        self.complete_document: Callable[[dict[str, Any]], dict[str, Any]] = lambda document: (
            document
        )
        plugin = MarshmallowPlugin(schema_name_resolver=self._name_of_schema)
        super().__init__(app, spec_kwargs={**(spec_kwargs or {}), "marshmallow_plugin": plugin})

    def register_blueprint(self, blp: Blueprint, **options: Any) -> None:
        """Register a blueprint with the app, as flask-smorest does, but describe it in `describe`.

        Most processes are never asked for the document, and half of the time in which an app is
        built would go into the description of its routes.
        """
        name = options.get("name", blp.name)
        self._app.extensions["flask-smorest"]["blp_name_to_api"][name] = self
        self._app.register_blueprint(blp, **options)
        self._undescribed.append((blp, name, self._schema_prefix))

    def describe(self) -> dict[str, Any]:
        """Describe all routes, and return the OpenAPI document before it is completed."""
        self._describe_problems()
        for blueprint, name, prefix in self._undescribed:
            self._schema_prefix = prefix
            blueprint.register_views_in_doc(self, self._app, self.spec, name=name, parameters=None)
            self.spec.tag({"name": name, "description": blueprint.description})
        self._undescribed.clear()
        for name in ("UNAUTHORIZED", "FORBIDDEN"):  # every operation refers to them
            self.spec.components.get_ref("response", name)
        self._schema_prefix = ""
        document: dict[str, Any] = self.spec.to_dict()
        return document

    @contextmanager
    def prefix_schema_names(self, plugin: str) -> Iterator[None]:
        """Begin the names of schemas that are registered in the block with the plugin's."""
        self._schema_prefix = f"{plugin}_"
        try:
            yield
        finally:
            self._schema_prefix = ""

    def _name_of_schema(self, schema: Any) -> str:
        return self._schema_prefix + resolver(schema)

    @property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document, built once for the life of the process.

        The lock lets only one thread build it, because it is completed in place;
        `functools.cached_property` has had no lock since Python 3.12.
        """
        with self._document_lock:
            if self._document is None:
                self._document = for_javascript(self.complete_document(self.describe()))
            return self._document

    @needs()
    def _openapi_json(self) -> Response:
        # Behind a proxy that adds a prefix, clients must put it before every path.
        servers = [{"url": request.script_root or "/"}]
        body = current_app.json.dumps({**self.document, "servers": servers})
        return Response(body, mimetype="application/json")

    def _register_error_handlers(self) -> None:
        self._app.register_error_handler(errors.ClustrError, handle_clustr_error)
        self._app.register_error_handler(HTTPException, handle_http_exception)
        for unreadable in (ParseException, NoMoreData):
            self._app.register_error_handler(unreadable, handle_malformed_body)
        self._app.register_error_handler(Exception, handle_fault)

    def _describe_problems(self) -> None:
        for status in http.HTTPStatus:
            if status >= 400:
                self._register_problem(*name_and_phrase_of(status), status)
        get_ref = self.spec.components.get_ref

        def get_ref_by_either_name(kind: str, named: Any) -> dict[str, Any]:
            if kind == "response" and isinstance(named, str) and named in NEW_NAMES:
                named = STATUS_NAMES[NEW_NAMES[named]][0]
            reference: dict[str, Any] = get_ref(kind, named)
            return reference

        self.spec.components.get_ref = get_ref_by_either_name
        self._register_problem("DEFAULT_ERROR", "Any other error", http.HTTPStatus(500))

    def _register_responses(self) -> None:
        """Register none when the app is built: `describe` does."""

    def _register_etag_headers(self) -> None:
        """Document no headers: flask-smorest's ETags and pagination are not used."""

    _register_pagination_header = _register_etag_headers

    def _register_problem(self, name: str, description: str, status: http.HTTPStatus) -> None:
        if status in EXAMPLE_ERRORS:
            error, more = EXAMPLE_ERRORS[status]
            body = example_problem(ERROR_TABLE[type(error)], str(error), "/api/uploads", **more)
            description = DESCRIPTIONS.get(status) or ERROR_TABLE[type(error)].title
        else:
            own_name, phrase = name_and_phrase_of(status)
            row = ErrorRow(status, own_name.lower(), phrase)
            body = example_problem(row, DEFAULT_DETAILS.get(status, f"{phrase}."), "/api/uploads")
        response = {"description": description, "schema": self.ERROR_SCHEMA, "example": body}
        prepare_response(response, self.spec, PROBLEM_CONTENT_TYPE)
        self.spec.components.response(name, response, lazy=True)


def name_and_phrase_of(status: http.HTTPStatus) -> tuple[str, str]:
    """Return the name of a response in the OpenAPI document, and HTTP's phrase for it."""
    return STATUS_NAMES.get(status, (status.name, status.phrase))


def document(
    row: ErrorRow, detail: str, instance: str, request_id: str, **more: Any
) -> dict[str, Any]:
    """Build a problem document."""
    return {
        "type": f"urn:clustr:problem:{row.name}",
        "title": row.title,
        "status": row.status,
        "detail": detail,
        "instance": instance,
        "request_id": request_id,
        **more,
    }


def example_problem(row: ErrorRow, detail: str, instance: str, **more: Any) -> dict[str, Any]:
    """Build a problem document as an example for the OpenAPI document."""
    return document(row, detail, instance, EXAMPLE_REQUEST_ID, **more)


def problem_response(row: ErrorRow, detail: str, **more: Any) -> Response:
    """Build the response for an error: a problem document (RFC 9457).

    Args:
        detail: one sentence for the person who called.
        more: further members of the document, such as `errors`.
    """
    body = document(row, detail, request.path, request_id(), **more)
    response = Response(problem_json(body), row.status, mimetype=PROBLEM_CONTENT_TYPE)
    if row.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def problem_json(body: dict[str, Any]) -> str:
    """Serialize a problem document; values that have no JSON are replaced by text."""
    try:
        return current_app.json.dumps(body)
    except (TypeError, ValueError, RecursionError):  # Such as a lone surrogate from a plugin.
        return current_app.json.dumps(_json_safe(body))


def _json_safe(value: Any, depth: int = 0) -> Any:
    if isinstance(value, bool | float | None):
        return value
    if depth < MAX_DEPTH and isinstance(value, dict):
        return {
            failure_messages.as_plain_text(key): _json_safe(item, depth + 1)
            for key, item in value.items()
        }
    if depth < MAX_DEPTH and isinstance(value, list | tuple):
        return [_json_safe(item, depth + 1) for item in value]
    is_short = isinstance(value, int) and value.bit_length() < 64
    return value if is_short else failure_messages.as_plain_text(value)


def handle_clustr_error(error: errors.ClustrError) -> Response:
    """Answer a domain error with the status of its row."""
    if isinstance(error, errors.InTrash) and "signed" in g:
        # Whoever has no key but an address cannot restore it, and need not know that somebody can.
        error = errors.NotFound(f"There is no upload with the id {error.upload_id}.")
    detail, more = str(error), dict[str, Any]()
    if isinstance(error, QUOTING_PLUGINS):
        detail = without_addresses(detail)
    if isinstance(error, errors.InvalidInput):
        more["errors"] = {
            name: [without_addresses(message) for message in messages]
            for name, messages in error.errors.items()
        }
    if isinstance(error, errors.InTrash):
        more["trashed_at"] = error.trashed_at
    if isinstance(error, errors.MissingScope):
        more["missing_scopes"] = error.scopes
    row = ERROR_TABLE[type(error)]
    response = problem_response(row, detail, **more)
    if challenge := _challenge(row, error):
        response.headers["WWW-Authenticate"] = challenge
    if isinstance(error, errors.QuotaExceeded):
        response.headers["Retry-After"] = str(ceil(error.standing.seconds))
    if isinstance(error, errors.TooManyAtOnce):
        response.headers["Retry-After"] = "1"
    return response


def _challenge(row: ErrorRow, error: errors.ClustrError) -> str | None:
    """What `WWW-Authenticate` says to a request whose key is missing or does not do (RFC 6750)."""
    if isinstance(error, errors.MissingScope):
        return f'Bearer error="insufficient_scope", scope="{" ".join(error.scopes)}"'
    if row.status != http.HTTPStatus.UNAUTHORIZED:
        return None
    is_missing = isinstance(error, errors.KeyRequired)
    return "Bearer" if is_missing else 'Bearer error="invalid_token"'


def handle_malformed_body(error: ParseException | NoMoreData) -> Response:
    """Answer what gunicorn raises while a malformed body is read."""
    log.info("body_malformed", reason=failure_messages.as_plain_text(error)[:LONGEST_NAME])
    return handle_clustr_error(errors.MalformedBody())


def handle_http_exception(error: HTTPException) -> BaseResponse:
    """Answer what Flask, werkzeug and webargs raise: 404, 405, 413, invalid arguments and so on."""
    if error.code is None or error.code < 400:  # Such as a redirect, which is a response already.
        return error.get_response()
    if isinstance(error, NotFound) and error is request.routing_exception:
        without_slash = path_without_slash()
        if without_slash:
            return redirect(without_slash, http.HTTPStatus.PERMANENT_REDIRECT)
    messages = getattr(error, "data", {}).get("messages")
    if messages:
        return handle_clustr_error(errors.InvalidInput(messages_by_field(messages)))
    name = error.name.lower().replace(" ", "_")
    row = ROWS_BY_NAME.get(name) or ErrorRow(error.code, name, error.name)
    response = problem_response(row, detail_of(error))
    for header, value in error.get_headers():
        if header.lower() not in ("content-type", "content-length"):
            response.headers[header] = value
    return response


def path_without_slash() -> str | None:
    """Return the redirect target when the path exists without its trailing slash, else None.

    The reference is relative to the requested path: so it needs no prefix of a proxy, and no path,
    such as `//elsewhere/`, can lead to another host.
    """
    path = request.path.removesuffix("/")
    if path == request.path:
        return None
    adapter = current_app.create_url_adapter(request)
    if adapter is None or not adapter.allowed_methods(path):
        return None
    query = request.query_string.decode("latin-1")
    name = quote(path.rpartition("/")[2])
    return f"../{name}?{query}" if query else f"../{name}"


def detail_of(error: HTTPException) -> str:
    """Return the text of an exception of Flask, werkzeug or a plugin, for the caller."""
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        allowed = ", ".join(sorted(error.valid_methods))
        return f"{request.method} is not allowed here; allowed are {allowed}."
    # A plugin's message from flask-smorest's `abort(409, message="...")`.
    message = getattr(error, "data", {}).get("message") or error.description
    if message and message != type(error).description:
        return str(message)
    if isinstance(error, RequestEntityTooLarge):
        max_size = failure_messages.format_size(current_app.config["MAX_CONTENT_LENGTH"])
        return f"The body of the request is larger than {max_size}, the most that is accepted here."
    return DEFAULT_DETAILS.get(error.code or 500, f"{error.name}.")


def messages_by_field(messages: dict[str, Any]) -> dict[str, list[str]]:
    """Flatten the messages of webargs by the name of the field; one in a list is `sha256.0`.

    webargs nests the names below the location, such as `query`, or has messages for the location
    itself. Messages of marshmallow for a whole object go under the object's name, or the location.
    At most `MAX_LISTED_ERRORS` fields are kept.
    """
    result: dict[str, list[str]] = {}

    def collect(location: str, names: tuple[str, ...], field_messages: Any) -> None:
        if isinstance(field_messages, dict):
            for inner, inner_messages in field_messages.items():
                collect(
                    location, names if inner == SCHEMA_KEY else (*names, str(inner)), inner_messages
                )
        elif len(result) < MAX_LISTED_ERRORS:
            field_messages = [field_messages] if isinstance(field_messages, str) else field_messages
            # A message may begin with the key that it is about: `score: Not a valid number.`
            texts = [
                f"{text}{EXPECTATIONS.get(text.rpartition(': ')[2], '')}" for text in field_messages
            ]
            result.setdefault((".".join(names) or location)[:LONGEST_NAME], []).extend(texts)

    for location, field_messages in messages.items():
        collect(LOCATION_NAMES.get(location, location), (), field_messages)
    return result


def handle_fault(error: Exception) -> Response:
    """Answer an unexpected exception with 500; its details go to the log alone."""
    log.error("fault", exc_info=error)
    detail = "Something went wrong on our side; the log has it under this request's id."
    return problem_response(ErrorRow(500, "fault", "Internal Server Error"), detail)
