"""`/api/audit`: who removed, restored and ordered what, made or revoked keys, and logged in."""

from typing import Any

from flask import Response, jsonify
from marshmallow import Schema, fields, validate

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import EXAMPLE_ID, HEX_ID, QueryInteger, date_time, one_of, text
from clustr.api.http.request_context import components
from clustr.database import AuditFilter
from clustr.domain.access import Scope
from clustr.domain.audit import AuditAction, AuditOutcome

blueprint = Blueprint("audit", __name__, url_prefix="/api/audit", description="Who did what")


class AuditEntrySchema(Schema):
    """What somebody did."""

    id = text("The id of the entry.", EXAMPLE_ID, required=True, validate=HEX_ID)
    at = date_time("When it began.", required=True)
    action = one_of(AuditAction, "What was done.")
    outcome = one_of(
        AuditOutcome,
        "What came of it: `done`, `failed` (nothing was done, or not all), or `begun` while it is "
        "under way, and when the process ended before it could say.",
    )
    key = text(
        "The name of the key; `null` without keys, and when a command on the host did it.",
        "website",
        required=True,
        allow_none=True,
    )
    address = text(
        "From where the request came; `null` when a command on the host did it.",
        "192.0.2.17",
        required=True,
        allow_none=True,
    )
    request_id = text(
        "The `X-Request-ID` of the request, under which the logs say more.",
        "7f2c9d0e5b1a4c3f8e6d7a9b0c1d2e3f",
        required=True,
        allow_none=True,
    )
    upload_id = text("The upload that it was done to.", EXAMPLE_ID, required=True, allow_none=True)
    details = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={
            "description": "What else there is to say, such as the `job_id` and its `kind`, what "
            "a key may do, or who has an account on the host and made it there (`os_user`).",
            "example": {"job_id": EXAMPLE_ID, "kind": "delete"},
        },
    )


class AuditPageSchema(Schema):
    """A page of the audit log."""

    data = fields.List(fields.Nested(AuditEntrySchema), required=True)
    next_cursor = text(
        "The `cursor` of the next page; `null` on the last one.",
        EXAMPLE_ID,
        required=True,
        allow_none=True,
    )


class AuditQuerySchema(Schema):
    """Which entries to list."""

    key = fields.String(metadata={"description": "Only what was done with the key of this name."})
    action = fields.Enum(
        AuditAction,
        by_value=fields.String,
        metadata={"description": "Only what was done in this way."},
    )
    upload_id = fields.String(
        validate=HEX_ID, metadata={"description": "Only what was done to this upload by itself."}
    )
    limit = QueryInteger(
        load_default=20,
        validate=validate.Range(1, 100),
        metadata={"description": "How many entries."},
    )
    cursor = fields.String(
        validate=HEX_ID, metadata={"description": "The `next_cursor` of the page before."}
    )


@blueprint.route("", needs=Scope.ADMIN)
@blueprint.arguments(AuditQuerySchema, location="query")
@blueprint.response(200, AuditPageSchema)
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_audit_log(query: dict[str, Any]) -> Response:
    """See who removed, restored or ordered what, made or revoked keys, or logged in

    The newest comes first. Entries are kept for as long as `AUDIT_DAYS` says, 90 days by default.
    An upload that comes or is changed has none. A job has one, whatever it is done to, and what is
    removed because its days in the trash are over has none.
    """
    wanted = AuditFilter(query.get("key"), query.get("action"), query.get("upload_id"))
    entries, next_cursor = components.database.audit.newest(
        wanted, query["limit"], query.get("cursor")
    )
    data = [
        {
            "id": entry.id,
            "at": entry.at,
            "action": entry.action,
            "outcome": entry.outcome,
            "key": entry.actor.key,
            "address": entry.actor.address,
            "request_id": entry.actor.request_id,
            "upload_id": entry.upload_id,
            "details": entry.details,
        }
        for entry in entries
    ]
    return jsonify({"data": data, "next_cursor": next_cursor})
