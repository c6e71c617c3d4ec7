"""The hooks that a plugin can implement, all on this page.

A hook is a function of the same name in the plugin's module, marked with `@hookimpl`. It may take
any of the arguments listed here, by their names, and must give them no defaults. Clustr calls each
plugin on its own: what one raises is logged, makes that plugin `failed`, and touches no other.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy
from marshmallow import Schema

from clustr.plugins.analyzer import Analyzer

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
