"""Registration of a plugin's hooks, after checks of its API level and of their signatures."""

import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click
import pluggy

from clustr.domain import failure_messages
from clustr.plugin_manager.plugin import Plugin, PluginState, Unloadable, call_guarded
from clustr.plugins import Library, hooks

if TYPE_CHECKING:  # Workers do without Flask.
    from flask_smorest import Blueprint

# The level of the API for plugins. This level and the one before it are supported.
CLUSTR_API = 1

HOOKS = {
    name: tuple(inspect.signature(hook).parameters)
    for name, hook in vars(hooks).items()
    if name.startswith("clustr_")
}


def register_hooks(module: ModuleType) -> tuple[Any, tuple[str, ...]]:
    """Register a plugin's module with a pluggy manager of its own.

    Returns:
        pluggy's hook relay, which calls this plugin alone, and the names of the hooks.

    Raises:
        Unloadable: it is written for another level, or its hooks are invalid.
    """
    if problem := problem_with_level(getattr(module, "CLUSTR_API", CLUSTR_API), CLUSTR_API):
        raise Unloadable(PluginState.FAILED, problem)
    problem = call_guarded("looking at its hooks", lambda: next(_problems(module), None))
    if problem:
        raise Unloadable(PluginState.FAILED, problem)
    manager = pluggy.PluginManager("clustr")
    manager.add_hookspecs(hooks)

    def register_module() -> None:
        manager.register(module)
        manager.check_pending()

    call_guarded("registering its hooks", register_module)
    implemented = tuple(caller.name for caller in manager.get_hookcallers(module) or ())
    if not implemented:
        reason = "it implements no hook; write clustr_… functions and mark them with @hookimpl"
        raise Unloadable(PluginState.FAILED, reason)
    return manager.hook, implemented


def problem_with_level(level: object, current: int) -> str | None:
    """Why a plugin of this API level does not fit the current level; None if it does."""
    if not isinstance(level, int) or isinstance(level, bool):
        return f"CLUSTR_API must be a whole number such as {current}, not {level!r}"
    supported = range(max(1, current - 1), current + 1)
    if level in supported:
        return None
    has = " and ".join(map(str, supported))
    levels = "level" if len(supported) == 1 else "levels"
    return f"it is written for API level {level}; this Clustr has {levels} {has}"


def call_registration_hook(plugin: Plugin, hook: str, **arguments: Any) -> list[Any]:
    """Call a hook that registers something; return its items, or [] if it is not implemented.

    Raises:
        Unloadable: the hook raised, or returned nothing iterable.
    """
    if hook not in plugin.hooks:
        return []
    returned: list[list[Any]] = call_guarded(
        f"{hook}()",
        lambda: [list(items) for items in getattr(plugin.hook, hook)(**arguments)],
    )
    if not returned:  # pluggy leaves out None.
        raise Unloadable(PluginState.FAILED, f"{hook}() returned nothing; return a list")
    return returned[0]


def blueprints_of(plugin: Plugin, library: Library) -> "list[Blueprint]":
    """The blueprints that a plugin provides.

    Raises:
        Unloadable: its hook raised, or returned something else.
    """
    blueprints = call_registration_hook(
        plugin, "clustr_register_blueprints", config=plugin.config, library=library
    )
    # Workers run without flask-smorest; a plugin that has made a blueprint has imported it.
    smorest = sys.modules.get("flask_smorest")
    for blueprint in blueprints:
        if smorest is None or not isinstance(blueprint, smorest.Blueprint):
            returned = f"clustr_register_blueprints() returned a {type(blueprint).__name__}"
            reason = f"{returned}, which is no Blueprint of flask_smorest"
            raise Unloadable(PluginState.FAILED, reason)
    return blueprints


def commands_of(plugin: Plugin, library: Library) -> dict[str, click.Command]:
    """The commands that a plugin provides, by their names.

    Raises:
        Unloadable: its hook raised, or returned something else.
    """
    commands: dict[str, click.Command] = {}
    for command in call_registration_hook(
        plugin, "clustr_register_commands", config=plugin.config, library=library
    ):
        returned = "clustr_register_commands() returned"
        if not isinstance(command, click.Command) or not command.name:
            reason = f"{returned} a {type(command).__name__}, which is no command of click"
            raise Unloadable(PluginState.FAILED, reason)
        if command.name in commands:
            raise Unloadable(PluginState.FAILED, f"{returned} the command {command.name} twice")
        commands[command.name] = command
    return commands


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
