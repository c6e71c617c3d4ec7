"""A caption and tags for an image, from a captioner such as BLIP that is called over HTTP.

The image is posted to `<service_url>/caption` as the one part `image` of a form. The answer is a
JSON object with `caption`, a text, and `tags`, a list of texts; what else it has is ignored.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import Schema, fields

from clustr.plugins import Analyzer, Fail, HttpAnalyzer, HttpConfig, ServiceUrl, hookimpl

LONGEST_CAPTION = 1000
MOST_TAGS = 100
LONGEST_TAG = 100

# What embeds, overrides or isolates a direction (UAX #9), and so turns the text around it.
TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class BlipConfig(HttpConfig):
    """What can be configured."""

    service_url = ServiceUrl(
        load_default="http://localhost:8001",
        metadata={
            "env": ("BLIP_SERVICE_URL", "BLIP_BASE_URL"),
            "description": "Where the captioner is",
        },
    )


class BlipResult(Schema):
    """What the captioner answers, and what is stored of it."""

    caption = fields.String(
        required=True, metadata={"description": "One line that says what is to be seen"}
    )
    tags = fields.List(
        fields.String(), required=True, metadata={"description": "Words for what is to be seen"}
    )


class Blip(HttpAnalyzer):
    """Asks the captioner."""

    name = "blip"
    version = 1
    result_schema = BlipResult
    summary = "A caption and tags from the captioner"
    service = "captioner"
    path = "/caption"
    concurrency = 8
    fields: Mapping[str, str] = {"caption": "caption", "tags": "tags"}

    def parse(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        caption = clean(answer["caption"], LONGEST_CAPTION)
        if not caption:
            raise Fail("The captioner said nothing.")
        tags = (clean(tag, LONGEST_TAG) for tag in answer["tags"])
        return {
            "caption": caption,
            "tags": list(dict.fromkeys(filter(None, tags)))[:MOST_TAGS],
        }


def clean(text: str, length: int) -> str:
    """One line of at most `length` characters that are text.

    That is without control characters, halves, and what turns the text around it; direction marks
    and joiners stay.
    """
    kept = (c for c in text if c.isspace() or is_text(c))
    return " ".join("".join(kept).split())[:length].rstrip()


def is_text(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs") and character not in TURNS


@hookimpl
def clustr_config_schema() -> type[Schema]:
    return BlipConfig


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Blip(config)]
