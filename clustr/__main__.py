"""The command `clustr`."""

import sys
from importlib import import_module
from typing import Any

import click

from clustr import __version__
from clustr.domain.errors import StartUpError

# The module and function of each command. A module is imported when its command is called, because
# the imports of `clustr up` take far longer than the whole of `clustr plugins list`.
COMMANDS = {
    "up": "clustr.cli.start:up",
    "worker": "clustr.cli.start:run_worker",
    "install-servers": "clustr.cli.install_servers:install_servers",
    "config": "clustr.cli.config:config",
    "keys": "clustr.cli.keys:keys",
    "fsck": "clustr.cli.fsck:fsck",
    "plugins": "clustr.cli.plugins:plugins",
    "import": "clustr.cli.import_folders:import_folders",
    "export": "clustr.cli.export:export",
    "analyze": "clustr.cli.analyze:analyze",
    "x": "clustr.cli.plugin_commands:x",
    "analyses": "clustr.cli.analyses:analyses",
    "captioner": "clustr.cli.captioner:captioner",
}


class Commands(click.Group):
    """The group of commands, which imports a command when it is called."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def invoke(self, context: click.Context) -> Any:
        """Run the command; an error that keeps it from starting is printed in one line."""
        try:
            return super().invoke(context)
        except StartUpError as error:
            click.echo(f"clustr: {error}", err=True)
            sys.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clustr", message="%(prog)s %(version)s")
def main() -> None:
    """Clustr, a self-hosted image service. Its settings are environment variables, or in `.env`."""


if __name__ == "__main__":
    main()
