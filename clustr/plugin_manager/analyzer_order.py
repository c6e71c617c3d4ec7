"""The order of analyzers: those that others require come before them."""

import graphlib
from collections.abc import Iterable

from clustr.plugin_manager.plugin import Plugin, PluginState, Unloadable
from clustr.plugins import Analyzer


def in_order(plugins: Iterable[Plugin]) -> dict[str, Analyzer]:
    """The analyzers of all plugins, each after those that it requires.

    Plugins with an analyzer that can never run, because what it requires is not there or requires
    it in turn, are withdrawn, and so on until all others can.
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
            _withdraw_circle(error.args[1], owners)


def _withdraw_incomplete(plugins: Iterable[Plugin], owners: dict[str, Plugin]) -> bool:
    """Withdraw the plugins whose analyzers require one that is not loaded, if there are any."""
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


def _withdraw_circle(circle: list[str], owners: dict[str, Plugin]) -> None:
    # The list goes from the required to those that require it, and ends where it begins.
    reason = f"analyzers require each other in a circle: {' requires '.join(reversed(circle))}"
    plugins = list(dict.fromkeys(owners[name] for name in circle))
    state = PluginState.FAILED if len(plugins) == 1 else PluginState.CONFLICT
    for plugin in plugins:
        plugin.withdraw(Unloadable(state, reason))
