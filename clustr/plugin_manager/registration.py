"""The hooks of one plugin: that it was written for this Clustr, and which hooks it implements."""

import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from clustr.domain import failure_messages
from clustr.plugin_manager.plugin import Plugin, PluginState, Unloadable, guarded
from clustr.plugins import Library, hooks

if TYPE_CHECKING:  # Workers do without Flask.
    from flask_smorest import Blueprint

# What a plugin can rely on is numbered. This level and the one before it are supported.
CLUSTR_API = 1

HOOKS = {
    name: tuple(inspect.signature(hook).parameters)
    for name, hook in vars(hooks).items()
    if name.startswith("clustr_")
}


def register(module: ModuleType) -> tuple[Any, tuple[str, ...]]:
    """What calls the hooks of a module, with no other plugin behind it, and their names.

    Raises:
        Unloadable: it is written for another level, or something is wrong with its hooks.
    """
    if problem := problem_with_level(getattr(module, "CLUSTR_API", CLUSTR_API), CLUSTR_API):
        raise Unloadable(PluginState.FAILED, problem)
    problem = guarded("looking at its hooks", lambda: next(_problems(module), None))
    if problem:
        raise Unloadable(PluginState.FAILED, problem)
    manager = pluggy.PluginManager("clustr")
    manager.add_hookspecs(hooks)

    def register() -> None:
        manager.register(module)
        manager.check_pending()

    guarded("registering its hooks", register)
    implemented = tuple(caller.name for caller in manager.get_hookcallers(module) or ())
    if not implemented:
        reason = "it implements no hook; write clustr_… functions and mark them with @hookimpl"
        raise Unloadable(PluginState.FAILED, reason)
    return manager.hook, implemented


def problem_with_level(level: object, current: int) -> str | None:
    """Why a plugin of this API level does not fit a Clustr of the current one, if it does not."""
    if not isinstance(level, int) or isinstance(level, bool):
        return f"CLUSTR_API must be a whole number such as {current}, not {level!r}"
    supported = range(max(1, current - 1), current + 1)
    if level in supported:
        return None
    has = " and ".join(map(str, supported))
    levels = "level" if len(supported) == 1 else "levels"
    return f"it is written for API level {level}; this Clustr has {levels} {has}"


def registered_by(plugin: Plugin, hook: str, **arguments: Any) -> list[Any]:
    """What a hook that registers something returns, as a list; none when it is not implemented.

    Raises:
        Unloadable: it raised, or returned nothing that can be gone through.
    """
    if hook not in plugin.hooks:
        return []
    returned = guarded(
        f"{hook}()",
        lambda: [list(one) for one in getattr(plugin.hook, hook)(**arguments)],
    )
    if not returned:  # Of pluggy's results None is left out.
        raise Unloadable(PluginState.FAILED, f"{hook}() returned nothing; return a list")
    return returned[0]


def blueprints_of(plugin: Plugin, library: Library) -> "list[Blueprint]":
    """The routes that a plugin brings.

    Raises:
        Unloadable: its hook raised, or returned something else.
    """
    blueprints = registered_by(
        plugin, "clustr_register_blueprints", config=plugin.config, library=library
    )
    # Who has made one has imported flask-smorest, which workers do without.
    smorest = sys.modules.get("flask_smorest")
    for one in blueprints:
        if smorest is None or not isinstance(one, smorest.Blueprint):
            returned = f"clustr_register_blueprints() returned a {type(one).__name__}"
            reason = f"{returned}, which is no Blueprint of flask_smorest"
            raise Unloadable(PluginState.FAILED, reason)
    return blueprints


def _problems(module: ModuleType) -> Iterator[str]:
    for name, value in list(vars(module).items()):
        if not inspect.isroutine(value):
            continue
        options = getattr(value, "clustr_impl", None)
        if options:
            yield from _problems_with_hook(options["specname"] or name, value, options)
        elif name.startswith("clustr_") and value.__module__ == module.__name__:
            known = (
                ""
                if name in HOOKS
                else f", and an {failure_messages.unknown_name('hook', name, HOOKS)}"
            )
            yield f"{name}() is not marked with @hookimpl of clustr.plugins{known}"


def _problems_with_hook(
    name: str, function: Callable[..., Any], options: dict[str, Any]
) -> Iterator[str]:
    if name not in HOOKS:
        if not options["optionalhook"]:
            yield failure_messages.unknown_name("hook", name, HOOKS)
        return
    if options["wrapper"] or options["hookwrapper"]:
        yield f"{name}() is a wrapper of hooks; Clustr has only plain ones"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        yield f"{name}() is asynchronous; Clustr's hooks are plain functions"
    given = HOOKS[name]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            yield f"{name}() has the argument {parameter}; take arguments by their plain names"
        elif parameter.name not in given:
            yield f"{name}(): {failure_messages.unknown_name('argument', parameter.name, given)}"
        elif parameter.default is not parameter.empty:
            yield f"{name}(): the argument {parameter.name} must have no default"
