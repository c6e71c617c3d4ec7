"""`clustr plugins run`: runs an analyzer on files, without any server.

One child process loads all plugins, to find the one with the analyzer. Another loads only the
plugins that are needed, and runs it. If a file ends that process, the file is reported as failed
and the remaining ones run in a new process.
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from clustr import logs
from clustr.analysis import local_run
from clustr.analysis.ends import End
from clustr.analysis.limits import GRACE_SECONDS
from clustr.cli.inspect_plugins import InspectedPlugins, inspect_plugins
from clustr.cli.plugin_description import describe_vector, vector_as_json
from clustr.cli.subprocess_check import STANDARD_ERROR, ChildResult, Send, run_in_child
from clustr.domain import failure_messages
from clustr.domain.errors import RefusedFile, StartUpError
from clustr.domain.models import State
from clustr.imaging import pillow_setup
from clustr.imaging.formats import formats_for
from clustr.plugin_manager import PluginManager, PluginState, load_plugins
from clustr.plugins import Analyzer, Fail, HttpAnalyzer, Image, as_sent
from clustr.plugins.analyzer import SETUP_SECONDS
from clustr.settings import Settings

# The state of a file that would not be accepted as an upload.
REFUSED = "refused"
GOOD_STATES = (State.SUCCEEDED, State.SKIPPED)


@dataclasses.dataclass(frozen=True, slots=True)
class NeededPlugins:
    """The plugins that have to be loaded for an analyzer.

    Attributes:
        plugins: the names of those with the analyzer and with the analyzers that it requires.
        seconds: the longest that one step takes: the setup of an analyzer, or one image.
    """

    plugins: tuple[str, ...]
    seconds: float


def find_needed_plugins(name: str, settings: Settings, limit: float) -> NeededPlugins:
    """Find the analyzer, also in a plugin that the settings switch off.

    Args:
        limit: how many seconds a plugin may take to load.

    Raises:
        StartUpError: no plugin that can be loaded has it.
    """
    inspected = inspect_plugins(settings, limit)
    if name not in analyzers_of(inspected):
        inspected = inspect_plugins(enable_plugins(settings, None), limit)
    analyzers = analyzers_of(inspected)
    if name not in analyzers:
        raise StartUpError(not_found_message(name, inspected))
    names, pending = [], [name]
    while pending:
        names.append(pending.pop())
        pending += analyzers[names[-1]][1]["requires"]
    max_timeout = max(analyzers[required][1]["timeout"] for required in names)
    # The runner enforces these limits itself: on setup(), on model_info(), and on an image.
    seconds = 2 * (SETUP_SECONDS + GRACE_SECONDS) + max_timeout + GRACE_SECONDS
    return NeededPlugins(tuple({analyzers[required][0] for required in names}), seconds)


def analyzers_of(inspected: InspectedPlugins) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return by name each analyzer that can be loaded, with the name of its plugin."""
    return {
        analyzer["name"]: (plugin["name"], analyzer)
        for plugin in inspected.plugins
        for analyzer in plugin["analyzers"]
    }


def not_found_message(name: str, inspected: InspectedPlugins) -> str:
    message = failure_messages.unknown_name("analyzer", name, analyzers_of(inspected))
    for plugin in inspected.plugins:
        if plugin["name"] == name and plugin["state"] != PluginState.LOADED:
            return f"the plugin {name} is {plugin['state']}: {plugin['reason']}"
    return message


def enable_plugins(settings: Settings, names: tuple[str, ...] | None) -> Settings:
    """Return the settings with only these plugins enabled; None enables all."""
    return dataclasses.replace(settings, plugins_enabled=names, plugins_disabled=())


class FileRun:
    """Runs an analyzer on files, and collects the results.

    Args:
        needed: the plugins to load; all others are disabled.
        sent_folder: where to keep what an `HttpAnalyzer` sends to its service of each file; the
            results then say where that is, as `sent`.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        settings: Settings,
        needed: NeededPlugins,
        sent_folder: Path | None = None,
    ):
        self._sent_folder = sent_folder
        self._name = name
        self._files = files
        self._settings = enable_plugins(settings, needed.plugins)
        self._needed = needed
        self._results: dict[int, dict[str, Any]] = {}
        self._terminal = os.dup(STANDARD_ERROR)  # where the child process logs

    def results(self) -> list[dict[str, Any]]:
        """Run the analyzer, and return the result of each file in their order."""
        while pending := [n for n in range(len(self._files)) if n not in self._results]:
            child = run_in_child(partial(self._run_in_child, pending), self._needed.seconds)
            self._results |= {
                message["number"]: message["result"]
                for message in child.sent
                if "result" in message
            }
            if child.failure:
                self._record_failure(child, pending)
        os.close(self._terminal)
        return [self._results[number] for number in range(len(self._files))]

    def _record_failure(self, child: ChildResult, pending: Sequence[int]) -> None:
        """Record as failed the files during which a plugin ended the child process."""
        last = next((message for message in reversed(child.sent) if "analyzer" in message), None)
        if last is None:
            raise StartUpError(f"plugins cannot be loaded: {child.failure}\n{child.printed}")
        step = "setup()" if last["number"] is None else "analyze()"
        error = f"{last['analyzer']}: {step}: {child.failure}"
        if last["number"] is not None and time.monotonic() > last["until"]:
            error = (
                f"{last['analyzer']}: took longer than {last['seconds']:g} seconds, and was deaf"
            )
        for number in pending if last["number"] is None else [last["number"]]:
            self._results.setdefault(
                number, result_as_json(self._files[number], State.FAILED, error)
            )

    def _run_in_child(self, numbers: Sequence[int], send: Send) -> None:
        """Load the plugins and run the analyzers; this is the code of the child process."""
        logs.configure("console", "critical")
        settings = self._settings
        plugin_manager = load_plugins(
            settings.plugins_folder,
            settings.plugins_enabled,
            settings.plugins_disabled,
            settings.plugins_config,
            settings.environment,
        )
        os.dup2(self._terminal, STANDARD_ERROR)
        logs.configure("console", "info")
        pillow_setup.prepare(settings.max_image_pixels)
        formats_are_default = "ALLOWED_EXTENSIONS" not in settings.given
        accepted = formats_for(settings.allowed_extensions, leave_out=formats_are_default)
        loaded: dict[int, Image] = {}
        for number in numbers:
            try:
                loaded[number] = local_run.read_image(self._files[number], accepted, {})
            except (RefusedFile, OSError) as error:
                refused = result_as_json(
                    self._files[number], REFUSED, failure_messages.as_plain_text(error)
                )
                send({"number": number, "result": refused})
        for analyzer in analyzers_in_order(plugin_manager, self._name):
            is_last = analyzer.name == self._name
            for number, end in self._run_analyzer(analyzer, plugin_manager, loaded, send):
                if is_last or end.state is not State.SUCCEEDED:
                    reason = end.error if is_last else f"requires {analyzer.name}: {end.error}"
                    state = end.state if is_last else State.SKIPPED
                    result = result_as_json(
                        self._files[number], state, reason, end if is_last else None
                    )
                    if is_last and end.state is State.SUCCEEDED:
                        result["vectors"] = {
                            vector.field: vector_as_json(vector)
                            if vector.field in end.vectors
                            else None
                            for vector in analyzer.vectors
                        }
                    if self._sent_folder and is_last and isinstance(analyzer, HttpAnalyzer):
                        result["sent"] = self._keep_sent(analyzer, number, loaded[number])
                    send({"number": number, "result": result})
                    del loaded[number]
                else:
                    assert end.result is not None  # It succeeded.
                    results = {**loaded[number].results, analyzer.name: end.result}
                    loaded[number] = dataclasses.replace(loaded[number], results=results)

    def _keep_sent(self, analyzer: HttpAnalyzer, number: int, image: Image) -> str | None:
        """Write what is sent of a file into the folder; return where, or None without one."""
        assert self._sent_folder is not None
        try:
            name, content, _ = as_sent(image, analyzer.converts, analyzer.max_side)
        except Fail:  # Then the analysis has failed with that reason.
            return None
        stem = self._files[number].stem
        path = self._sent_folder / f"{number + 1}-{stem}{Path(name).suffix}"
        path.write_bytes(content)
        return str(path)

    def _run_analyzer(
        self,
        analyzer: Analyzer,
        plugin_manager: PluginManager,
        loaded: dict[int, Image],
        send: Send,
    ) -> Iterator[tuple[int, End]]:
        """Run one analyzer on all loaded images, and yield the number and end of each."""
        numbers = list(loaded)
        send({"analyzer": analyzer.name, "number": None})

        def announce_each() -> Iterator[Image]:
            for number in numbers:
                until = time.monotonic() + analyzer.timeout
                deadline = {"until": until, "seconds": analyzer.timeout}
                send({"analyzer": analyzer.name, "number": number, **deadline})
                yield loaded[number]

        ends = local_run.run_each(analyzer, plugin_manager.plugin_of(analyzer), announce_each())
        for number, (_, end) in zip(numbers, ends, strict=True):
            yield number, end


def analyzers_in_order(plugin_manager: PluginManager, name: str) -> list[Analyzer]:
    """Return the analyzer and those that it requires, in the order in which to run them."""
    needed = {name}
    for analyzer in reversed(plugin_manager.analyzers.values()):
        if analyzer.name in needed:
            needed |= set(analyzer.requires)
    return [analyzer for analyzer in plugin_manager.analyzers.values() if analyzer.name in needed]


def result_as_json(
    file: Path, state: str, error: str | None, end: End | None = None
) -> dict[str, Any]:
    """Return the result of a file in JSON values."""
    return {
        "file": str(file),
        "state": state,
        "result": end.result if end else None,
        "error": error,
        "vectors": {},
        "fields": json.loads(orjson.dumps(end.fields, option=orjson.OPT_UTC_Z)) if end else {},
        "duration_ms": round(end.seconds * 1000, 1) if end else None,
    }


def format_result(result: dict[str, Any]) -> Iterator[str]:
    """Yield a result of `result_as_json` as texts for people, the heading first."""
    duration = "" if result["duration_ms"] is None else f", after {result['duration_ms']:.0f} ms"
    yield f"{result['file']}: {result['state']}{duration}"
    if result.get("sent"):
        yield f"sent: {result['sent']}"
    if result["error"]:
        yield result["error"]
    if result["result"] is not None:
        yield json.dumps(result["result"], indent=2)
    for field, vector in result["vectors"].items():
        yield f"vector {field}: {describe_vector(vector) if vector else 'none'}"
    for name, value in result["fields"].items():
        yield f"{name} of the upload: {json.dumps(value)}"
