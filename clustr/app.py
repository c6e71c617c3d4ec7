"""The web application: `create_app` is what `wsgi.py`, gunicorn and the tests call."""

from collections.abc import Callable
from typing import Any

from flask import Flask

from clustr import api, logs
from clustr.api.http.access import owner_of_request
from clustr.api.http.urls import url_of
from clustr.api.plugin_routes import problem_with_routes
from clustr.components import build_web
from clustr.domain.errors import DatabaseUnavailable
from clustr.settings import Settings, read_settings, require_auth_choice

log = logs.logger(__name__)


class Application(Flask):
    """A Flask whose views are all synchronous."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function itself: Flask's check for coroutines takes a tenth of a request."""
        return func


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application. Call it in the process that serves, after any fork.

    The application also starts while the database cannot be reached, and serves once it can. It
    does not start when the database refuses its credentials.

    Args:
        settings: by default those of the environment and `.env`.

    Raises:
        StartUpError: a setting cannot be used.
    """
    settings = settings or read_settings()
    logs.configure(settings.log_format, settings.log_level)
    require_auth_choice(settings, [settings.host])
    components = build_web(settings, url_of, problem_with_routes, owner_of_request)
    try:
        components.database.make_indexes()
        components.database.make_result_indexes()
    except DatabaseUnavailable as error:
        log.error("indexes_not_made", reason=str(error))
    app = Application("clustr", static_folder=None)
    api.register(app, components)
    return app
