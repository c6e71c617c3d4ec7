"""Compares what the processes of the service run with the plugins that there are."""

from collections.abc import Sequence
from typing import Any

from clustr import logs
from clustr.domain.errors import QueueUnavailable
from clustr.queue import Queue
from clustr.services.running_processes import RESTART_ADVICE, LoadedPlugin, read_processes
from clustr.settings import Settings


def describe(settings: Settings, plugins: Sequence[dict[str, Any]]) -> list[str]:
    """Say what processes run that is not there any more, or not yet (`why_outdated`)."""
    logs.configure("console", "critical")  # That Redis is away is no trouble here.
    files = {plugin["name"]: _loaded_plugin(plugin) for plugin in plugins}
    try:
        processes = read_processes(Queue(settings.redis_url, settings.redis_prefix))
    except QueueUnavailable:
        return []
    sentences = [text for process in processes for text in process.differences(files)]
    return [*sentences, RESTART_ADVICE] if sentences else []


def _loaded_plugin(plugin: dict[str, Any]) -> LoadedPlugin:
    versions = {analyzer["name"]: analyzer["version"] for analyzer in plugin["analyzers"]}
    return LoadedPlugin(plugin["version"], plugin["code"], versions)
