"""`clustr plugins run`: an analyzer on files, with no server at all.

Plugins are loaded in one process to see who brings the analyzer, and run in another, where nothing
else is loaded. A file that ends that process is told as a failure, and the others are tried in a
new one.
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from clustr import logs
from clustr.analysis import local_run
from clustr.analysis.limits import GRACE_SECONDS
from clustr.analysis.runner import End
from clustr.cli.inspect_plugins import InspectedPlugins, inspect_plugins
from clustr.cli.subprocess_check import STANDARD_ERROR, ChildResult, Send, run_in_child
from clustr.domain import failure_messages
from clustr.domain.errors import RefusedFile, StartUpError
from clustr.domain.models import State
from clustr.imaging import images
from clustr.plugin_manager import PluginManager, PluginState, load_plugins
from clustr.plugins import Analyzer, Image
from clustr.plugins.analyzer import SETUP_SECONDS
from clustr.settings import Settings

# Of a file that would not be accepted as an upload.
REFUSED = "refused"
GOOD = (State.SUCCEEDED, State.SKIPPED)


@dataclasses.dataclass(frozen=True, slots=True)
class NeededPlugins:
    """What has to be loaded for an analyzer.

    Attributes:
        plugins: the names of those that bring it and what it requires.
        seconds: what one step of the work takes at most: to set an analyzer up, or one image.
    """

    plugins: tuple[str, ...]
    seconds: float


def needed_for(name: str, settings: Settings, limit: float) -> NeededPlugins:
    """Find the analyzer, also in a plugin that the settings switch off.

    Args:
        limit: the seconds that a plugin may take to load.

    Raises:
        StartUpError: no plugin that can be loaded brings it.
    """
    seen = inspect_plugins(settings, limit)
    if name not in analyzers_of(seen):
        seen = inspect_plugins(switched_on(settings, None), limit)
    analyzers = analyzers_of(seen)
    if name not in analyzers:
        raise StartUpError(not_found(name, seen))
    names, waiting = [], [name]
    while waiting:
        names.append(waiting.pop())
        waiting += analyzers[names[-1]][1]["requires"]
    longest = max(analyzers[one][1]["timeout"] for one in names)
    # The plugin's code has these limits itself: setup() and model_info() each, and an image.
    seconds = 2 * (SETUP_SECONDS + GRACE_SECONDS) + longest + GRACE_SECONDS
    return NeededPlugins(tuple({analyzers[one][0] for one in names}), seconds)


def analyzers_of(seen: InspectedPlugins) -> dict[str, tuple[str, dict[str, Any]]]:
    """By its name each analyzer that can be loaded, with the plugin that brings it."""
    return {a["name"]: (one["name"], a) for one in seen.plugins for a in one["analyzers"]}


def not_found(name: str, seen: InspectedPlugins) -> str:
    said = failure_messages.unknown_name("analyzer", name, analyzers_of(seen))
    for one in seen.plugins:
        if one["name"] == name and one["state"] != PluginState.LOADED:
            return f"the plugin {name} is {one['state']}: {one['reason']}"
    return said


def switched_on(settings: Settings, names: tuple[str, ...] | None) -> Settings:
    """The settings with these plugins switched on alone; None for all."""
    return dataclasses.replace(settings, plugins_enabled=names, plugins_disabled=())


class FileRun:
    """An analyzer on files, as far as that has come.

    Args:
        settings: with the plugins switched on that are needed.
    """

    def __init__(self, name: str, files: Sequence[Path], settings: Settings, needed: NeededPlugins):
        self._name = name
        self._files = files
        self._settings = switched_on(settings, needed.plugins)
        self._needed = needed
        self._told: dict[int, dict[str, Any]] = {}
        self._terminal = os.dup(STANDARD_ERROR)  # for what the plugin logs

    def ends(self) -> list[dict[str, Any]]:
        """What the analyzer says of each file, in their order."""
        while left := [n for n in range(len(self._files)) if n not in self._told]:
            trial = run_in_child(
                lambda send, left=left: self._work(left, send), self._needed.seconds
            )
            self._told |= {said["number"]: said["told"] for said in trial.sent if "told" in said}
            if trial.failure:
                self._take_down(trial, left)
        os.close(self._terminal)
        return [self._told[number] for number in range(len(self._files))]

    def _take_down(self, trial: ChildResult, left: Sequence[int]) -> None:
        """What there is to say when a plugin has ended the process that works."""
        at = next((said for said in reversed(trial.sent) if "analyzer" in said), None)
        if at is None:
            raise StartUpError(f"plugins cannot be loaded: {trial.failure}\n{trial.printed}")
        during = "setup()" if at["number"] is None else "analyze()"
        error = f"{at['analyzer']}: {during}: {trial.failure}"
        if at["number"] is not None and time.monotonic() > at["until"]:
            error = f"{at['analyzer']}: took longer than {at['seconds']:g} seconds, and was deaf"
        for number in left if at["number"] is None else [at["number"]]:
            self._told.setdefault(number, result_as_json(self._files[number], State.FAILED, error))

    def _work(self, numbers: Sequence[int], send: Send) -> None:
        """Be the process that works."""
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
        images.prepare(settings.max_image_pixels)
        by_default = "ALLOWED_EXTENSIONS" not in settings.given
        accepted = images.formats_for(settings.allowed_extensions, leave_out=by_default)
        pictures: dict[int, Image] = {}
        for number in numbers:
            try:
                pictures[number] = local_run.read_image(self._files[number], accepted, {})
            except (RefusedFile, OSError) as error:
                refused = result_as_json(
                    self._files[number], REFUSED, failure_messages.as_plain_text(error)
                )
                send({"number": number, "told": refused})
        for analyzer in chain(plugin_manager, self._name):
            is_last = analyzer.name == self._name
            for number, end in self._stage(analyzer, plugin_manager, pictures, send):
                if is_last or end.state is not State.SUCCEEDED:
                    error = end.error if is_last else f"requires {analyzer.name}: {end.error}"
                    state = end.state if is_last else State.SKIPPED
                    said = result_as_json(
                        self._files[number], state, error, end if is_last else None
                    )
                    send({"number": number, "told": said})
                    del pictures[number]
                else:
                    known = {**pictures[number].results, analyzer.name: end.result}
                    pictures[number] = dataclasses.replace(pictures[number], results=known)

    def _stage(
        self,
        analyzer: Analyzer,
        plugin_manager: PluginManager,
        pictures: dict[int, Image],
        send: Send,
    ) -> Iterator[tuple[int, End]]:
        """How one analyzer's analyses of all images end."""
        numbers = list(pictures)
        send({"analyzer": analyzer.name, "number": None})

        def announced() -> Iterator[Image]:
            for number in numbers:
                until = time.monotonic() + analyzer.timeout
                about = {"until": until, "seconds": analyzer.timeout}
                send({"analyzer": analyzer.name, "number": number, **about})
                yield pictures[number]

        ends = local_run.run_each(analyzer, plugin_manager.plugin_of(analyzer), announced())
        for number, (_, end) in zip(numbers, ends, strict=True):
            yield number, end


def chain(plugin_manager: PluginManager, name: str) -> list[Analyzer]:
    """The analyzer, after all that it requires."""
    wanted = {name}
    for analyzer in reversed(plugin_manager.analyzers.values()):
        if analyzer.name in wanted:
            wanted |= set(analyzer.requires)
    return [analyzer for analyzer in plugin_manager.analyzers.values() if analyzer.name in wanted]


def result_as_json(
    file: Path, state: str, error: str | None, end: End | None = None
) -> dict[str, Any]:
    """What there is to say of a file, in plain values."""
    return {
        "file": str(file),
        "state": state,
        "result": end.result if end else None,
        "error": error,
        "fields": json.loads(orjson.dumps(end.fields, option=orjson.OPT_UTC_Z)) if end else {},
        "duration_ms": round(end.seconds * 1000, 1) if end else None,
    }


def for_people(said: dict[str, Any]) -> Iterator[str]:
    """The same in lines to read."""
    took = "" if said["duration_ms"] is None else f", after {said['duration_ms']:.0f} ms"
    yield f"{said['file']}: {said['state']}{took}"
    if said["error"]:
        yield said["error"]
    if said["result"] is not None:
        yield json.dumps(said["result"], indent=2)
    for name, value in said["fields"].items():
        yield f"{name} of the upload: {json.dumps(value)}"
