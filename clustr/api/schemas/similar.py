"""Schemas of `/api/uploads/<id>/similar`."""

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import Schema, fields, validate

from clustr.api.http.fields import text
from clustr.api.schemas.listed_fields import FieldSelection
from clustr.api.schemas.listing import ListedUploadSchema
from clustr.database import MALFORMED_RECORD_ERRORS, log_foreign_record
from clustr.services.nearest import Neighbor

# The parameters of the query beside the filters of the list of uploads.
PARAMETERS: dict[str, fields.Field[Any]] = {
    "by": fields.String(
        required=True,
        validate=validate.Length(1, 100),
        metadata={
            "description": "The analyzer and the field of its vector, such as `embed.embedding`; "
            "the analyzer is enough where it has one vector.",
        },
    ),
    "max_distance": fields.Float(
        validate=validate.Range(min=0),
        metadata={"description": "Those at most so far, by the `metric` of the vector."},
    ),
}
# Those of the list of uploads that this has not.
LEFT_OUT = ("page", "cursor", "sort")


class SimilarUploadSchema(ListedUploadSchema):
    """An upload in a list, with its distance."""

    class Meta:
        exclude = ("matched",)

    distance = fields.Float(
        required=True,
        validate=validate.Range(min=0),
        metadata={
            "description": "How far its vector is: 1 minus the cosine, the euclidean distance, or "
            "how many bits differ.",
            "example": 0.125,
        },
    )


class SimilarPageSchema(Schema):
    """The uploads that are similar to one, the nearest first."""

    data = fields.List(
        fields.Nested(SimilarUploadSchema),
        required=True,
        metadata={"description": "The nearest first."},
    )
    by = text("The analyzer and the field of the vector.", "embed.embedding", required=True)
    metric = text(
        "What the distances are.",
        "cosine",
        required=True,
        validate=validate.OneOf(["cosine", "euclidean", "hamming"]),
    )


def dump_neighbors(
    neighbors: Sequence[Neighbor],
    documents: Mapping[str, Mapping[str, Any]],
    selection: FieldSelection,
) -> list[dict[str, Any]]:
    """Convert neighbors to the shape of `SimilarUploadSchema`; those without document are gone.

    Args:
        documents: by the ids of the uploads.
    """
    data = []
    for neighbor in neighbors:
        document = documents.get(neighbor.upload_id)
        if document is None:
            continue
        try:
            data.append({**selection.dump(document), "distance": round(neighbor.distance, 6)})
        except MALFORMED_RECORD_ERRORS as error:  # Records that Clustr did not write are left out.
            log_foreign_record(neighbor.upload_id, f"{type(error).__name__}: {error}")
    return data
