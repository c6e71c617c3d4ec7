"""The plugin manager: finds plugins, loads each on its own, and knows what each of them brings.

Nothing that a plugin does while it is loaded touches another or ends the process: it is listed with
a state and a reason instead.
"""

from clustr.plugin_manager.configuration import ignored_variables
from clustr.plugin_manager.discovery import Candidate, find_candidates
from clustr.plugin_manager.loading import (
    check_enabled,
    ignored_names,
    is_switched_off,
    load_plugins,
)
from clustr.plugin_manager.manager import PluginManager
from clustr.plugin_manager.plugin import Plugin, PluginState, authors_frames

__all__ = [
    "Candidate",
    "Plugin",
    "PluginManager",
    "PluginState",
    "authors_frames",
    "check_enabled",
    "find_candidates",
    "ignored_names",
    "ignored_variables",
    "is_switched_off",
    "load_plugins",
]
