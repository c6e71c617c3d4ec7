"""Run an analyzer in a test as a worker does."""

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import PIL.Image

from clustr.analysis import local_run
from clustr.analysis.concurrent_calls import concurrency_of
from clustr.analysis.ends import End
from clustr.domain.errors import RefusedFile
from clustr.domain.models import State
from clustr.domain.secrets import wrap_secrets
from clustr.imaging import pillow_setup
from clustr.imaging.formats import CONTENT_TYPES, FORMATS
from clustr.plugin_manager import Plugin
from clustr.plugins import Analyzer, Image
from clustr.settings import read_settings

NAME = "in_a_test"


def run_analyzer(
    analyzer: Analyzer,
    image: Path | PIL.Image.Image,
    *,
    config: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
    results: Mapping[str, dict[str, Any]] | None = None,
) -> End:
    """Run an analyzer on an image, with the limits and checks of a worker; return how it ended.

    It runs in this process and in its main thread: `setup`, `analyze` (or `analyze_batch` of one
    image, where `batch_size` is above 1), `teardown`. An exception is an end, too; its traceback is
    in the log, which pytest shows when the test fails. Code that ignores the time limit, such as C
    code that hangs, ends the process, and so the tests, four seconds later.

    Args:
        image: a file, such as one of `sample_image`; or a picture, which is written as a PNG. For a
            file that cannot be read, the type follows from its name, and its size is 1 by 1 pixels.
        config: `context.config`, as the plugin's schema loads it.
        secrets: `context.secrets`.
        results: the results of the analyzers that it requires, by their names.

    Raises:
        ValueError: a result that the analyzer requires is not given.
        OSError: there is no such file.
    """
    check_results(analyzer, results)
    with pillow_as_in_a_worker(), as_file(image) as path:
        [(_, end)] = local_run.run_each(
            analyzer, plugin_with(config, secrets), [image_of(path, results)]
        )
    return end


def run_batch(
    analyzer: Analyzer,
    images: Sequence[Path | PIL.Image.Image],
    *,
    config: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
    results: Mapping[str, dict[str, Any]] | None = None,
) -> list[End]:
    """Run an analyzer on several images at once as a worker does; return how each ended.

    It is `run_analyzer` for images that are claimed together: `batch_size` of them are given to
    `analyze_batch`, and an `HttpAnalyzer` has as many calls under way as its `concurrency` says.
    Once what it needs is away, the images that were not begun are `deferred` as well.

    Args:
        results: of every image, as for `run_analyzer`.

    Raises:
        ValueError: a result that the analyzer requires is not given.
        OSError: there is no such file.
    """
    check_results(analyzer, results)
    with pillow_as_in_a_worker(), ExitStack() as files:
        given = [image_of(files.enter_context(as_file(image)), results) for image in images]
        plugin = plugin_with(config, secrets)
        several = concurrency_of(analyzer) > 1
        run = local_run.run_concurrently if several else local_run.run_in_batches
        skipped = {id(image): local_run.end_by_format(analyzer, image) for image in given}
        looked_at = [image for image in given if not skipped[id(image)]]
        ends = {id(image): end for image, end in run(analyzer, plugin, looked_at)}
        last = next(reversed(ends.values()), None) or End(State.DEFERRED)
        return [skipped[id(image)] or ends.get(id(image), last) for image in given]


def check_results(analyzer: Analyzer, results: Mapping[str, dict[str, Any]] | None) -> None:
    """Check that the test passes the results that the analyzer requires.

    Raises:
        ValueError: one is missing; the message says how to pass it.
    """
    for name in analyzer.requires:
        if name not in (results or {}):
            given = f'results={{"{name}": {{…}}}}'
            raise ValueError(f"{analyzer.name} requires {name}; give its result by {given}")


def plugin_with(config: Mapping[str, Any] | None, secrets: Mapping[str, Any] | None) -> Plugin:
    """A plugin with this configuration."""
    return Plugin(NAME, None, NAME, config=config or {}, secrets=wrap_secrets(secrets or {}))


def image_of(path: Path, results: Mapping[str, dict[str, Any]] | None) -> Image:
    """The image that an analyzer gets for a file with any content."""
    try:
        return local_run.read_image(path, FORMATS, results or {})
    except RefusedFile:
        extension = path.suffix.lstrip(".").lower()
        content_type = CONTENT_TYPES.get(extension, "image/jpeg")
        return local_run.build_image(path, content_type, 1, 1, results or {})


@contextmanager
def as_file(image: Path | PIL.Image.Image) -> Iterator[Path]:
    """The file of an image; a picture gets one for the block."""
    if not isinstance(image, PIL.Image.Image):
        yield Path(image)
        return
    with tempfile.TemporaryDirectory(prefix="clustr-") as folder:
        path = Path(folder, "picture.png")
        image.save(path)
        yield path


@contextmanager
def pillow_as_in_a_worker() -> Iterator[None]:
    """Give Pillow all formats and the limit of pixels for the block."""
    limit = PIL.Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        pillow_setup.prepare(read_settings({}).max_image_pixels)
        try:
            yield
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit
