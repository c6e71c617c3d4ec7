"""Sorting analyzers, so that each comes after those that it requires."""

import graphlib
from collections.abc import Iterable

from clustr.plugin_manager.plugin import Plugin, PluginState, Unloadable
from clustr.plugins import Analyzer


def sort_analyzers(plugins: Iterable[Plugin]) -> dict[str, Analyzer]:
    """The analyzers of all plugins by their names, each after those that it requires.

    Plugins with an analyzer that can never run, because a required analyzer is missing or requires
    it in turn, are withdrawn, until all remaining ones can run.
    """
    plugins = list(plugins)
    while True:
        owners = {a.name: plugin for plugin in plugins for a in plugin.analyzers}
        if _withdraw_incomplete(plugins, owners):
            continue
        analyzers = {a.name: a for plugin in plugins for a in plugin.analyzers}
        sorter = graphlib.TopologicalSorter({a.name: a.requires for a in analyzers.values()})
        try:
            return {name: analyzers[name] for name in sorter.static_order()}
        except graphlib.CycleError as error:
            _withdraw_cycle(error.args[1], owners)


def _withdraw_incomplete(plugins: Iterable[Plugin], owners: dict[str, Plugin]) -> bool:
    """Withdraw the plugins whose analyzers require one that is not loaded; return whether any."""
    found = False
    for plugin in plugins:
        missing = [
            (analyzer.name, name)
            for analyzer in plugin.analyzers
            for name in analyzer.requires
            if name not in owners
        ]
        if missing:
            found = True
            analyzer, name = missing[0]
            reason = f"{analyzer} requires {name}, which is not loaded"
            plugin.withdraw(Unloadable(PluginState.FAILED, reason))
    return found


def _withdraw_cycle(cycle: list[str], owners: dict[str, Plugin]) -> None:
    # Each analyzer in the list is required by the next one; the last one is the first again.
    reason = f"analyzers require each other in a circle: {' requires '.join(reversed(cycle))}"
    plugins = list(dict.fromkeys(owners[name] for name in cycle))
    state = PluginState.FAILED if len(plugins) == 1 else PluginState.CONFLICT
    for plugin in plugins:
        plugin.withdraw(Unloadable(state, reason))
