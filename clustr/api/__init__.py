"""The HTTP API: a module for each resource, the schemas of bodies, and the code shared by all.

The views translate between HTTP and `clustr.services` or `clustr.database`, which do the work.
"""

from flask import Flask

from clustr import __version__
from clustr.api import openapi, plugin_filters, plugin_routes
from clustr.api.http import json_provider
from clustr.api.http.access import require_keys
from clustr.api.http.access_description import describe_access
from clustr.api.http.errors import ProblemApi
from clustr.api.http.middleware import register_middleware
from clustr.api.http.old_ids import handle_not_found
from clustr.api.http.quotas import RequestQuotas
from clustr.api.http.request_context import EXTENSION
from clustr.api.http.routing import UploadIdConverter
from clustr.api.http.signatures import take_signatures
from clustr.api.plugin_filters import PluginFilters
from clustr.api.resources import (
    analyses,
    audit,
    debug,
    docs,
    files,
    gallery,
    health,
    jobs,
    keys,
    limits,
    plugins,
    root,
    session,
    shares,
    similar,
    stats,
    suggest,
    tags,
    timeline,
    trash,
    upload,
    upload_detail,
    uploads,
    uploads_bulk,
)
from clustr.components import WebComponents
from clustr.domain.errors import NotFound

DESCRIPTION = """\
Clustr takes images in over HTTP, keeps them safely, answers at once, and lets *analyzers* say what
is in them. Upload with `POST /api/upload`; then read `GET /api/uploads/{upload_id}` until its
`status` is `processed`, or wait for that with the header `Prefer: wait=10`.

Errors are problem documents (RFC 9457). Every answer has an `X-Request-ID`, under which the logs
say what happened. Times are ISO 8601 in UTC; durations are milliseconds.

A request that calls the service by a name which it was not told is its own (`ALLOWED_HOSTS`) is
answered 421. Pages of other origins than `CORS_ORIGINS` can read no answer, and what they ask to be
changed is answered 403; clients that are no browsers are not concerned.

With `AUTH=keys` a request comes with a key, as `Authorization: Bearer clustr_…` or
`X-API-Key: clustr_…`. Without one, or with one that is not right, it is answered 401; with one that
lacks the scope that the operation needs, 403 with `missing_scopes`. `GET /api/limits` says what a
key may do. A key with `own` among its scopes is for the uploads alone that were sent with it.

A page of the service itself has a session instead of a key, so that no script of it can read the
key: `POST /api/session` sets its cookie. Requests that change something and come with the cookie
need the header `X-CSRF-Token`; without it they are answered 403. A key in a header wins over the
cookie, and from pages of other origins the cookie does not count.

The `url`, `preview_url` and `thumbnail_url` in answers are signed then: whoever has one gets that
file without a key, until the time that it says in `expires`. An address is the same all day. Those
of uploads in the trash are not signed: they take a key.
Nothing in it can be changed: then it is answered 403, as it is when its time is over.

Where the requests or bytes of a key or of an address are limited, answers say in `RateLimit-Policy`
what is allowed (`"requests";q=60;w=60`: 60 in 60 seconds) and in `RateLimit` how much of it is left
(`"requests";r=42;t=12`: 42, and in 12 seconds more). What is more than allowed is answered 429 with
`Retry-After`, and nothing of it is done. An upload with more bytes than its key may bring in a day
is answered 413 (`larger_than_quota`), because waiting would not help.
"""

# The largest body of any request but an upload, whose limit is a setting.
LARGEST_BODY_BYTES = 1_000_000


def register(app: Flask, components: WebComponents) -> None:
    """Register all routes of the API with an app, and the components that the views use."""
    app.extensions[EXTENSION] = components
    manager = components.plugin_manager
    filters = PluginFilters(manager)
    app.extensions[plugin_filters.EXTENSION] = filters
    app.json = json_provider.OrjsonProvider(app)
    app.url_map.converters["upload_id"] = UploadIdConverter
    app.config.update(
        API_TITLE="Clustr",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.0.3",
        OPENAPI_URL_PREFIX="/",
        MAX_CONTENT_LENGTH=LARGEST_BODY_BYTES,
        USES_KEYS=components.settings.auth == "keys",
    )
    register_middleware(app, components.settings)
    api = ProblemApi(app, spec_kwargs={"info": {"description": DESCRIPTION}})
    app.register_error_handler(NotFound, handle_not_found)
    upload_resources = (
        upload,
        uploads,
        similar,
        timeline,
        upload_detail,
        shares,
        uploads_bulk,
        trash,
        analyses,
        jobs,
        tags,
        suggest,
        stats,
    )
    for blueprint in (root, *upload_resources, session, limits, audit, health, plugins):
        api.register_blueprint(blueprint.blueprint)
    api.register_blueprint(files.upload_blueprint)
    api.register_blueprint(files.blueprint, url_prefix=components.settings.upload_url_path)
    if components.settings.debug_endpoints:
        api.register_blueprint(debug.blueprint)
    if app.config["USES_KEYS"]:
        # While anybody may do everything, nobody can make keys for the time after that.
        api.register_blueprint(keys.blueprint)
        api.register_blueprint(session.log_in_blueprint)
    app.register_blueprint(docs.blueprint)
    app.register_blueprint(gallery.blueprint)
    plugin_routes.explain_missing_routes(app, manager)
    # Plugins come last: of two templates or rules that are the same, Flask takes the first.
    for plugin, blueprint in components.blueprints:
        plugin_routes.mount(app, api, plugin, blueprint)
    take_signatures(app)
    quotas = RequestQuotas(components.quotas, components.settings.rate_limit)
    if app.config["USES_KEYS"]:
        require_keys(app, components.authentication, quotas, components.settings.base_url)
    elif components.settings.keeps_quotas:
        app.before_request(quotas.check)
    if components.settings.keeps_quotas:
        app.after_request(quotas.add_headers)
        app.teardown_request(quotas.end)
    api.complete_document = lambda document: describe_access(
        openapi.complete(plugin_routes.describe_plugins(document, manager, filters)), app
    )
