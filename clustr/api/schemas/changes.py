"""Schemas of edits, bulk changes and the trash."""

from collections.abc import Mapping
from copy import copy
from datetime import timedelta
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from clustr.api.http.fields import (
    EXAMPLE_ID,
    BodySchema,
    Pattern,
    QueryInteger,
    StrictBoolean,
    date_time,
    date_time_input,
    number,
    text,
)
from clustr.api.http.urls import trashed_thumbnail_url_of, trashed_url_of
from clustr.api.schemas.analyses import AnalysisSchema
from clustr.api.schemas.filters import FilterSchema, upload_ids
from clustr.api.schemas.listing import RESULTS_FIELD, NameList
from clustr.api.schemas.uploads import NAME_LENGTH, UploadSchema, dump_upload
from clustr.components import WebComponents
from clustr.database import (
    TrashedUpload,
    TrashPage,
    UploadSelection,
    distinct_tags,
    tag_key,
)
from clustr.database.editing import MAX_TAGS
from clustr.database.trash import COUNTED_TOTAL
from clustr.domain.edits import Edit, TagEdit
from clustr.services.intake import clean_name, clean_text
from clustr.services.job_kinds import BULK_KINDS

LONGEST_CAPTION = 1000
LONGEST_TAG = 100
CURSOR_PATTERN = "^[0-9a-f]{24}-[0-9a-f]{1,11}$"


class CleanText(fields.String):
    """Text that a person wrote, converted to one line without control characters.

    Args:
        may_be_empty: whether an empty text is valid, too.
    """

    def __init__(self, may_be_empty: bool = False, **more: Any):
        super().__init__(**more)
        self.may_be_empty = may_be_empty

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        sent = super()._deserialize(value, *args, **kwargs)
        self._validate(sent)  # marshmallow validates the cleaned text again
        cleaned = clean_text(sent)
        if not cleaned and not (self.may_be_empty and not sent):
            empty = ', or "" for none' if self.may_be_empty else ""
            raise ValidationError(f"Expected a text with something to be seen in it{empty}.")
        return cleaned


class FileName(fields.String):
    """A file name, cleaned as at the upload."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        sent = super()._deserialize(value, *args, **kwargs)
        self._validate(sent)
        return clean_name(sent)


NO_EDIT = {"type": 'Expected an object with `set`, or `add`, `remove` or both: {"add": ["cat"]}.'}


def tag_list_field(description: str, min_tags: int = 1) -> fields.List[Any]:
    """Make a field for tags that a client sends; duplicates are dropped later."""
    tag = CleanText(validate=validate.Length(1, LONGEST_TAG))
    return fields.List(
        tag,
        validate=validate.Length(min_tags, MAX_TAGS),
        metadata={"description": description, "example": ["cat", "sofa"]},
    )


class TagsEditSchema(BodySchema):
    """A person's edit of tags: `set` alone, or `add`, `remove` or both.

    Tags that differ in the case of letters alone are one tag.
    """

    error_messages = NO_EDIT

    set = tag_list_field("These tags and no others, whatever analyzers say.", min_tags=0)
    add = tag_list_field(
        "These tags besides what analyzers say. One that is there stays as it is written: to add "
        "`Cat` where `cat` is adds nothing."
    )
    remove = tag_list_field(
        "Not these tags, in whatever case, also when analyzers say them again: `CAT` removes `cat`."
    )

    @validates_schema
    def check_members(self, tags: dict[str, Any], **_more: Any) -> None:
        if not tags:
            raise ValidationError("Give `set`, or `add`, `remove` or both.", "set")
        if "set" in tags and len(tags) > 1:
            raise ValidationError("Give either `set`, or `add` and `remove`.", "set")
        added = {*map(tag_key, tags.get("add", ()))}
        if both := [tag for tag in tags.get("remove", ()) if tag_key(tag) in added]:
            raise ValidationError(f"Also in `add`: {', '.join(sorted(both))}.", "remove")


class EditSchema(BodySchema):
    """A person's edit of an upload; fields that are left out stay as they are."""

    caption = CleanText(
        may_be_empty=True,
        allow_none=True,
        validate=validate.Length(max=LONGEST_CAPTION),
        metadata={
            "description": 'What is to be seen; "" for no caption, whatever analyzers say; null '
            "for what the analyzers say.",
            "example": "our cat on the sofa",
        },
    )
    original_name = FileName(
        allow_none=True,
        validate=NAME_LENGTH,
        metadata={
            "description": "The name of the file; folders and control characters are taken away. "
            "Null for the one that it was uploaded with.",
            "example": "cat.jpg",
        },
    )
    tags = fields.Nested(
        TagsEditSchema,
        allow_none=True,
        metadata={"description": "Which tags; null for those that the analyzers say."},
    )
    taken_at = date_time_input(
        "When the picture was taken; without an offset it is UTC. Null for what the analyzers say.",
        allow_none=True,
    )

    @validates_schema
    def check_any(self, edit: dict[str, Any], **_more: Any) -> None:
        if not edit:
            allowed = ", ".join(f"`{name}`" for name in self.fields)
            raise ValidationError(f"Nothing to change; give at least one of {allowed}.", "body")


class ConditionSchema(Schema):
    """The headers with conditions for a change of an upload."""

    if_match = fields.String(
        data_key="If-Match",
        metadata={
            "description": "The `version` of the upload in double quotes, or its `ETag`, as it was "
            "read: if a person has changed it since, it is left as it is and the answer is 412. "
            "Analyses that end do not change it.",
        },
    )
    if_none_match = fields.String(
        data_key="If-None-Match",
        metadata={
            "description": "As `If-Match`, but the version that the upload shall not have: if it "
            "has it, or with `*`, it is left as it is and the answer is 412 (RFC 9110, 13.1.2).",
        },
    )


class AnalysesOfUploadSchema(Schema):
    """The analyses of one upload."""

    data = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(AnalysisSchema),
        required=True,
        metadata={"description": "By the names of the analyzers."},
    )


class RemovalQuerySchema(Schema):
    """The query of a removal."""

    permanently = fields.Boolean(
        load_default=False,
        metadata={"description": "Remove it for good, also from the trash.", "example": True},
    )


class TrashedSchema(UploadSchema):
    """An upload in the trash. Until it is restored, it has other URLs and the former ones are
    answered 404; it counts as no duplicate.
    """

    trashed_at = date_time("When it was removed.", required=True)
    expires_at = date_time("When it is removed for good.", required=True)


class TrashQuerySchema(Schema):
    """The query of the trash."""

    limit = QueryInteger(
        load_default=20,
        validate=validate.Range(1, 100),
        metadata={"description": "How many uploads on a page."},
    )
    # The database refuses an invalid cursor.
    cursor = fields.String(
        metadata={
            "description": "The `next_cursor` of the answer before, to go on from there.",
            "pattern": CURSOR_PATTERN,
        }
    )
    fields_ = NameList(
        [*TrashedSchema().fields, RESULTS_FIELD],
        data_key="fields",
        metadata={
            "description": "The fields of an upload to answer with besides its id, with commas "
            f"between them; with `{RESULTS_FIELD}` the results of the analyses, too. By default "
            "all but results.",
            "example": "thumbnail_url,trashed_at",
        },
    )


class ListedTrashedSchema(TrashedSchema):
    """An upload of the trash in a list: its id, and the selected fields."""


for _name, _field in ListedTrashedSchema._declared_fields.items():
    ListedTrashedSchema._declared_fields[_name] = optional = copy(_field)
    optional.required = _name == "id"


class TrashPageSchema(Schema):
    """A page of the trash, ordered by the time of removal, the latest first."""

    data = fields.List(fields.Nested(ListedTrashedSchema), required=True)
    total = number(
        f"How many are in the trash; null when they are more than {COUNTED_TOTAL}.",
        42,
        required=True,
        allow_none=True,
        validate=validate.Range(0, COUNTED_TOTAL),
    )
    limit = number("How many were asked for.", 20, required=True, validate=validate.Range(1, 100))
    next_cursor = text(
        "Ask with it for what follows; null at the end.",
        f"{EXAMPLE_ID}-19aab1c2d3e",
        required=True,
        allow_none=True,
        validate=Pattern(CURSOR_PATTERN),
    )


class BulkOrderSchema(BodySchema):
    """An order to change many uploads."""

    action = fields.String(
        required=True,
        validate=validate.OneOf([kind.kind for kind in BULK_KINDS]),
        metadata={
            "description": "`delete` puts them into the trash, `restore` brings them back; `tag` "
            "adds `tags`, `untag` removes them, as an edit does, whatever the case of letters.",
            "example": "tag",
        },
    )
    ids = upload_ids("Only these uploads; not beside `filter`.")
    filter = fields.Nested(
        FilterSchema,
        metadata={"description": "All uploads that meet all of this; not beside `ids`."},
    )
    tags = tag_list_field("Which, for `tag` and `untag`.")
    dry_run = StrictBoolean(
        load_default=False,
        metadata={"description": "Change nothing; only say how many there are.", "example": False},
    )

    @validates_schema
    def check_uploads(self, order: dict[str, Any], **_more: Any) -> None:
        if ("ids" in order) == ("filter" in order):
            message = "Give either `ids` or `filter`; an empty `filter` is met by all uploads."
            raise ValidationError(message, "ids")

    @validates_schema
    def check_tags(self, order: dict[str, Any], **_more: Any) -> None:
        needs_tags = order["action"] in ("tag", "untag")
        if needs_tags and "tags" not in order:
            raise ValidationError("Missing data for required field.", "tags")
        if not needs_tags and "tags" in order:
            raise ValidationError("Only for `tag` and `untag`.", "tags")


class MatchedSchema(Schema):
    """The answer to an order with `dry_run`."""

    matched = number(
        "How many uploads there are.", 500, required=True, validate=validate.Range(min=0)
    )


def selected_uploads_from(order: dict[str, Any]) -> UploadSelection:
    """Return the selection of an order in the shape of `BulkOrderSchema`."""
    ids = order.get("ids")
    return UploadSelection(tuple(ids) if ids is not None else None, order.get("filter", {}))


def dump_trashed(
    trashed: TrashedUpload, components: WebComponents, with_results: bool
) -> dict[str, Any]:
    """Convert an upload of the trash to the shape of `TrashedSchema`."""
    upload = trashed.upload
    return {
        **dump_upload(upload, components, with_results),
        "file_path": components.storage.trash.key(upload.filename),
        "url": trashed_url_of(upload.id),
        "thumbnail_url": trashed_thumbnail_url_of(upload.id),
        "trashed_at": trashed.trashed_at,
        "expires_at": trashed.trashed_at + timedelta(days=components.settings.trash_days),
    }


def dump_trash_page(
    page: TrashPage, query: Mapping[str, Any], components: WebComponents
) -> dict[str, Any]:
    """Convert a page of the trash to the shape of `TrashPageSchema`."""
    names = query.get("fields_")
    with_results = names is not None and RESULTS_FIELD in names
    data = [dump_trashed(item, components, with_results) for item in page.found]
    if names is not None:
        selected_names = {"id", *names} | ({"analyses"} if with_results else set())
        data = [
            {name: value for name, value in item.items() if name in selected_names} for item in data
        ]
    return {
        "data": data,
        "total": page.total,
        "limit": query["limit"],
        "next_cursor": page.next_cursor,
    }


def edit_from_body(edit: dict[str, Any]) -> Edit:
    """Convert an edit from the shape of `EditSchema` to the arguments of the database's `edit`."""
    result = dict(edit)
    if result.get("tags") is not None:
        result["tags"] = tag_edit_from_body(result["tags"])
    return result


def tag_edit_from_body(tags: dict[str, Any]) -> TagEdit:
    """Convert an edit of tags from the shape of `TagsEditSchema`, dropping duplicate tags."""
    return TagEdit(**{name: tuple(distinct_tags(tag_list)) for name, tag_list in tags.items()})
