"""Calling the analyzer `blip` in tests, as the worker does."""

import time
from pathlib import Path
from typing import Any

import structlog
from analyzer_images import analyzer_image
from blip_stand_in import BlipStandIn
from clustr_plugins import blip as plugin

from clustr.analysis.http_session import Session
from clustr.plugins import CaptionResult, Context


class Caller:
    """Calls the analyzer as the worker does, with one session for all images."""

    def __init__(self, folder: Path, http: Session, captioner: BlipStandIn):
        self.folder = folder
        self.http = http
        self.captioner = captioner
        self.given: dict[str, Any] = {"service_url": captioner.url}

    def context(self) -> Context:
        config = plugin.BlipConfig().load(self.given)
        log = structlog.stdlib.get_logger()
        return Context(config, {}, log, self.http, time.monotonic() + 60, self.folder)

    def analyzer(self) -> plugin.Blip:
        (analyzer,) = plugin.clustr_register_analyzers(config=self.context().config)
        return analyzer

    def analyze(self, content: bytes, extension: str = "jpg") -> dict[str, Any]:
        image = analyzer_image(self.folder, content, extension)
        result = self.analyzer().analyze(image, self.context())
        assert CaptionResult().load(result) == result
        return result

    def health(self):
        return self.analyzer().health(self.context())
