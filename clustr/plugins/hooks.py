"""The hooks that a plugin can implement, all on this page.

A hook is a function of the same name in the plugin's module, marked with `@hookimpl`. It may take
any of the arguments listed here, by their names, and must give them no defaults. Clustr calls each
plugin on its own: what one raises is logged, makes that plugin `failed`, and touches no other.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy
from marshmallow import Schema

from clustr.domain.models import Analysis, Upload
from clustr.plugins.analyzer import Analyzer
from clustr.plugins.filters import Filter
from clustr.plugins.library import Library

if TYPE_CHECKING:  # Workers do without Flask.
    import click
    from flask_smorest import Blueprint

hookspec = pluggy.HookspecMarker("clustr")
hookimpl = pluggy.HookimplMarker("clustr")


@hookspec
def clustr_config_schema() -> type[Schema]:
    """Return the marshmallow schema of the plugin's configuration.

    Called once in every process, before any other hook of the plugin. A field takes its value from
    the environment variable named in its `metadata={"env": "BLIP_SERVICE_URL"}`, else from
    `CLUSTR_PLUGIN__<NAME>__<KEY>`, else from the table `[<name>]` of `config/plugins.toml`, else
    from its `load_default`. A value that does not fit makes the plugin `misconfigured`.
    """


@hookspec
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    """Return the analyzers that the plugin brings.

    Called once in every process, web and worker, with the loaded configuration. Return objects that
    are cheap to make: what is heavy belongs in `Analyzer.setup`.
    """


@hookspec
def clustr_register_blueprints(
    config: Mapping[str, Any], library: Library
) -> "Iterable[Blueprint]":
    """Return blueprints of flask-smorest with routes of the plugin's own.

    Called once in every web process. They are mounted under `/api/x/<plugin>/` and documented with
    all other routes; their errors are problem documents like any other.

    Args:
        library: the uploads, for the routes to read from.
    """


@hookspec
def clustr_register_commands(
    config: Mapping[str, Any], library: Library
) -> "Iterable[click.Command]":
    """Return commands of click, which run as `clustr x <plugin> <command>`.

    Called when a command of the plugin is named on a command line, and in no other process.

    Args:
        library: the uploads of the service, for the commands to read from.
    """


@hookspec
def clustr_register_filters(config: Mapping[str, Any]) -> Iterable[Filter]:
    """Return filters of the listing, on the results of the plugin's own analyzers.

    Called once in every process, after the analyzers are registered.
    """


@hookspec
def clustr_upload_stored(upload: Upload, library: Library) -> None:
    """An upload was stored; nothing has been analyzed yet.

    Called in the web process that took it in, after the answer and beside other requests. A notice
    can be lost when that process dies; what must not be missed belongs into an analyzer.
    """


@hookspec
def clustr_analysis_finished(upload: Upload, analysis: Analysis, library: Library) -> None:
    """An analysis reached its end: it is `succeeded`, `skipped` or `failed`.

    Called in the worker process that ran it, once the end is written down. A notice can be lost
    when that process dies. What this takes longer than a second is logged.

    Args:
        upload: as it was before the analysis.
        analysis: with the result, or the error.
    """


@hookspec
def clustr_upload_deleted(upload: Upload, library: Library) -> None:
    """An upload was removed for good.

    Called in the process that removed it, afterwards and beside other requests: the place to remove
    what the plugin keeps elsewhere. A notice can be lost when that process dies.
    """
