"""Guards around the functions of plugins' blueprints.

Whatever a function of a plugin raises is logged with the plugin's name, and concerns its own
request at most: `sys.exit()` in it does not end the server.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, Response, current_app, stream_with_context
from werkzeug import Response as BaseResponse
from werkzeug.exceptions import HTTPException

from clustr import logs
from clustr.domain.errors import ClustrError
from clustr.plugin_manager import Plugin, describe_plugin_exception

log = logs.logger(__name__)

Function = Callable[..., Any]


def guard_blueprint(app: Flask, plugin: Plugin, name: str) -> None:
    """Guard what a registered blueprint has before and after its requests, and for errors."""
    before, after = app.before_request_funcs, app.after_request_funcs
    teardown, handlers = app.teardown_request_funcs, app.error_handler_spec
    if name in before:
        before[name] = [_guard(plugin, function) for function in before[name]]
    if name in after:
        after[name] = [_guard_after(plugin, function) for function in after[name]]
    if name in teardown:
        teardown[name] = [_guard_teardown(plugin, function) for function in teardown[name]]
    for by_exception in handlers[name].values() if name in handlers else ():
        for exception, handler in by_exception.items():
            by_exception[exception] = _guard(plugin, handler)


def guard_view(plugin: Plugin, view: Function) -> Function:
    """Guard a view; what it streams is made within the request, so with its owner's uploads."""
    guarded = _guard(plugin, view)

    @functools.wraps(view)
    def streaming(*arguments: Any, **named: Any) -> Response:
        response = current_app.make_response(guarded(*arguments, **named))
        if response.is_streamed and not response.direct_passthrough:
            response.response = stream_with_context(response.iter_encoded())
        return response

    return streaming


def _guard(plugin: Plugin, function: Function) -> Function:
    """Guard a function whose exceptions fail the request."""

    @functools.wraps(function)
    def guarded(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except (HTTPException, ClustrError, KeyboardInterrupt):
            raise
        except Exception as error:
            _log(plugin, error)
            raise
        except BaseException as error:
            _log(plugin, error)
            raise RuntimeError(f"a plugin's view raised {type(error).__name__}") from error

    return guarded


def _guard_after(plugin: Plugin, function: Function) -> Function:
    """Guard a function that changes responses; one that fails leaves the response as it was.

    It gets responses to errors as well, and the functions of Clustr come after it.
    """

    @functools.wraps(function)
    def guarded(response: BaseResponse) -> BaseResponse:
        with _logging_all(plugin):
            changed = function(response)
            if isinstance(changed, BaseResponse):
                return changed
            raise TypeError(f"{function.__name__} returned no response")
        return response

    return guarded


def _guard_teardown(plugin: Plugin, function: Function) -> Function:
    @functools.wraps(function)
    def guarded(error: BaseException | None) -> None:
        with _logging_all(plugin):
            function(error)

    return guarded


@contextmanager
def _logging_all(plugin: Plugin) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _log(plugin, error)


def _log(plugin: Plugin, error: BaseException) -> None:
    log.error("view_raised", plugin=plugin.name, reason=describe_plugin_exception(error))
