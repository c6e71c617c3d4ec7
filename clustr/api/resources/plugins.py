"""`/api/plugins`: the plugins and their analyzers."""

from flask import Response, jsonify

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.request_context import components
from clustr.api.schemas.service import PluginListSchema, PluginSchema, dump_plugin
from clustr.domain.access import Scope
from clustr.domain.errors import NotFound, QueueUnavailable
from clustr.services.running_processes import RunningProcess

NAME_PARAMETER = {
    "in": "path",
    "name": "name",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "description": "One of the names of `GET /api/plugins`.",
    "example": "dimensions",
}

blueprint = Blueprint(
    "plugins", __name__, url_prefix="/api/plugins", description="Who says what is in the images"
)


@blueprint.route("", needs=Scope.PLUGINS_READ)
@blueprint.response(200, PluginListSchema)
def list_plugins() -> Response:
    """List all plugins, those that could not be loaded among them

    Each with its `state`, the `reason` where it could not be loaded or needs to be configured, and
    its analyzers with the shapes of their results.
    """
    processes = read_processes()
    return jsonify(
        {
            "data": [
                dump_plugin(plugin, components.default_services, processes)
                for plugin in components.plugin_manager.plugins
            ]
        }
    )


@blueprint.route("/<name>", parameters=[NAME_PARAMETER], needs=Scope.PLUGINS_READ)
@blueprint.response(200, PluginSchema)
@blueprint.alt_response(404, "NOT_FOUND")
def get_plugin(name: str) -> Response:
    """Get one plugin

    The same as its entry in `GET /api/plugins`.
    """
    for plugin in components.plugin_manager.plugins:
        if plugin.name == name:
            return jsonify(dump_plugin(plugin, components.default_services, read_processes()))
    known = ", ".join(plugin.name for plugin in components.plugin_manager.plugins)
    raise NotFound(f"There is no plugin {name}; there are {known or 'none'}.")


def read_processes() -> list[RunningProcess] | None:
    """Read which processes run; None while that is not known."""
    try:
        return components.running_processes.running()
    except QueueUnavailable:
        return None
