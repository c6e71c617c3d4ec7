"""Calling the analyzer `blip` in tests, as the worker does."""

import hashlib
import time
from pathlib import Path
from typing import Any

import photographs
import PIL.Image
import structlog
from blip_stand_in import BlipStandIn
from clustr_plugins import blip as plugin

from clustr.analysis.http_session import Session
from clustr.plugins import Context, Image

IMAGE_ID = "5f0000000000000000000001"


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

    def image(self, content: bytes, extension: str = "jpg") -> Image:
        path = self.folder / f"{IMAGE_ID}.{extension}"
        path.write_bytes(content)
        try:
            with PIL.Image.open(path) as picture:
                width, height = picture.size
        except OSError:
            width, height = 100, 100
        return Image(
            id=IMAGE_ID,
            sha256=hashlib.sha256(content).hexdigest(),
            content_type=photographs.CONTENT_TYPES[extension],
            size=len(content),
            width=width,
            height=height,
            path=path,
        )

    def analyze(self, content: bytes, extension: str = "jpg") -> dict[str, Any]:
        result = self.analyzer().analyze(self.image(content, extension), self.context())
        assert plugin.BlipResult().load(result) == result
        return result

    def health(self):
        return self.analyzer().health(self.context())
