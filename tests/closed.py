"""A service that asks for keys, and its callers with one, or with a signed address."""

import io
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from clustr.api.http.request_context import EXTENSION
from clustr.components import WebComponents
from clustr.domain.access import Scope

READ, FILES, WRITE = Scope.UPLOADS_READ, Scope.FILES_READ, Scope.UPLOADS_WRITE


def kind(answer: TestResponse) -> tuple[int, str]:
    """The status of a problem document, and the end of its type."""
    return answer.status_code, answer.json["type"].rpartition(":")[2]


class Closed:
    """The web side of such a service, in this process."""

    def __init__(self, app: Flask):
        self.web: WebComponents = app.extensions[EXTENSION]
        self._app = app
        self._keys: dict[frozenset[str], str] = {}

    def key(self, *scopes: str) -> dict[str, str]:
        wanted = frozenset(scopes)
        if wanted not in self._keys:
            name = "-".join(sorted(scopes)).replace(":", "-")
            self._keys[wanted] = self.web.key_making.create(name, scopes).text
        return {"Authorization": f"Bearer {self._keys[wanted]}"}

    def browser(self) -> FlaskClient:
        """A client that keeps the cookies that it is given."""
        return self._app.test_client()

    def ask(self, address: str, method: str = "GET", **options: Any) -> TestResponse:
        """Ask for an address of an answer; without a key, unless `headers` have one."""
        parts = urlsplit(address)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return self._app.test_client().open(path, method=method, buffered=True, **options)

    def upload(self, content: bytes) -> dict[str, str]:
        files = {"files": (io.BytesIO(content), "photograph.jpg")}
        answer = self.ask("/api/upload", "POST", data=files, headers=self.key(WRITE))
        assert answer.status_code == 201, answer.text
        [accepted] = answer.json["data"]
        return accepted

    def read(self, upload_id: str, *scopes: Scope) -> dict[str, str]:
        return self.ask(f"/api/uploads/{upload_id}", headers=self.key(*scopes)).json
