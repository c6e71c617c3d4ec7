"""Callers of the web side of a workshop, each with a key."""

import io
import itertools
from typing import Any

import photographs
from flask import Flask, g, request
from werkzeug.test import TestResponse
from workshop import Workshop

from clustr.domain.access import Access, Scope

ACCESS = "tests.access"

_numbers = itertools.count(1)


def new_photograph() -> bytes:
    """A picture that nobody has uploaded yet."""
    return photographs.unique("jpg", next(_numbers))


def take_access() -> None:
    """Have the current request come with the access that its caller has."""
    if ACCESS in request.environ:
        g.access = request.environ[ACCESS]


class Caller:
    """Somebody who calls the web side with a key.

    Args:
        name: the name of the key.
        own_only: whether `own` is among its scopes.
    """

    def __init__(self, workshop: Workshop, name: str, own_only: bool = True):
        self._workshop = workshop
        self._access = Access(name, name, frozenset(Scope), own_only)

    @property
    def _app(self) -> Flask:
        app = self._workshop.app
        before = app.before_request_funcs.setdefault(None, [])
        if take_access not in before:
            before.append(take_access)
        return app

    def ask(self, method: str, path: str, **options: Any) -> TestResponse:
        environ = {ACCESS: self._access}
        return self._app.test_client().open(
            path, method=method, environ_overrides=environ, buffered=True, **options
        )

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.ask("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.ask("POST", path, **({"json": body} if body is not None else {}), **options)

    def send(self, content: bytes, name: str = "a.jpg", **options: Any) -> TestResponse:
        """Upload one file."""
        path = options.pop("path", "/api/upload")
        files = {"files": (io.BytesIO(content), name)}
        return self.ask("POST", path, data=files, **options)

    def upload(self, content: bytes | None = None, name: str = "a.jpg", **options: Any) -> str:
        """Upload one file, or a new picture; the id of the upload."""
        answer = self.send(content or new_photograph(), name, **options)
        assert answer.status_code == 201, answer.json
        upload_id: str = answer.json["data"][0]["id"]
        return upload_id
