"""The shape of what whoever asks may do."""

from marshmallow import Schema, fields, validate

from clustr.domain.access import Scope


class HeldScopesSchema(Schema):
    """The scopes of a request."""

    scopes = fields.List(
        fields.String(validate=validate.OneOf([*Scope])),
        required=True,
        metadata={"description": "What it may do.", "example": ["uploads:read", "uploads:write"]},
    )
    own_only = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether it sees and changes only the uploads that this key brought.",
            "example": False,
        },
    )
