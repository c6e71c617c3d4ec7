"""Analyzers that call a model service over HTTP: what every one of them needs, once.

A service of one's own is the best home for a heavy model: its packages, its memory and its crashes
stay outside Clustr.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import requests
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, validate

from clustr.domain import failure_messages, json_input
from clustr.domain.secrets import without_secrets
from clustr.plugins.analyzer import Analyzer, Context, Health, Image
from clustr.plugins.outcomes import ConfigError, Fail, Outcome, RetryLater
from clustr.plugins.sent_images import MAX_SIDE, as_sent

CONNECT_SECONDS = 2
HEALTH_SECONDS = 1.5
# The time that an analysis may take besides the call, such as to convert an image.
PREPARATION_SECONDS = 10
MAX_CONCURRENCY = 64
# The time that the call has to leave for parsing the answer.
PARSING_SECONDS = 1

SMALLEST_MAX_SIDE, LARGEST_MAX_SIDE = 64, 4096

REFUSED_ACCESS = (401, 403, 407)
# Nothing is at the address, or not what is called, or it has moved (RFC 9110).
WRONG_ADDRESS = (301, 302, 303, 307, 308, 404, 405, 410)
BUSY = (408, 425, 429, 503)
LONGEST_REASON = 500
LONGEST_SAID = 300
# Where services put what they have to say: FastAPI and BLIP, OpenAI and Ollama, others.
MESSAGE_KEYS = ("detail", "error", "message", "msg")
HTML_TAG = re.compile(r"<[^>]*>")
HTML_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html\b)", re.I | re.S
)
# For one image: the request, and changed ones after `check_answer` has asked for them.
MAX_REQUESTS = 3


class ServiceUrl(fields.String):
    """The address of a service, as a field of a configuration."""

    def __init__(self, **options: Any):
        address = validate.Regexp(
            r"https?://[^\s/?#]+(/[^\s?#]*)?\Z",
            error="expected an address such as http://localhost:8001",
        )
        super().__init__(validate=address, **options)


class HttpConfig(Schema):
    """What can be configured of a plugin with an `HttpAnalyzer`; to be subclassed for more.

    A plugin that knows where its service usually is says so:
    `service_url = ServiceUrl(load_default="http://localhost:8001")`. While nobody sets another
    address and nothing has ever answered there, its analyzers are not configured: they are asked
    nothing, and that is no trouble.
    """

    service_url = ServiceUrl(required=True, metadata={"description": "Where the service is"})
    timeout = fields.Float(
        load_default=60.0,
        validate=validate.Range(0.1, 600, error="expected seconds from 0.1 to 600"),
        metadata={"description": "Seconds that an answer may take in all"},
    )
    concurrency = fields.Integer(  # Without a default, results of releases before stay comparable.
        validate=validate.Range(1, MAX_CONCURRENCY, error=f"expected 1 to {MAX_CONCURRENCY}"),
        metadata={
            "description": "Calls that may be under way at a time, over all workers of all hosts"
        },
    )
    max_side = fields.Integer(
        validate=validate.Range(
            SMALLEST_MAX_SIDE,
            LARGEST_MAX_SIDE,
            error=f"expected {SMALLEST_MAX_SIDE} to {LARGEST_MAX_SIDE}",
        ),
        metadata={"description": "Pixels of the longer side of the copy that is sent"},
    )


class HttpAnalyzer(Analyzer):
    """Posts each image to a service and makes its answer the result.

    The image is posted to `<service_url><path>` as one part of a form. The answer is JSON in the
    shape of `answer_schema`; what else it has is ignored, also in the objects inside. A service
    that is away, too slow, busy or at fault makes the analysis wait until it is back
    (`RetryLater`); one that refuses access, or has nothing at that address, needs another
    configuration (`ConfigError`); any other refusal, or an answer that cannot be used, is the end
    of this analysis (`Fail`). A service with other habits is understood by `check_answer`.

    Attributes:
        service: what the service is called in reasons and in `/api/health`, such as `captioner`.
        path: what is called, such as `/caption`.
        health_path: what is asked for its health, such as `/health`.
        part: the name of the form's part that has the image.
        converts: whether a JPEG is sent that every service can read, as `as_sent` makes it;
            otherwise originals are sent as they are.
        max_side: pixels of the longer side of that JPEG; the configuration's `max_side` overrides
            it.
        answer_schema: a marshmallow schema; by default that of the results.
        largest_answer_bytes: of a larger answer the rest is not read, and it is a failure.
        concurrency: how many calls may be under way at a time, over all workers of all hosts; the
            configuration's `concurrency` overrides it. Above 1, `ask` runs in a thread beside
            others, while `build_request` and `parse` run one at a time in the main thread, each
            for ten seconds at most. An analyzer that overrides `analyze`, or has a `max_attempts`
            of 1, makes one call at a time in each worker.
        address: where the service is, without user, password and query.
        address_setting: the name of the setting that says so; Clustr sets it.

    Args:
        config: the plugin's configuration, in the shape of `HttpConfig`. Its `timeout` is a total
            in seconds for the call, from when it is sent; the analysis may take ten more. A
            `timeout` of the class is without effect.
    """

    queue = "http"
    service: str
    path: str = "/"
    health_path: str = "/health"
    part: str = "image"
    converts: bool = True
    max_side: int = MAX_SIDE
    answer_schema: type[Schema] | None = None
    largest_answer_bytes: int = 64 * 1024
    concurrency: int = 1
    address: str | None = None
    address_setting: str | None = None

    def __init__(self, config: Mapping[str, Any]):
        self.timeout = config["timeout"] + PREPARATION_SECONDS
        self.concurrency = config.get("concurrency") or self.concurrency
        self.max_side = config.get("max_side") or self.max_side
        self.address = failure_messages.without_credentials(config["service_url"])

    @property
    def described(self) -> str:
        """The service in a sentence: its name, its address and the setting that has the address."""
        address = f" at {self.address}" if self.address else ""
        setting = f" ({self.address_setting})" if self.address_setting else ""
        return f"The {self.service}{address}{setting}"

    def headers(self, context: Context) -> Mapping[str, str]:
        """Return headers for every request, the one for its health included.

        Override it to name oneself with `context.secrets`.
        """
        return {}

    def build_request(self, image: Image, context: Context) -> Mapping[str, Any]:
        """Return what is sent: arguments of `requests.post`, such as `files`, `data`, `headers`.

        Override it to send more than the image, or in another form.
        """
        return {"files": {self.part: as_sent(image, self.converts, self.max_side)}}

    def parse(self, answer: Any) -> dict[str, Any]:
        """Return the result that an answer means; it has been loaded by `answer_schema`.

        Raises:
            Skip, Fail, RetryLater, ConfigError: the answer means one of these.
        """
        result: dict[str, Any] = self.result_schema().dump(answer)
        return result

    def analyze(self, image: Image, context: Context) -> dict[str, Any]:
        request = self.build_request(image, context)
        return self.parse(self.understand(self.ask(request, context)))

    def check_answer(
        self, status: int, body: bytes, request: Mapping[str, Any]
    ) -> Outcome | Mapping[str, Any] | None:
        """Say what an answer means. Override it for a service that has habits of its own.

        It is called in the thread of the call.

        Args:
            status: the status of HTTP.
            body: up to `largest_answer_bytes` of it; `said_in(body)` is what it says.
            request: what was sent: the arguments of `requests.post`.

        Returns:
            None when the body can be parsed; an outcome, such as `RetryLater`, for the end of this
            attempt; or a changed request, which is sent in place of this one.
        """
        if status == requests.codes.ok:
            return None
        reason = self.refusal(status, body)
        if status in BUSY or status >= 500:
            return RetryLater(reason, busy=status in BUSY)
        if status in REFUSED_ACCESS or status in WRONG_ADDRESS:
            return ConfigError(reason)
        return Fail(reason)

    def refusal(self, status: int, body: bytes) -> str:
        """A sentence for an answer that cannot be used: whose it is, and what it says."""
        said = said_in(body)
        end = "" if said.endswith((".", "!", "?", "…")) else "."
        return f"{self.described} answered with status {status}{f': {said}' if said else ''}{end}"

    def ask(self, request: Mapping[str, Any], context: Context) -> bytes:
        """Post the request, also with changes that `check_answer` asks for; return the body.

        Raises:
            RetryLater: the service is away, busy or too slow, or has a fault of its own.
            Fail: it refuses the image, or its answer is too large.
            ConfigError: its address cannot be called, or it refuses access.
        """
        for _ in range(MAX_REQUESTS):
            status, after, body = self._post(request, context)
            meaning = self.check_answer(status, body, request)
            if meaning is None:
                return body
            if isinstance(meaning, RetryLater) and meaning.after is None:
                meaning.after = after
            if isinstance(meaning, Outcome):
                raise meaning
            request = meaning
        raise Fail(self.refusal(status, body))

    def _post(
        self, request: Mapping[str, Any], context: Context
    ) -> tuple[int, float | None, bytes]:
        """Post the request; return the status, the seconds of `Retry-After`, and the body."""
        url = f"{context.config['service_url'].rstrip('/')}{self.path}"
        seconds = min(context.config["timeout"], context.seconds_left() - PARSING_SECONDS)
        timeout = (CONNECT_SECONDS, max(0.1, seconds))
        headers = {**self.headers(context), **request.get("headers", {})}
        call = {**request, "headers": headers, "timeout": timeout, "stream": True}
        try:
            with context.http.post(url, **call) as response:
                # The header may also be a date; then Clustr decides when to try again.
                after = re.fullmatch(r"[0-9]{1,6}", response.headers.get("Retry-After", ""))
                is_refusal = response.status_code != requests.codes.ok
                body = self._read_body(response, may_be_cut=is_refusal)
                return response.status_code, float(after[0]) if after else None, body
        except requests.Timeout as error:
            reason = f"{self.described} did not answer in time, within {seconds:.3g} seconds."
            raise RetryLater(reason) from error
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise RetryLater(f"{self.described} cannot be reached.") from error
        except requests.exceptions.ContentDecodingError as error:
            raise Fail(f"The {self.service}'s answer cannot be unpacked.") from error
        except requests.RequestException as error:
            raise ConfigError(f"{self.described} cannot be called at this address.") from error

    def understand(self, body: bytes) -> Any:
        """The answer in a body, loaded by `answer_schema`.

        Raises:
            Fail: it is no JSON or has another shape; the reason names the fields.
            RetryLater: it is a page of HTML, which proxies send before a service that is ill.
        """
        schema = (self.answer_schema or self.result_schema)()
        try:
            # `json` accepts lone surrogates, which `parse` may clean; orjson does not.
            answer = json.loads(body)
            if not json_input.is_within_depth(answer, json_input.MAX_DEPTH):
                raise RecursionError
            _exclude_unknown_keys(schema, answer)
            return schema.load(answer, unknown=EXCLUDE)
        except ValidationError as error:
            wrong = "; ".join(_error_messages(error.normalized_messages()))[:LONGEST_REASON].rstrip(
                "."
            )
            raise Fail(f"The {self.service}'s answer has another shape: {wrong}.") from error
        except RecursionError as error:
            limit = f"at most {json_input.MAX_DEPTH} levels are allowed"
            raise Fail(f"The {self.service}'s answer is nested too deeply; {limit}.") from error
        except ValueError as error:
            if HTML_PAGE.match(body):
                raise RetryLater(self._page_of_proxy(body)) from error
            digits = "has a number of more than 4300 digits"
            raise Fail(f"The {self.service}'s answer is not JSON, or {digits}.") from error

    def _page_of_proxy(self, body: bytes) -> str:
        """A sentence for an answer that a proxy has given in place of a service that is ill."""
        said = said_in(body)
        page = f"{self.described} answered with a page for people, as a proxy does for it"
        return f"{page}: {said}" if said else f"{page}."

    def health(self, context: Context) -> Health:
        """What `GET <service_url><health_path>` answers: with 200 the service can be used."""
        where = context.config["service_url"]
        try:
            status, body = self._get_health(context)
        except requests.Timeout:
            detail = f"{self.described} does not answer within {HEALTH_SECONDS} seconds."
            return Health(self.service, False, detail, where, timed_out=True)
        except requests.RequestException:
            return Health(self.service, False, f"{self.described} cannot be reached.", where)
        if status != requests.codes.ok:
            return Health(self.service, False, self.refusal(status, body), where)
        return Health(self.service, True, url=where)

    def is_there(self, context: Context) -> bool:
        """Whether the service is there, and not another one that has its default address.

        `GET <service_url><health_path>` has to be answered with 200 and a JSON object whose
        `status` is `healthy`. Clustr asks that while no address of the service was ever set.
        """
        try:
            status, body = self._get_health(context)
            answer = json_input.loads(body)
        except (requests.RequestException, json_input.InvalidJSON):
            return False
        is_ok = status == requests.codes.ok
        return is_ok and isinstance(answer, dict) and answer.get("status") == "healthy"

    def _get_health(self, context: Context) -> tuple[int, bytes]:
        """Ask for the service's health; return the status and the body."""
        url = f"{context.config['service_url'].rstrip('/')}{self.health_path}"
        headers = self.headers(context)
        with context.http.get(
            url, headers=headers, timeout=HEALTH_SECONDS, stream=True
        ) as response:
            return response.status_code, self._read_body(response, may_be_cut=True)

    def _read_body(self, response: requests.Response, may_be_cut: bool) -> bytes:
        """Read the body up to the limit, also of a compressed body that expands far beyond it.

        Raises:
            Fail: it is larger, and may not be cut.
        """
        most, body = self.largest_answer_bytes, b""
        for chunk in response.iter_content(most + 1):
            body += chunk
            if len(body) > most:
                if may_be_cut:
                    break
                raise Fail(f"The {self.service}'s answer is larger than {most} bytes.")
        return body[:most]


def said_in(body: bytes) -> str:
    """What a service says in the body of an answer, in one line of at most 300 characters.

    That is `detail`, `error.message`, `error` or `message` of a JSON object, or else the body as
    text, without HTML tags and without Clustr's secrets. It is empty when nothing is said.
    """
    try:
        text = _message_in(json_input.loads(body))
    except json_input.InvalidJSON:
        text = HTML_TAG.sub(" ", body.decode("utf-8", "replace"))
    printable = "".join(c if c.isprintable() else " " for c in text)
    line = without_secrets(" ".join(printable.split()))
    return line if len(line) <= LONGEST_SAID else f"{line[: LONGEST_SAID - 1]}…"


def _message_in(value: Any) -> str:
    """The first text that is a message in the JSON of a refusal; empty if there is none."""
    if isinstance(value, list):
        return "; ".join(filter(None, map(_message_in, value)))
    if isinstance(value, dict):
        return next(filter(None, (_message_in(value.get(key)) for key in MESSAGE_KEYS)), "")
    return value if isinstance(value, str) else ""


def _exclude_unknown_keys(declared: Schema | fields.Field[Any], value: Any) -> None:
    """Have the schemas inside a schema ignore unknown keys, as far as a value reaches.

    marshmallow's `unknown=EXCLUDE` is for the outermost schema only. One that says itself what is
    to be done with unknown keys is left as it is. The value leads, for a schema may nest itself.
    """
    if isinstance(declared, fields.List) and isinstance(value, list):
        for inner in value:
            _exclude_unknown_keys(declared.inner, inner)
    elif isinstance(declared, fields.Dict) and isinstance(value, dict) and declared.value_field:
        for inner in value.values():
            _exclude_unknown_keys(declared.value_field, inner)
    elif isinstance(declared, fields.Nested):
        if declared.unknown is None and declared.schema.unknown == RAISE:
            declared.unknown = EXCLUDE
        for inner in value if isinstance(value, list) else [value]:
            _exclude_unknown_keys(declared.schema, inner)
    elif isinstance(declared, Schema) and isinstance(value, dict):
        for name, field in declared.fields.items():
            if (key := field.data_key or name) in value:
                _exclude_unknown_keys(field, value[key])


def _error_messages(messages: Any, name: str = "") -> Iterable[str]:
    """The errors of a schema, one text for each field; nested ones are like `boxes.0.left`."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from _error_messages(inner, f"{name}.{key}" if name else str(key))
    else:
        yield f"{name}: {' '.join(map(str, messages))}"
