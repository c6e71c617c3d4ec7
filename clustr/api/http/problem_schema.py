"""The schema of all error responses."""

from typing import Any

from marshmallow import Schema, fields, validate

from clustr.api.http.fields import EXAMPLE_HASH, Pattern, date_time, number, text


class ProblemSchema(Schema):
    """A problem document (RFC 9457)."""

    type = text(
        "Which problem this is: what a program should look at.",
        "urn:clustr:problem:not_found",
        required=True,
        validate=Pattern("^urn:clustr:problem:[a-z_]+$"),
    )
    title = text("The problem in a few words.", "Not found", required=True)
    status = number("The HTTP status.", 404, required=True, validate=validate.Range(400, 599))
    detail = text(
        "What went wrong this time, for people.", "There is no such upload.", required=True
    )
    instance = text("The path that was asked for.", "/api/uploads", required=True)
    request_id = text(
        "The `X-Request-ID` of the answer: what the logs say of the request bears it.",
        EXAMPLE_HASH[:32],
        required=True,
    )
    errors: fields.Field[Any] = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={
            "description": "For each field that is wrong: why, and what is allowed. Only there "
            "when fields are wrong.",
            "example": {"limit": ["Not a valid integer."]},
        },
    )
    trashed_at = date_time(
        "Since when the upload is in the trash; only there when `type` is "
        "`urn:clustr:problem:in_trash`: it can be restored."
    )
    missing_scopes: fields.Field[Any] = fields.List(
        fields.String(),
        metadata={
            "description": "The key of the request has none of these scopes, and needs one of "
            "them. Only there when `type` is `urn:clustr:problem:missing_scope`.",
            "example": ["uploads:write"],
        },
    )
