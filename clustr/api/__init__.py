"""The entrance over HTTP: a module for each resource, with its shapes in `clustr.api.schemas`."""

from flask import Flask

from clustr import __version__
from clustr.api import (
    analyses,
    bulk_uploads,
    debug,
    docs,
    extensions,
    files,
    health,
    jobs,
    one_upload,
    openapi,
    plugins,
    stats,
    status,
    tags,
    trash,
    upload,
    uploads,
    wire,
)
from clustr.api.conversation import converse
from clustr.api.current import EXTENSION, FILTERS
from clustr.api.errors import Api
from clustr.api.filters import Filters
from clustr.api.routing import UploadId
from clustr.parts import WebParts

DESCRIPTION = """\
Clustr takes images in over HTTP, keeps them safely, answers at once, and lets *analyzers* say what
is in them. Upload with `POST /api/upload`; then read `GET /api/uploads/{upload_id}` until its
`status` is `processed`.

Errors are problem documents (RFC 9457). Every answer has an `X-Request-ID`, under which the logs
tell what happened. Times are ISO 8601 in UTC; durations are milliseconds.

A request that calls the service by a name which it was not told is its own (`ALLOWED_HOSTS`) is
answered 421. Pages of other origins than `CORS_ORIGINS` can read no answer, and what they ask to be
changed is answered 403; clients that are no browsers are not concerned.
"""

# What no request but an upload comes near to.
LARGEST_BODY_BYTES = 1_000_000


def register(app: Flask, parts: WebParts) -> None:
    """Give an app all routes of the API, with the parts that they work with."""
    app.extensions[EXTENSION] = parts
    filters = app.extensions[FILTERS] = Filters(parts.host.filters.values())
    app.json = wire.Provider(app)
    app.url_map.converters["upload_id"] = UploadId
    app.config.update(
        API_TITLE="Clustr",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.0.3",
        OPENAPI_URL_PREFIX="/",
        MAX_CONTENT_LENGTH=LARGEST_BODY_BYTES,
    )
    converse(app, parts.settings)
    api = Api(app, spec_kwargs={"info": {"description": DESCRIPTION}})
    of_uploads = (upload, uploads, one_upload, bulk_uploads, trash, analyses, jobs, tags, stats)
    for blueprint in (status, *of_uploads, health, plugins):
        api.register_blueprint(blueprint.blueprint)
    api.register_blueprint(files.of_upload)
    api.register_blueprint(files.blueprint, url_prefix=parts.settings.upload_url_path)
    if parts.settings.debug_endpoints:
        api.register_blueprint(debug.blueprint)
    app.register_blueprint(docs.blueprint)
    # Plugins come last: of two things with the same name, Flask takes the first.
    for plugin, blueprint in parts.blueprints:
        extensions.mount(app, api, plugin, blueprint)
    api.complete = lambda document: openapi.complete(
        extensions.describe(document, parts.host, filters)
    )
