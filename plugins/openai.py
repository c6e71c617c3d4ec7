"""A caption and tags for an image, from a chat model that can see.

It speaks the protocol of OpenAI's chat completions, as Ollama, llama.cpp, LM Studio, vLLM, LocalAI
and paid services do. Each of them has habits of its own; what is done about them follows from their
users' public reports. Nothing is sent to anyone until a base URL is set.
"""

import ast
import base64
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from clustr.plugins import (
    Analyzer,
    CaptionConfig,
    CaptionResult,
    ConfigError,
    Context,
    Fail,
    HttpAnalyzer,
    Image,
    ModelResult,
    Outcome,
    ServiceUrl,
    as_sent,
    clean_caption,
    clean_tags,
    hookimpl,
    said_in,
)

PREFIX = "CLUSTR_PLUGIN__OPENAI__"
PROMPT = (
    "Describe this picture for a photo library, in {language}. Answer with nothing but a JSON "
    'object that has two members: "caption", one sentence that says what is to be seen, and '
    '"tags", a list of up to {max_tags} words for what is in it. Name only what is to be seen.'
)
# Of the shapes that servers can be told to answer in, this is the one that most know; LM Studio,
# for one, refuses `json_object`.
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "caption",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "caption": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["caption", "tags"],
            "additionalProperties": False,
        },
    },
}
# What limits the answer, by its older and its newer name.
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")
# How much room a model gets that thought until its limit and said nothing.
MORE_ROOM, LEAST_ROOM = 4, 4096

BAD_REQUEST, UNPROCESSABLE, PAYMENT_REQUIRED, NOT_FOUND = 400, 422, 402, 404
REFUSED_ACCESS = (401, 402, 403)
FORMAT_REFUSED = re.compile("response_format|json.?schema|structured|grammar|guided", re.IGNORECASE)
UNKNOWN_MODEL = re.compile(
    r"model.{0,200}(not found|not exist|unknown|invalid|not loaded|not support|is required"
    r"|not available)|(unknown|invalid|no such|no) model|try pulling|must provide a model",
    re.IGNORECASE | re.DOTALL,
)
THINKING = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
THOUGHT_END = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)
# Where an object may begin in an answer: so many braces are tried.
MOST_OBJECTS = 50
FENCE = re.compile(r"```\w*")


class TomlTable(fields.Dict):
    """A table of the file, or TOML in a text, as an environment variable has it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            try:
                value = tomllib.loads(value)
            except tomllib.TOMLDecodeError as error:
                raise ValidationError(f"expected TOML, such as top_p = 0.9: {error}") from error
        return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]


class OpenAIConfig(CaptionConfig):
    """What can be configured."""

    service_url = ServiceUrl(
        data_key="base_url",
        load_default=None,
        metadata={
            "description": "Where the chat server is, such as http://localhost:11434/v1 for "
            "Ollama; without it nothing is asked",
            "for_captions": "the address of a chat server whose model sees, such as "
            "http://localhost:11434/v1 for Ollama",
        },
    )
    model = fields.String(
        load_default="",
        metadata={"description": "The model's name, such as qwen2.5vl:7b; it has to see images"},
    )
    api_key = fields.String(
        load_default="", metadata={"secret": True, "description": "The key of a service with keys"}
    )
    prompt = fields.String(
        load_default=PROMPT,
        validate=validate.Length(1, 10_000),
        metadata={"description": "What it is asked; {language} and {max_tags} are filled in"},
    )
    language = fields.String(
        load_default="English",
        validate=validate.Length(1, 100),
        metadata={"description": "Of caption and tags"},
    )
    max_tags = fields.Integer(
        load_default=10,
        validate=validate.Range(0, 100),
        metadata={"description": "How many tags to keep at most"},
    )
    extra_body = TomlTable(
        keys=fields.String(),
        load_default=dict,
        metadata={"description": "More members of the request, such as temperature = 0.2"},
    )
    timeout = fields.Float(
        load_default=120.0,
        validate=validate.Range(0.1, 600, error="expected seconds from 0.1 to 600"),
        metadata={"description": "Seconds that an answer may take in all, with loading the model"},
    )


class ChatCompletion(Schema):
    """What a server answers, as far as it is read."""

    class Meta:
        unknown = EXCLUDE

    choices = fields.List(fields.Dict(), required=True, validate=validate.Length(min=1))
    model = fields.Raw(load_default=None, allow_none=True)
    usage = fields.Raw(load_default=None, allow_none=True)


class OpenAI(HttpAnalyzer):
    """Asks a chat model."""

    name = "openai"
    version = 1
    result_schema = CaptionResult
    summary = "A caption and tags from a chat model that sees"
    service = "captioner"
    path = "/chat/completions"
    health_path = "/models"
    answer_schema = ChatCompletion
    largest_answer_bytes = 1024 * 1024  # Some models think aloud.
    concurrency = 4
    fields: Mapping[str, str] = {"caption": "caption", "tags": "tags"}

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self._config = config
        self._takes_format = True

    def headers(self, context: Context) -> Mapping[str, str]:
        key = context.secrets.get("api_key")
        return {"Authorization": f"Bearer {key}"} if key else {}

    def model_info(self, context: Context) -> Mapping[str, Any]:
        return {"name": self._config["model"]} if self._config["model"] else {}

    def build_request(self, image: Image, context: Context) -> Mapping[str, Any]:
        _, content, content_type = as_sent(image, max_side=self.max_side)
        url = f"data:{content_type};base64,{base64.b64encode(content).decode()}"
        question = self._config["prompt"].replace("{language}", self._config["language"])
        question = question.replace("{max_tags}", str(self._config["max_tags"]))
        parts = [
            {"type": "text", "text": question},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        body: dict[str, Any] = {"messages": [{"role": "user", "content": parts}]}
        if self._config["model"]:
            body["model"] = self._config["model"]
        if self._takes_format:
            body["response_format"] = RESPONSE_FORMAT
        return {"json": {**body, **self._config["extra_body"]}}

    def check_answer(
        self, status: int, body: bytes, request: Mapping[str, Any]
    ) -> Outcome | Mapping[str, Any] | None:
        if status != 200:
            return self._check_refusal(status, body, request)
        answer = _json_object(body)
        if answer.get("error") and not answer.get("choices"):  # LM Studio and OpenRouter do so.
            error = answer["error"]
            code = error.get("code") if isinstance(error, dict) else None
            means = code if isinstance(code, int) and 400 <= code < 600 else 500
            return self._check_refusal(means, body, request)
        if "response_format" not in request["json"]:
            self._takes_format = False
        return self._with_more_room(answer, request)

    def _check_refusal(
        self, status: int, body: bytes, request: Mapping[str, Any]
    ) -> Outcome | Mapping[str, Any] | None:
        sent, said = request["json"], said_in(body)
        refusal = self.refusal(status, body)
        if status in REFUSED_ACCESS:
            return ConfigError(f"{refusal} Set {PREFIX}API_KEY to a key that it takes.")
        is_refused = status in (BAD_REQUEST, UNPROCESSABLE)
        if (is_refused or status == NOT_FOUND or status >= 500) and UNKNOWN_MODEL.search(said):
            pull = " With Ollama, `ollama pull` gets it." if "pull" in said else ""
            return ConfigError(f"{refusal} Set {PREFIX}MODEL to a model that it has.{pull}")
        if status == NOT_FOUND:
            return ConfigError(f"{refusal} The address usually ends in /v1.")
        old, new = TOKEN_LIMITS
        if is_refused and old in sent and old in said:
            renamed = {name: value for name, value in sent.items() if name != old}
            return {"json": {**renamed, new: sent[old]}}
        if "response_format" in sent and (is_refused or FORMAT_REFUSED.search(said)):
            return {"json": {k: value for k, value in sent.items() if k != "response_format"}}
        return super().check_answer(status, body, request)

    def _with_more_room(
        self, answer: Mapping[str, Any], request: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """The request with more room for the answer, if the model came to no end in what it had."""
        sent, configured = request["json"], self._config["extra_body"]
        limit = next((name for name in TOKEN_LIMITS if name in sent), TOKEN_LIMITS[0])
        room = sent.get(limit)
        had = next((configured[name] for name in TOKEN_LIMITS if name in configured), None)
        if room != had or not _ran_out(answer):
            return None
        more = max(LEAST_ROOM, MORE_ROOM * room if isinstance(room, int) else 0)
        return {"json": {**sent, limit: more}}

    def parse(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        choice = answer["choices"][0]
        message = choice.get("message")
        if not isinstance(message, dict):
            raise Fail("The captioner's answer has no message.")
        if message.get("refusal"):
            raise Fail(f"The captioner refused: {clean_caption(str(message['refusal']))}")
        if _ran_out(answer):
            raise Fail(
                "The captioner thought until its limit of tokens and said nothing; give it more "
                f"with max_tokens in {PREFIX}EXTRA_BODY, or take a model that thinks less."
            )
        found = words_in(text_of(message.get("content")))
        if found is None:
            if choice.get("finish_reason") == "content_filter":
                raise Fail("The captioner's filter of contents kept its answer back.")
            raise Fail("The captioner said nothing.")
        caption, tags = found
        cleaned = clean_caption(caption, self._config["cut_opening"])
        if not cleaned:
            raise Fail("The captioner said nothing.")
        result = {"caption": cleaned, "tags": clean_tags(tags, self._config["max_tags"])}
        return ModelResult(result, model=_model_of(answer))


def text_of(content: Any) -> str:
    """The text of a message, which may come in parts, without what the model thought aloud."""
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        content = "".join(part for part in parts if isinstance(part, str))
    text = content if isinstance(content, str) else ""
    # Templates may open the block of thoughts before the answer begins.
    return THOUGHT_END.split(THINKING.sub("", text))[-1].strip()


def words_in(text: str) -> tuple[str, list[str]] | None:
    """The caption and tags in an answer: in JSON, with whatever around; or plain words.

    None when there is neither.
    """
    for found in _captions_in(text):
        tags = found.get("tags")
        if isinstance(tags, str):
            tags = re.split("[,;]", tags)
        tags = tags if isinstance(tags, list) else []
        return found["caption"], [tag for tag in tags if isinstance(tag, str)]
    return (text, []) if text and "{" not in text else None


def _captions_in(text: str) -> Iterator[dict[str, Any]]:
    """The objects with a caption in a text, in JSON or, as some models write, in Python."""
    text = FENCE.sub("", text)
    decoder = json.JSONDecoder(strict=False)
    for begin in (found.start() for found in islice(re.finditer("{", text), MOST_OBJECTS)):
        try:
            value, _ = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            end = text.rfind("}") + 1
            try:
                value = ast.literal_eval(text[begin:end])
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
        if isinstance(value, dict) and isinstance(value.get("caption"), str):
            yield value


def _ran_out(answer: Mapping[str, Any]) -> bool:
    """Whether the model came to its limit of tokens before it had said something whole."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or choice.get("finish_reason") != "length":
        return False
    message = choice.get("message")
    text = text_of(message.get("content") if isinstance(message, dict) else "")
    return next(_captions_in(text), None) is None


def _model_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The model that answered, as it calls itself, and the tokens it took."""
    model = {"name": answer["model"]} if isinstance(answer["model"], str) else {}
    usage = answer["usage"] if isinstance(answer["usage"], dict) else {}
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    return model | {name: usage[name] for name in counts if isinstance(usage.get(name), int)}


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


@hookimpl
def clustr_config_schema() -> type[Schema]:
    return OpenAIConfig


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [OpenAI(config)] if config["service_url"] else []
