"""What a client says of the files that it uploads, in the same request."""

from typing import Any

from marshmallow import ValidationError, fields

from clustr.api.http.errors import messages_by_field
from clustr.api.schemas.changes import EditSchema, edit_from_body
from clustr.domain import json_input
from clustr.domain.edits import NO_EDIT, Edit
from clustr.domain.errors import InvalidInput

METADATA_FIELD = "metadata"
# For each file the body of a `PATCH` of its upload, or nothing.
EDITS = fields.List(fields.Nested(EditSchema, allow_none=True))
EXPECTED = (
    "Expected an object for one file, or a list with an object or null for each file in the order "
    'of the files, such as [{"caption": "our cat", "tags": {"add": ["cat"]}}, null].'
)


def edits_from_metadata(content: bytes | bytearray, file_count: int) -> list[Edit]:
    """Read the part `metadata` of a form.

    Args:
        file_count: how many files the form has.

    Returns:
        the edit of each file, in the order of the files.

    Raises:
        InvalidInput: it is no JSON, has no edits, or has them for more or fewer files.
    """
    try:
        said = json_input.loads(bytes(content), max_bytes=len(content))
    except json_input.InvalidJSON as error:
        raise InvalidInput({METADATA_FIELD: [f"{error} {EXPECTED}"]}) from None
    said = [said] if isinstance(said, dict) else said
    if not isinstance(said, list):
        raise InvalidInput({METADATA_FIELD: [EXPECTED]})
    if len(said) != file_count:
        counts = f"It has {len(said)} of them, and the request {file_count} files."
        raise InvalidInput({METADATA_FIELD: [f"{counts} {EXPECTED}"]})
    try:
        edits: list[dict[str, Any] | None] = EDITS.deserialize(said)
    except ValidationError as error:
        messages = {"form": {METADATA_FIELD: error.messages}}
        raise InvalidInput(messages_by_field(messages)) from error
    return [edit_from_body(edit) if edit else NO_EDIT for edit in edits]
