"""A caption and tags for an image, from a captioner such as BLIP that is called over HTTP.

The image is posted to `<service_url>/caption` as the one part `image` of a form. The answer is a
JSON object with `caption`, a text, and `tags`, a list of texts; what else it has is ignored.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import Schema

from clustr.plugins import (
    Analyzer,
    CaptionConfig,
    CaptionResult,
    Fail,
    HttpAnalyzer,
    ServiceUrl,
    clean_caption,
    clean_tags,
    hookimpl,
)


class BlipConfig(CaptionConfig):
    """What can be configured."""

    service_url = ServiceUrl(
        load_default="http://localhost:8001",
        metadata={
            "env": ("BLIP_SERVICE_URL", "BLIP_BASE_URL"),
            "description": "Where the captioner is",
            "started_by": "clustr captioner",
        },
    )


class Blip(HttpAnalyzer):
    """Asks the captioner."""

    name = "blip"
    version = 2
    result_schema = CaptionResult
    summary = "A caption and tags from the captioner"
    service = "captioner"
    path = "/caption"
    concurrency = 8
    fields: Mapping[str, str] = {"caption": "caption", "tags": "tags"}

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.cut_opening = config.get("cut_opening", True)

    def parse(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        caption = clean_caption(answer["caption"], self.cut_opening)
        if not caption:
            raise Fail("The captioner said nothing.")
        return {"caption": caption, "tags": clean_tags(answer["tags"])}


@hookimpl
def clustr_config_schema() -> type[Schema]:
    return BlipConfig


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Blip(config)]
