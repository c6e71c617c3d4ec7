"""`/api/keys`: the keys with which requests come; for keys with the scope `admin`."""

from datetime import timedelta
from typing import Any

from flask import Response, jsonify
from marshmallow import Schema, ValidationError, fields, validate

from clustr.api.http.audit import recording
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import EXAMPLE_ID, date_time, date_time_input, number, text
from clustr.api.http.request_context import components
from clustr.api.resources.shares import RevokedSharesSchema
from clustr.database import Key
from clustr.domain.access import OWN, Rate, Scope
from clustr.domain.audit import AuditAction
from clustr.domain.key_text import EXAMPLE
from clustr.services.key_making import GRACE, NAME, IssuedKey, audit_details

SCOPES_DESCRIPTION = (
    "What it may do. With `own` among them, it sees and changes only the uploads that it brought."
)
RATE_DESCRIPTION = "How many requests it may send; `null`: any number."
BYTES_DESCRIPTION = "How many bytes it may send in a day; `null`: any number."
EXPIRES_DESCRIPTION = "Until when it is valid; `null`: without end."
EXAMPLE_NAME = "website"
EXAMPLE_SCOPES = ["uploads:read", "uploads:write"]
EXAMPLE_RATE = "60/min"
NAME_PARAMETER = {
    "in": "path",
    "name": "name",
    "required": True,
    "schema": {"type": "string"},
    "description": "The name of the key.",
    "example": EXAMPLE_NAME,
}
LONGEST_GRACE_SECONDS = 366 * 24 * 60 * 60

blueprint = Blueprint(
    "keys", __name__, url_prefix="/api/keys", description="With what requests have to come"
)


class RateField(fields.String):
    """How many requests are allowed in a time, such as `60/min`."""

    def _deserialize(self, *arguments: Any, **named: Any) -> Any:
        given = super()._deserialize(*arguments, **named)
        try:
            return Rate.parse(given)
        except ValueError as error:
            raise ValidationError(f"It is {error}.") from error


def scopes_field() -> fields.Field[Any]:
    return fields.List(
        fields.String(validate=validate.OneOf([*Scope, OWN])),
        required=True,
        metadata={"description": SCOPES_DESCRIPTION, "example": EXAMPLE_SCOPES},
    )


class KeySchema(Schema):
    """A key, without its text, of which nobody keeps more than a hash."""

    id = text("Its id; it stays the same when the key is rotated.", EXAMPLE_ID, required=True)
    name = text("Its name, by which uploads note who brought them.", EXAMPLE_NAME, required=True)
    prefix = text("The beginning of its text.", EXAMPLE[:15], required=True)
    scopes = scopes_field()
    rate = text(RATE_DESCRIPTION, EXAMPLE_RATE, required=True, allow_none=True)
    bytes_per_day = number(BYTES_DESCRIPTION, 5_368_709_120, required=True, allow_none=True)
    created_at = date_time("When it was made.", required=True)
    expires_at = date_time(EXPIRES_DESCRIPTION, required=True, allow_none=True)
    last_used_at = date_time(
        "When it was used last, to a minute; `null`: never.", required=True, allow_none=True
    )
    revoked_at = date_time(
        "When it was revoked; `null`: it was not.", required=True, allow_none=True
    )
    replaced_until = date_time(
        "Until when the text that it had before the last rotation is valid, too; `null` when it "
        "was never rotated.",
        required=True,
        allow_none=True,
    )


class IssuedKeySchema(KeySchema):
    """A key with its text, which is shown this once."""

    key = text("The key itself. Keep it: it is shown this once.", EXAMPLE, required=True)


class KeyListSchema(Schema):
    """All keys."""

    data = fields.List(
        fields.Nested(KeySchema),
        required=True,
        metadata={"description": "All keys, the newest first, the revoked ones included."},
    )


class NewKeySchema(Schema):
    """What a new key is to be."""

    name = text(
        "Its name: letters, digits and `. _ @ -`. No other key that is not revoked has it.",
        EXAMPLE_NAME,
        required=True,
        validate=validate.Regexp(f"^{NAME.pattern}$", error="Expected 1 to 64 letters and digits."),
    )
    scopes = scopes_field()
    expires_at = date_time_input(EXPIRES_DESCRIPTION, load_default=None, allow_none=True)
    rate = RateField(
        load_default=None,
        allow_none=True,
        metadata={
            "description": f"{RATE_DESCRIPTION} A number and one of `s`, `min`, `h`, `d`.",
            "example": EXAMPLE_RATE,
        },
    )
    bytes_per_day = number(
        BYTES_DESCRIPTION,
        5_368_709_120,
        load_default=None,
        allow_none=True,
        strict=True,
        validate=validate.Range(1, 2**53),
    )


class RevocationQuerySchema(Schema):
    """The query of a revocation."""

    shares = fields.Boolean(
        load_default=False,
        metadata={
            "description": "Revoke all shares that keys of this name have made, too; by default "
            "their addresses go on.",
            "example": True,
        },
    )


class RotationSchema(Schema):
    """How a key is to be rotated."""

    grace_seconds = number(
        "How long the text that it had goes on.",
        int(GRACE.total_seconds()),
        load_default=int(GRACE.total_seconds()),
        strict=True,
        validate=validate.Range(0, LONGEST_GRACE_SECONDS),
    )
    expires_at = date_time_input(
        "Until when the new text is valid; by default for as long as the one before was.",
        load_default=None,
        allow_none=True,
    )


@blueprint.route("", needs=Scope.ADMIN)
@blueprint.response(200, KeyListSchema)
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_keys() -> Response:
    """List all keys

    Nobody can see the text of a key again; of each the beginning is known, and a hash.
    """
    return jsonify({"data": [dump_key(key) for key in components.database.keys.newest_first()]})


@blueprint.route("", methods=["POST"], needs=Scope.ADMIN)
@blueprint.arguments(NewKeySchema, example={"name": EXAMPLE_NAME, "scopes": EXAMPLE_SCOPES})
@blueprint.response(201, IssuedKeySchema, description="The key, with its text.")
@blueprint.alt_response(409, "CONFLICT")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def create_key(asked: dict[str, Any]) -> Response:
    """Make a key

    The answer is the only place where its text ever is. A key with `admin` can give scopes that it
    has not itself; with `own` it cannot be combined. 409 when another key has the name.
    """
    name = asked.pop("name")
    with recording(AuditAction.CREATE_KEY) as details:
        details["name"] = name
        issued = components.key_making.create(name, asked.pop("scopes"), **asked)
        details |= audit_details(issued.key)
    response = dump_issued(issued)
    response.status_code = 201
    return response


@blueprint.route("/<name>", parameters=[NAME_PARAMETER], needs=Scope.ADMIN)
@blueprint.response(200, KeySchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_key(name: str) -> Response:
    """See a key"""
    return jsonify(dump_key(components.database.keys.get(name)))


@blueprint.route("/<name>", methods=["DELETE"], parameters=[NAME_PARAMETER], needs=Scope.ADMIN)
@blueprint.arguments(RevocationQuerySchema, location="query")
@blueprint.response(200, KeySchema, description="The key, which is revoked.")
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def revoke_key(query: dict[str, bool], name: str) -> Response:
    """Revoke a key

    Within 5 seconds no process takes it any more, nor the text that it had before a rotation. A
    new key may have its name, and then has its uploads.

    The shares that it made go on, because others rely on them. If the key has leaked, revoke them
    with `shares=true`, or later with `DELETE /api/keys/{name}/shares`.
    """
    with recording(AuditAction.REVOKE_KEY) as details:
        details["name"] = name
        key = components.database.keys.revoke(name)
        if query["shares"]:
            details["revoked_shares"] = str(components.database.shares.remove_all_made_by(name))
    return jsonify(dump_key(key))


@blueprint.route("/<name>/rotate", methods=["POST"], parameters=[NAME_PARAMETER], needs=Scope.ADMIN)
@blueprint.arguments(RotationSchema, example={"grace_seconds": 3600})
@blueprint.response(200, IssuedKeySchema, description="The key, with its new text.")
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def rotate_key(asked: dict[str, Any], name: str) -> Response:
    """Give a key another text

    The one that it had goes on for `grace_seconds`, so that nobody who uses it stands before a shut
    door. Its id, name, scopes and limits stay as they are.
    """
    grace = timedelta(seconds=asked["grace_seconds"])
    with recording(AuditAction.ROTATE_KEY) as details:
        details["name"] = name
        issued = components.key_making.rotate(name, grace, asked["expires_at"])
        details |= audit_details(issued.key) | {"grace_seconds": str(asked["grace_seconds"])}
    return dump_issued(issued)


@blueprint.route(
    "/<name>/shares", methods=["DELETE"], parameters=[NAME_PARAMETER], needs=Scope.ADMIN
)
@blueprint.response(200, RevokedSharesSchema)
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def revoke_shares_of_key(name: str) -> Response:
    """Revoke all shares that a key has made

    For when a key was revoked without its shares. It counts what keys of this name
    have made, those that are revoked included.
    """
    with recording(AuditAction.REVOKE_SHARE) as details:
        details["name"] = name
        revoked = components.database.shares.remove_all_made_by(name)
        details["revoked"] = str(revoked)
    return jsonify({"revoked": revoked})


def dump_key(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scope_names,
        "rate": str(key.rate) if key.rate else None,
        "bytes_per_day": key.bytes_per_day,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
        "replaced_until": key.replaced_until,
    }


def dump_issued(issued: IssuedKey) -> Response:
    response = jsonify({**dump_key(issued.key), "key": issued.text})
    response.headers["Cache-Control"] = "no-store"
    return response
