"""The plugin manager: finds plugins, loads each of them, and registers what they provide.

A plugin that fails while it is loaded neither affects others nor ends the process: it is listed
with a state and a reason instead.
"""

from clustr.plugin_manager.configuration import ignored_variables
from clustr.plugin_manager.declarations import may_be_list, problem_with_path
from clustr.plugin_manager.discovery import Candidate, code_hash, find_candidates
from clustr.plugin_manager.empty_library import EmptyLibrary
from clustr.plugin_manager.load_limit import LoadLimit, notes_folder
from clustr.plugin_manager.loading import (
    check_enabled,
    ignored_names,
    load_plugins,
    require_importable,
)
from clustr.plugin_manager.manager import PluginManager
from clustr.plugin_manager.plugin import (
    Plugin,
    PluginState,
    Unloadable,
    author_traceback,
    describe_plugin_exception,
    plugin_exc_info,
    plugin_line,
)
from clustr.plugin_manager.private_fields import private_fields, private_names
from clustr.plugin_manager.registration import commands_of

__all__ = [
    "Candidate",
    "EmptyLibrary",
    "LoadLimit",
    "Plugin",
    "PluginManager",
    "PluginState",
    "Unloadable",
    "author_traceback",
    "check_enabled",
    "code_hash",
    "commands_of",
    "describe_plugin_exception",
    "find_candidates",
    "ignored_names",
    "ignored_variables",
    "load_plugins",
    "may_be_list",
    "notes_folder",
    "plugin_exc_info",
    "plugin_line",
    "private_fields",
    "private_names",
    "problem_with_path",
    "require_importable",
]
