"""What an analyzer is, and what it is given."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image
import requests
import structlog
from marshmallow import Schema

from clustr.domain.errors import RefusedFile
from clustr.imaging import images
from clustr.imaging.decoding import displayed_size
from clustr.plugins.outcomes import Fail, Outcome
from clustr.plugins.vectors import Vector

SETUP_SECONDS = 300  # The time limit for `Analyzer.setup`.


@dataclass(frozen=True, slots=True)
class Image:
    """The image to look at.

    Attributes:
        id: the upload's id, 24 hexadecimal digits.
        sha256: of the original's bytes, 64 hexadecimal digits.
        content_type: the true type, such as `image/jpeg`.
        size: of the original, in bytes.
        width, height: in pixels, as displayed.
        path: the original, to be read only.
        results: the results of the analyzers that this one requires, by their names.
    """

    id: str
    sha256: str
    content_type: str
    size: int
    width: int
    height: int
    path: Path
    results: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def open(self, at_least: int | None = None, color_managed: bool = True) -> PIL.Image.Image:
        """Decode the whole image, turned as its EXIF orientation says, within the pixel limit.

        Its colors are sRGB, whatever its color profile is and whether it is in CMYK or LAB. Grey of
        more than 8 bits has all of them; `to_rgb` and `to_rgba` make 8 bits in sRGB of it, too.

        Args:
            at_least: pixels that its shorter side has to keep, for analyzers of a small copy:
                a large JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, many times faster.
            color_managed: whether to bring it into sRGB. Who looks at no colors can save the time,
                which is twice that of the decode for a photograph of a phone.

        Raises:
            Fail: the file is no image or its pixels cannot be read; the reason says why.
        """
        try:
            return images.open_displayed(self.path, at_least, color_managed)
        except RefusedFile as error:
            raise Fail(str(error)) from error

    def displayed_size(self) -> tuple[int, int]:
        """The width and height in pixels as displayed, as the header says; no pixel is read.

        Raises:
            Fail: the file is no image, or has too many pixels; the reason says which.
            OSError: the file cannot be opened.
        """
        try:
            return displayed_size(self.path)
        except RefusedFile as error:
            raise Fail(str(error)) from error


@dataclass(frozen=True, slots=True)
class Context:
    """What an analyzer may use while it works.

    Attributes:
        config: the plugin's loaded configuration, without its secrets.
        secrets: the fields whose metadata says `{"secret": True}`.
        log: a structlog logger that already knows the upload and the analyzer.
        http: a session for calls to services: its `timeout` is a total in seconds, it follows no
            redirects, and it keeps connections open between images.
        deadline: when the analysis is ended, on the clock of `time.monotonic()`.
        tmpdir: a folder of this process's own, removed afterwards.
    """

    config: Mapping[str, Any]
    secrets: Mapping[str, Any]
    log: structlog.stdlib.BoundLogger
    http: requests.Session
    deadline: float
    tmpdir: Path

    def seconds_left(self) -> float:
        """Seconds until the deadline; never less than 0."""
        return max(0.0, self.deadline - time.monotonic())


class ModelResult(dict[str, Any]):
    """A result that says which model gave it, where only the answer of a service tells.

    Args:
        values: the result.
        model: what is stored beside it, such as `{"name": "llava:7b", "total_tokens": 820}`, in
            addition to what `Analyzer.model_info` says.
    """

    def __init__(self, values: Mapping[str, Any], model: Mapping[str, Any]):
        super().__init__(values)
        self.model = dict(model)


@dataclass(frozen=True, slots=True)
class Health:
    """What an analyzer says of the service that it needs.

    Attributes:
        service: the name under which `/api/health` shows it, such as `captioner`.
        healthy: whether it can be used now.
        detail: one sentence, when there is something to say.
        url: where the service is; it is shown without user, password and query.
        timed_out: whether it gave no answer in time. While it is busy with calls of its analyzer
            Clustr does not take that for ill health.
    """

    service: str
    healthy: bool
    detail: str | None = None
    url: str | None = None
    timed_out: bool = False


class Analyzer:
    """Looks at one image and returns a result. Subclass it, set the attributes, write `analyze`.

    Attributes:
        name: unique among all analyzers, `[a-z][a-z0-9_]*`; the key of its results.
        version: raise it when the same image may now give another result.
        result_schema: a marshmallow schema; a result that does not fit it is a failure.
        summary: one line that says what it finds.
        queue: `default` for work of the processor, `http` for calls to services, `gpu`.
        formats: the content types it looks at; others are `skipped`. Empty means all.
        requires: the names of the analyzers whose results it needs, which are then in
            `image.results`. Where one of them did not succeed this one is `skipped`.
        timeout: seconds that one analysis may take; those in which it could go on and others have
            the processor do not count.
        max_attempts: how often an analysis is begun whose process dies under it.
        memory_mb: megabytes that its process may take beyond what it had at the start; None for
            no limit. With a GPU leave it at None: drivers reserve addresses without end.
        auto: whether every new upload is analyzed; otherwise only when it is asked for.
        batch_size: how many images `analyze_batch` is given at most.
        keep_loaded: whether its process is kept for as long as its worker lives, with what `setup`
            prepared. For models that load slowly. Otherwise it is kept for a minute after the last
            image, while it has taken at most 100 MB, `setup` included.
        fields: which fields of the upload it fills, each with the key of its result to take:
            `{"caption": "caption"}`. Possible are `caption`, `tags`, `dimensions` (an object with
            `width` and `height`), `taken_at` (ISO 8601; without an offset it is UTC) and `faces`. A
            result with `taken_at_local` beside its `taken_at`, without an offset, says by that on
            which day searches for dates find the upload.
        vectors: the keys of the result that are vectors. They are kept apart from it, and never
            sent to clients; uploads whose vectors are near to each other are found by them.
    """

    name: str
    version: int = 1
    result_schema: type[Schema]
    summary: str = ""
    queue: str = "default"
    formats: frozenset[str] = frozenset()
    requires: tuple[str, ...] = ()
    timeout: float = 60
    max_attempts: int = 3
    memory_mb: int | None = None
    auto: bool = True
    batch_size: int = 1
    keep_loaded: bool = False
    fields: Mapping[str, str] = {}
    vectors: tuple[Vector, ...] = ()

    def setup(self, context: Context) -> None:
        """Prepare for many images, such as by loading a model. Called once per worker process."""

    def analyze(self, image: Image, context: Context) -> dict[str, Any]:
        """Return what is in the image, in the shape of `result_schema`.

        Raises:
            Skip, Fail, RetryLater, ConfigError: for an end other than a result.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define analyze()")

    def analyze_batch(
        self, images: Sequence[Image], context: Context
    ) -> Sequence[dict[str, Any] | Outcome] | Iterator[tuple[Image, dict[str, Any] | Outcome]]:
        """Return for each image, in their order, its result, or an outcome (which is not raised).

        Called instead of `analyze` where `batch_size` is above 1, with `batch_size` images at most
        and `timeout` seconds for each of them. When it raises or takes too long, the images are
        tried once more, each on its own, so that the one at fault is found.

        It may be a generator instead, and yield `(image, result)`, in any order: each is stored as
        it comes, and has to come within `timeout` seconds of the one before. Then those that have
        no result yet are tried once more.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define analyze_batch()")

    def vectors_of(self, result: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the vectors that follow from a result, by their keys; None when none do.

        Called for results that are stored without vectors, because they are older than the
        declaration of `vectors`; also for those of an earlier version. So nothing has to be
        analyzed again where a result says enough.
        """
        return None

    def model_info(self, context: Context) -> Mapping[str, Any]:
        """Say which model gives the results, such as `{"name": "blip-base", "version": "2024-05"}`.

        Called after `setup`; it is stored beside every result.
        """
        return {}

    def health(self, context: Context) -> Health | None:
        """Say how the service it needs is, within two seconds; None when it needs none.

        Called from the web processes each time somebody asks for `/api/health`.
        """
        return None

    def teardown(self) -> None:
        """Let go of what `setup` took. Called at the end of the worker process, if it lives."""
