"""Says in the OpenAPI document how a key is sent, and which scope each operation needs."""

import re
from typing import Any

from flask import Flask

from clustr.api.http.access import needs_of
from clustr.api.http.origins import SAFE_METHODS
from clustr.api.http.session_cookie import CSRF_HEADER, NAME, SECURE_NAME
from clustr.domain.access import ANY_SCOPE, Scope

KEY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key: `Authorization: Bearer clustr_…`.",
    },
    "api_key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key where `Authorization` is for a proxy in front.",
    },
}
SESSION_SCHEMES = {
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SECURE_NAME,
        "description": f"The session of a page, from `POST /api/session`; without TLS its name is "
        f"`{NAME}`.",
    },
    "csrf_token": {
        "type": "apiKey",
        "in": "header",
        "name": CSRF_HEADER,
        "description": "The `csrf_token` of the session, beside its cookie.",
    },
}
# 503: while the database is away, a key cannot be checked.
ANSWERS_OF_KEYS = (
    ("401", "UNAUTHORIZED"),
    ("403", "FORBIDDEN"),
    ("503", "SERVICE_UNAVAILABLE"),
)
PARAMETER = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")


def describe_access(document: dict[str, Any], app: Flask) -> dict[str, Any]:
    """Add to each operation what its route says of scopes, and the answers to who has none.

    The description is the same whatever `AUTH` is; what programs read as a requirement, `security`,
    is there while keys are in use.
    """
    uses_keys: bool = app.config["USES_KEYS"]
    document["components"]["securitySchemes"] = KEY_SCHEMES | SESSION_SCHEMES
    for rule in app.url_map.iter_rules():
        item = document["paths"].get(PARAMETER.sub(r"{\1}", rule.rule), {})
        for method in rule.methods or ():
            if operation := item.get(method.lower()):
                needs = needs_of(app, rule, method)
                _describe(operation, needs)
                if uses_keys:
                    operation["security"] = _security(method) if needs else []
    return document


def _security(method: str) -> list[dict[str, list[str]]]:
    """The ways in which a request may say whose it is, each with all that it takes."""
    keys: list[dict[str, list[str]]] = [{name: []} for name in KEY_SCHEMES]
    session: dict[str, list[str]] = {"session": []}
    return [*keys, session if method in SAFE_METHODS else session | {"csrf_token": []}]


def _describe(operation: dict[str, Any], needs: frozenset[Scope]) -> None:
    said = f"{operation.get('description', '')}\n\n{_in_words(needs)}"
    operation["description"] = said.strip()
    operation["x-scopes"] = sorted(needs)
    if needs:
        for status, name in ANSWERS_OF_KEYS:
            reference = {"$ref": f"#/components/responses/{name}"}
            operation["responses"].setdefault(status, reference)
        operation["responses"] = dict(sorted(operation["responses"].items()))


def _in_words(needs: frozenset[Scope]) -> str:
    if not needs:
        return "It needs no key in a header."
    if needs == ANY_SCOPE:
        return "With `AUTH=keys` it needs a key, with whichever scope."
    each = [f"`{scope}` ({scope.meaning})" for scope in sorted(needs)]
    which = " or ".join(each)
    what = ", by what is done" if len(each) > 1 else ""
    return f"With `AUTH=keys` it needs a key with the scope {which}{what}."
