"""Runs analyzers on local files, with no server, database or queue.

Analyzers get the same and end in the same way as in a worker, but nothing is stored.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from clustr.analysis.concurrent_calls import ConcurrentCalls, concurrency_of
from clustr.analysis.ends import End
from clustr.analysis.runner import NotPrepared, Runner
from clustr.domain.models import State
from clustr.imaging.formats import Format
from clustr.imaging.images import inspect
from clustr.plugin_manager import Plugin
from clustr.plugins import Analyzer, Image

POLL_SECONDS = 0.1
NO_ID = "0" * 24


def read_image(
    path: Path, formats: tuple[Format, ...], results: Mapping[str, dict[str, Any]]
) -> Image:
    """The image in a file, as an analyzer is given it.

    Args:
        formats: those that are accepted.
        results: of the analyzers that it requires.

    Raises:
        RefusedFile: it would not be accepted as an upload; the message says why.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        inspected = inspect(file, formats)
    return build_image(
        path, inspected.format.content_type, inspected.width, inspected.height, results
    )


def build_image(
    path: Path, content_type: str, width: int, height: int, results: Mapping[str, dict[str, Any]]
) -> Image:
    """The image in a file that is not inspected; the caller gives its properties.

    Args:
        width, height: in pixels.
        results: of the analyzers that it requires.
    """
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return Image(NO_ID, sha256, content_type, len(content), width, height, path, dict(results))


def run_each(
    analyzer: Analyzer, plugin: Plugin, images: Iterable[Image]
) -> Iterator[tuple[Image, End]]:
    """Analyze images one by one; yield each with the end of its analysis, in their order.

    Args:
        plugin: the plugin that registers the analyzer, with its configuration.
    """
    return _run_prepared(analyzer, plugin, images, lambda runner: _run_each_image(runner, images))


def run_in_batches(
    analyzer: Analyzer, plugin: Plugin, images: Sequence[Image]
) -> Iterator[tuple[Image, End]]:
    """Analyze images `batch_size` at a time; yield each with its end, as `run_each` does."""
    return _run_prepared(analyzer, plugin, images, lambda runner: runner.run(images))


def run_concurrently(
    analyzer: Analyzer, plugin: Plugin, images: Sequence[Image]
) -> Iterator[tuple[Image, End]]:
    """Analyze images with as many calls under way as a worker has; yield each as it ends."""
    return _run_prepared(analyzer, plugin, images, lambda runner: _run_calls(runner, images))


def _run_calls(runner: Runner, images: Sequence[Image]) -> Iterator[tuple[Image, End]]:
    waiting = deque(images)
    with closing(ConcurrentCalls(runner, lambda _image: {})) as calls:
        while waiting or calls:
            while waiting and len(calls) < concurrency_of(runner.analyzer):
                image = waiting.popleft()
                if finished := calls.start(image):
                    yield image, finished.end
            for finished in calls.wait(POLL_SECONDS):
                yield finished.image, finished.end


def _run_prepared(
    analyzer: Analyzer,
    plugin: Plugin,
    images: Iterable[Image],
    run: Callable[[Runner], Iterable[tuple[Image, End]]],
) -> Iterator[tuple[Image, End]]:
    runner = Runner(analyzer, plugin)
    try:
        runner.prepare()
        yield from run(runner)
    except NotPrepared as error:
        yield from ((image, End(State.DEFERRED, error=str(error))) for image in images)
    finally:
        runner.close()


def _run_each_image(runner: Runner, images: Iterable[Image]) -> Iterator[tuple[Image, End]]:
    for image in images:
        if end := end_by_format(runner.analyzer, image):
            yield image, end
        else:
            yield from runner.run([image])


def end_by_format(analyzer: Analyzer, image: Image) -> End | None:
    """The end for an image of a type that an analyzer does not look at; None if it does."""
    if not analyzer.formats or image.content_type in analyzer.formats:
        return None
    return End(State.SKIPPED, error=f"does not look at {image.content_type}")
