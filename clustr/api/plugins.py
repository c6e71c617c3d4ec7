"""`/api/plugins`: which plugins there are and what they bring."""

from flask import Response, jsonify

from clustr.api.blueprint import Blueprint
from clustr.api.current import parts
from clustr.api.service_schemas import PluginListSchema, PluginSchema, plugin_on_wire
from clustr.errors import NotFound

NAME = {
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


@blueprint.route("")
@blueprint.response(200, PluginListSchema)
def list_plugins() -> Response:
    """List all plugins, those that could not be loaded among them

    Each with its `state`, the `reason` where it could not be loaded or needs to be configured, and
    its analyzers with the shapes of their results.
    """
    return jsonify(
        {"data": [plugin_on_wire(one, parts.default_services) for one in parts.host.plugins]}
    )


@blueprint.route("/<name>", parameters=[NAME])
@blueprint.response(200, PluginSchema)
@blueprint.alt_response(404, "NOT_FOUND")
def get_plugin(name: str) -> Response:
    """Get one plugin

    The same as its entry in `GET /api/plugins`.
    """
    for plugin in parts.host.plugins:
        if plugin.name == name:
            return jsonify(plugin_on_wire(plugin, parts.default_services))
    known = ", ".join(plugin.name for plugin in parts.host.plugins)
    raise NotFound(f"There is no plugin {name}; there are {known or 'none'}.")
