"""`clustr x`: the commands of plugins, as their routes are below `/api/x`."""

import sys
from typing import Any

import click

from clustr import logs
from clustr.cli.refusals import error_message, refuse
from clustr.cli.running_service import read_settings_of_running_service
from clustr.components import build_plugin_library, build_plugin_manager
from clustr.domain import failure_messages
from clustr.domain.errors import ClustrError
from clustr.plugin_manager import (
    Plugin,
    PluginManager,
    PluginState,
    Unloadable,
    author_traceback,
    commands_of,
    describe_plugin_exception,
)

FAILED = 1  # an exit code; `refuse` exits with 2
HOOK = "clustr_register_commands"


class PluginCommands(click.Group):
    """The commands of one plugin; what one raises is said with the plugin and the line."""

    def __init__(self, plugin: Plugin, commands: dict[str, click.Command]):
        super().__init__(plugin.name, commands, help=f"Commands of the plugin {plugin.name}.")

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except ClustrError as error:
            refuse(error_message(error))
        except Exception as error:
            click.echo(author_traceback(error) or "", err=True)
            reason = describe_plugin_exception(error)
            click.echo(f"clustr: the plugin {self.name} raised {reason}", err=True)
            sys.exit(FAILED)


class Plugins(click.Group):
    """All plugins that bring commands, which are loaded when one of them is named."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [plugin.name for plugin in _with_commands(_plugin_manager(context))]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        plugin_manager = _plugin_manager(context)
        for broken in plugin_manager.plugins:
            if broken.name == name and broken.state is not PluginState.LOADED:
                refuse(f"the plugin {name} is {broken.state}: {broken.reason}")
        by_name = {plugin.name: plugin for plugin in _with_commands(plugin_manager)}
        if name not in by_name:
            refuse(failure_messages.unknown_name("plugin with commands", name, by_name))
        plugin = by_name[name]
        library = context.with_resource(
            build_plugin_library(context.obj["settings"], plugin_manager, plugin)
        )
        try:
            return PluginCommands(plugin, commands_of(plugin, library))
        except Unloadable as why:
            click.echo(why.trace or "", err=True)
            refuse(f"the plugin {name}: {why}")


def _plugin_manager(context: click.Context) -> PluginManager:
    if context.obj is None:
        settings = read_settings_of_running_service()
        logs.configure(settings.log_format, "error")
        context.obj = {"settings": settings, "plugin_manager": build_plugin_manager(settings)}
    plugin_manager: PluginManager = context.obj["plugin_manager"]
    return plugin_manager


def _with_commands(plugin_manager: PluginManager) -> list[Plugin]:
    return [p for p in plugin_manager.plugins if p.state is PluginState.LOADED and HOOK in p.hooks]


@click.command(cls=Plugins, name="x")
def x() -> None:
    """Run a command that a plugin brings: `clustr x PLUGIN COMMAND`.

    With the settings and the uploads of the service. Exit code: that of the command; 1 when it
    raised something, 2 when it was refused.
    """
