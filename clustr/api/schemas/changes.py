"""The shapes on the wire of changes to an upload, and of the trash."""

from collections.abc import Mapping
from copy import copy
from datetime import timedelta
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from clustr.api.http.fields import (
    EXAMPLE_ID,
    BodySchema,
    Pattern,
    TrueOrFalse,
    WholeNumber,
    moment,
    number,
    point_in_time,
    text,
)
from clustr.api.http.urls import trashed_thumbnail_url_of, trashed_url_of
from clustr.api.schemas.filters import FilterSchema, upload_ids
from clustr.api.schemas.listing import RESULTS, NameList
from clustr.api.schemas.uploads import LENGTH_OF_NAME, AnalysisSchema, UploadSchema, dump_upload
from clustr.components import WebComponents
from clustr.database import (
    SelectedUploads,
    TagEdit,
    TrashedUpload,
    TrashPage,
    distinct_tags,
    tag_key,
)
from clustr.database.editing import MOST_TAGS
from clustr.database.trash import COUNTED_TOTAL
from clustr.services.bulk import BULK_KINDS
from clustr.services.intake import clean_name, clean_text

LONGEST_CAPTION = 1000
LONGEST_TAG = 100
CURSOR_PATTERN = "^[0-9a-f]{24}-[0-9a-f]{1,11}$"


class CleanText(fields.String):
    """What a human wrote, on one line and without control characters.

    Args:
        may_be_empty: whether an empty text says something, too.
    """

    def __init__(self, may_be_empty: bool = False, **more: Any):
        super().__init__(**more)
        self.may_be_empty = may_be_empty

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        sent = super()._deserialize(value, *args, **kwargs)
        self._validate(sent)  # and once more when it is cleaned
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


def tag_list(description: str, least: int = 1) -> fields.List:
    """Tags that a client sends; of those that are there twice the first stays later."""
    each = CleanText(validate=validate.Length(1, LONGEST_TAG))
    return fields.List(
        each,
        validate=validate.Length(least, MOST_TAGS),
        metadata={"description": description, "example": ["cat", "sofa"]},
    )


class TagsEditSchema(BodySchema):
    """What a human says of the tags: `set` alone, or `add`, `remove` or both.

    Tags that differ in the case of letters alone are one tag.
    """

    error_messages: ClassVar = {
        "type": 'Expected an object with `set`, or `add`, `remove` or both: {"add": ["cat"]}.'
    }

    set = tag_list("These tags and no others, whatever analyzers say.", least=0)
    add = tag_list(
        "These tags besides what analyzers say. One that is there stays as it is written: to add "
        "`Cat` where `cat` is adds nothing."
    )
    remove = tag_list(
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
    """What a human says of an upload; what is left out stays as it is."""

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
        validate=LENGTH_OF_NAME,
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
    taken_at = point_in_time(
        "When the picture was taken; without an offset it is UTC. Null for what the analyzers say.",
        allow_none=True,
    )

    @validates_schema
    def check_any(self, words: dict[str, Any], **_more: Any) -> None:
        if not words:
            allowed = ", ".join(f"`{name}`" for name in self.fields)
            raise ValidationError(f"Nothing to change; give at least one of {allowed}.", "body")


class ConditionSchema(Schema):
    """On what condition an upload is changed."""

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
    """How an upload is to be removed."""

    permanently = fields.Boolean(
        load_default=False,
        metadata={"description": "Remove it for good, also from the trash.", "example": True},
    )


class TrashedSchema(UploadSchema):
    """An upload in the trash. Its URLs are others until it is restored, and nothing is at the ones
    that it had; it is no duplicate of any other.
    """

    trashed_at = moment("When it was removed.", required=True)
    expires_at = moment("When it is removed for good.", required=True)


class TrashQuerySchema(Schema):
    """Which part of the trash is wanted."""

    limit = WholeNumber(
        load_default=20,
        validate=validate.Range(1, 100),
        metadata={"description": "How many uploads on a page."},
    )
    # What is no cursor is told by the database.
    cursor = fields.String(
        metadata={
            "description": "The `next_cursor` of the answer before, to go on from there.",
            "pattern": CURSOR_PATTERN,
        }
    )
    fields_ = NameList(
        [*TrashedSchema().fields, RESULTS],
        data_key="fields",
        metadata={
            "description": "The fields of an upload to answer with besides its id, with commas "
            f"between them; with `{RESULTS}` the results of the analyses, too. By default all but "
            "results.",
            "example": "thumbnail_url,trashed_at",
        },
    )


class ListedTrashedSchema(TrashedSchema):
    """An upload of the trash as it is listed: its id, and the fields that were asked for."""


for _name, _field in ListedTrashedSchema._declared_fields.items():
    ListedTrashedSchema._declared_fields[_name] = optional = copy(_field)
    optional.required = _name == "id"


class TrashPageSchema(Schema):
    """A part of the trash, what was removed last first."""

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
    """What is to be done to which uploads."""

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
    tags = tag_list("Which, for `tag` and `untag`.")
    dry_run = TrueOrFalse(
        load_default=False,
        metadata={"description": "Change nothing; only say how many there are.", "example": False},
    )

    @validates_schema
    def check_uploads(self, order: dict[str, Any], **_more: Any) -> None:
        if ("ids" in order) == ("filter" in order):
            said = "Give either `ids` or `filter`; an empty `filter` is met by all uploads."
            raise ValidationError(said, "ids")

    @validates_schema
    def check_tags(self, order: dict[str, Any], **_more: Any) -> None:
        wanted = order["action"] in ("tag", "untag")
        if wanted and "tags" not in order:
            raise ValidationError("Missing data for required field.", "tags")
        if not wanted and "tags" in order:
            raise ValidationError("Only for `tag` and `untag`.", "tags")


class MatchedSchema(Schema):
    """What an order would come to."""

    matched = number(
        "How many uploads there are.", 500, required=True, validate=validate.Range(min=0)
    )


def uploads_of_order(order: dict[str, Any]) -> SelectedUploads:
    """Which uploads an order in the shape of `BulkOrderSchema` is about."""
    ids = order.get("ids")
    return SelectedUploads(tuple(ids) if ids is not None else None, order.get("filter", {}))


def dump_trashed(
    trashed: TrashedUpload, components: WebComponents, with_results: bool
) -> dict[str, Any]:
    """An upload of the trash in the shape of `TrashedSchema`."""
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
    """A part of the trash in the shape of `TrashPageSchema`."""
    names = query.get("fields_")
    with_results = names is not None and RESULTS in names
    data = [dump_trashed(each, components, with_results) for each in page.found]
    if names is not None:
        kept = {"id", *names} | ({"analyses"} if with_results else set())
        data = [{name: value for name, value in each.items() if name in kept} for each in data]
    return {
        "data": data,
        "total": page.total,
        "limit": query["limit"],
        "next_cursor": page.next_cursor,
    }


def edit_from(edit: dict[str, Any]) -> dict[str, Any]:
    """What an edit in the shape of `EditSchema` says."""
    words = dict(edit)
    if words.get("tags") is not None:
        words["tags"] = tag_edit_from(words["tags"])
    return words


def tag_edit_from(tags: dict[str, Any]) -> TagEdit:
    """What is said of the tags in the shape of `TagsEditSchema`, each tag once."""
    return TagEdit(**{name: tuple(distinct_tags(said)) for name, said in tags.items()})
