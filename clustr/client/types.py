"""The shapes of answers, as in the OpenAPI document; a newer service may have more fields."""

from typing import Any, NotRequired, TypedDict


class Dimensions(TypedDict):
    """Width and height in pixels, as displayed."""

    width: int
    height: int


class Analysis(TypedDict):
    """The state of one analyzer's analysis of one upload; times are in ISO 8601 and UTC."""

    status: str
    version: int
    attempts: int
    started_at: str | None
    finished_at: str | None
    stale: bool
    provenance: dict[str, Any] | None
    error: str | None
    failed_version: NotRequired[int]
    result: dict[str, Any] | None


class Upload(TypedDict):
    """One stored image; `size` is in bytes, and `analyses` are by the names of the analyzers."""

    id: str
    original_name: str
    filename: str
    file_path: str
    url: str
    thumbnail_url: str
    upload_time: str
    taken_at: str | None
    taken_at_local: str | None
    size: int
    content_type: str
    sha256: str
    dimensions: Dimensions
    status: str
    caption: str | None
    tags: list[str]
    faces: list[dict[str, Any]]
    face_cluster_ids: list[str]
    analyses: dict[str, Analysis]
    duplicate_of: str | None
    uploaded_by: str | None
    updated_at: str
    version: str


class AcceptedFile(TypedDict):
    """A file that was uploaded and is safely stored."""

    index: int
    id: str
    stored_filename: str
    preview_url: str
    original_filename: str
    file_size: int
    content_type: str
    status: str
    duplicate_of: str | None
    reused: bool


class CaptionAndTags(TypedDict):
    """The words for an image."""

    caption: str | None
    tags: list[str]
