"""`/api/uploads/{id}/share`: addresses of an upload for others, which can be revoked."""

from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify
from marshmallow import Schema, fields, validate

from clustr.api.http.access import current_access, require_scope
from clustr.api.http.audit import recording
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import (
    EXAMPLE_ID,
    HEX_ID,
    UPLOAD_ID_PARAMETER,
    BodySchema,
    StrictBoolean,
    date_time,
    number,
    text,
)
from clustr.api.http.request_context import components
from clustr.api.http.signatures import sent_metadata
from clustr.api.http.urls import shared_file_url, shared_thumbnail_url
from clustr.api.schemas.uploads import EXAMPLE_URL
from clustr.database.shares import NewShare, Share
from clustr.domain.access import Scope
from clustr.domain.audit import AuditAction
from clustr.domain.errors import InvalidInput
from clustr.domain.models import FilesMetadata
from clustr.services.thumbnails import SIZES, snap_size

LONGEST_DAYS = 3650
SHARE_ID_PARAMETER = {
    "in": "path",
    "name": "share_id",
    "required": True,
    "schema": {"type": "string", "pattern": HEX_ID.regex.pattern},
    "description": "The `id` of a share.",
    "example": EXAMPLE_ID,
}

blueprint = Blueprint(
    "shares",
    __name__,
    url_prefix="/api/uploads/<upload_id:upload_id>",
    description="Addresses of an upload for others, which can be revoked",
)


class ShareOrderSchema(BodySchema):
    """What is to be shared."""

    days = fields.Integer(
        required=True,
        strict=True,
        validate=validate.Range(1, LONGEST_DAYS),
        metadata={"description": "For how many days at least; it ends at midnight UTC."},
    )
    metadata = StrictBoolean(
        load_default=False,
        metadata={
            "description": "Whether the original is sent with its metadata, the place where it was "
            "taken among it; that needs the scope `files:read`."
        },
    )
    size = fields.Integer(
        strict=True,
        validate=validate.Range(SIZES[0], SIZES[-1]),
        metadata={
            "description": "For a thumbnail instead of the original: pixels of its longer side at "
            f"most; the next larger of {', '.join(map(str, SIZES))} is taken."
        },
    )


class ShareSchema(Schema):
    """A share, without its address."""

    id = text("The id of the share.", EXAMPLE_ID, required=True, validate=HEX_ID)
    created_at = date_time("When it was made.", required=True)
    created_by = text("The name of the key that made it.", None, required=True, allow_none=True)
    expires_at = date_time("When it ends.", required=True)
    metadata = fields.Boolean(
        required=True, metadata={"description": "Whether the original has its metadata."}
    )
    size = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "Of the thumbnail; null when the original is shared."},
    )


class NewShareSchema(ShareSchema):
    """A share that was made."""

    url = text(
        "Its address. It is shown once, and is the only thing that those need who are given it.",
        EXAMPLE_URL,
        required=True,
    )


class RevokedSharesSchema(Schema):
    """What came of revoking all shares of an upload or a key."""

    revoked = number("How many shares were revoked.", 3, required=True)


class SharesSchema(Schema):
    """The shares of an upload."""

    data = fields.List(fields.Nested(ShareSchema), required=True)


@blueprint.route(
    "/share", methods=["POST"], parameters=[UPLOAD_ID_PARAMETER], needs=Scope.UPLOADS_WRITE
)
@blueprint.arguments(ShareOrderSchema, example={"days": 30, "size": 1600})
@blueprint.response(201, NewShareSchema)
@blueprint.alt_response(403, "FORBIDDEN")
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(409, "CONFLICT")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def share_upload(order: dict[str, Any], upload_id: str) -> Response:
    """Make an address of an upload for others

    Whoever has the address gets the file without a key, by default a copy without metadata. It ends
    when its time is over, when the share is revoked, or with its upload; while the upload is in
    the trash it leads nowhere. An upload has 100 shares at most.
    """
    size = snap_size(order["size"]) if "size" in order else None
    if order["metadata"]:
        require_scope(Scope.FILES_READ)
        if size is not None:
            said = "A thumbnail never has metadata: leave out either `metadata` or `size`."
            raise InvalidInput({"metadata": [said]})
    filename = components.database.uploads.get(upload_id).filename
    expires = components.url_signer.expiry(order["days"])
    access = current_access()
    expires_at = datetime.fromtimestamp(expires, UTC)
    with recording(AuditAction.SHARE_UPLOAD, upload_id) as details:
        share = components.database.shares.add(
            NewShare(upload_id, expires_at, order["metadata"], size, access.name), access.key_id
        )
        details["share"] = share.id
        details["metadata"] = str(order["metadata"]).lower()
        details["expires_at"] = expires_at.isoformat()
        if size is not None:
            details["size"] = str(size)
    if size is None:
        metadata = sent_metadata() if order["metadata"] else FilesMetadata.STRIP
        url = shared_file_url(filename, metadata, share.id, expires)
    else:
        url = shared_thumbnail_url(upload_id, size, share.id, expires)
    response = jsonify(dump_share(share) | {"url": url})
    response.status_code = 201
    return response


@blueprint.route("/shares", parameters=[UPLOAD_ID_PARAMETER], needs=Scope.UPLOADS_WRITE)
@blueprint.response(200, SharesSchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_shares(upload_id: str) -> Response:
    """List the shares of an upload that have not ended, the oldest first

    Their addresses are not among it.
    """
    components.database.uploads.get(upload_id)
    shares = components.database.shares.of_upload(upload_id)
    return jsonify({"data": [dump_share(share) for share in shares]})


@blueprint.route(
    "/shares", methods=["DELETE"], parameters=[UPLOAD_ID_PARAMETER], needs=Scope.UPLOADS_WRITE
)
@blueprint.response(200, RevokedSharesSchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def revoke_shares(upload_id: str) -> Response:
    """Revoke all shares of an upload

    Their addresses are answered 403 from then on, whoever made them.
    """
    components.database.uploads.get(upload_id)
    with recording(AuditAction.REVOKE_SHARE, upload_id) as details:
        revoked = components.database.shares.remove_all(upload_id)
        details["revoked"] = str(revoked)
    return jsonify({"revoked": revoked})


@blueprint.route(
    "/shares/<share_id>",
    methods=["DELETE"],
    parameters=[UPLOAD_ID_PARAMETER, SHARE_ID_PARAMETER],
    needs=Scope.UPLOADS_WRITE,
)
@blueprint.response(204, description="It is revoked.")
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def revoke_share(upload_id: str, share_id: str) -> Response:
    """Revoke a share

    Its address is answered 403 from then on.
    """
    components.database.uploads.get(upload_id)
    with recording(AuditAction.REVOKE_SHARE, upload_id) as details:
        components.database.shares.remove(upload_id, share_id)
        details["share"] = share_id
    return Response(status=204)


def dump_share(share: Share) -> dict[str, Any]:
    """Convert a share to the shape of `ShareSchema`."""
    return {
        "id": share.id,
        "created_at": share.created_at,
        "created_by": share.made.created_by,
        "expires_at": share.made.expires_at,
        "metadata": share.made.metadata,
        "size": share.made.size,
    }
