"""The models of the domain: an upload, and the state of its analyses."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from clustr.domain.edits import Edit


class State(StrEnum):
    """The state of one analyzer's analysis of one upload."""

    WAITING = "waiting"  # for the result of an analyzer that it requires
    QUEUED = "queued"
    RUNNING = "running"
    DEFERRED = "deferred"  # the service it needs is unavailable; it is retried until it answers
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (State.WAITING, State.QUEUED, State.RUNNING, State.DEFERRED)


class Status(StrEnum):
    """The status of an upload, derived from its analyses."""

    PENDING = "pending"
    PROCESSED = "processed"
    ERROR = "error"


def status_of(states: list[State]) -> Status:
    """The status of an upload whose analyses are in these states."""
    if any(state in UNFINISHED for state in states):
        return Status.PENDING
    return Status.ERROR if State.FAILED in states else Status.PROCESSED


class FilesMetadata(StrEnum):
    """What is sent of the metadata of originals."""

    KEEP = "keep"
    STRIP_LOCATION = "strip-location"
    STRIP = "strip"


@dataclass(frozen=True, slots=True)
class Analysis:
    """One analyzer's state on one upload.

    Attributes:
        version: the version of the analyzer that produced the result; without a result, of the
            analyzer that is to run.
        attempts: how many runs began.
        started_at, finished_at: of the last run.
        failed_version: the version of the analyzer that failed, if the last run did.
        requires: the analyzers whose results it waits for.
        result: the last good one, which stays until a newer run succeeds.
        provenance: what gave the result besides the analyzer's version: `plugin`,
            `plugin_version`, `model` and `config_hash`.
        vectors: the ids of the vectors that belong to the result, by their fields.
        private: the paths of the fields of the result that are not for clients.
    """

    name: str
    version: int
    state: State
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    failed_version: int | None = None
    requires: tuple[str, ...] = ()
    result: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None
    vectors: Mapping[str, str] = field(default_factory=dict)
    private: tuple[str, ...] = ()


def are_under_way(analyses: Sequence[Analysis], names: Iterable[str]) -> bool:
    """Whether an analysis by one of these analyzers is about to end.

    It is while it is queued or running, or waits for another one that is. A deferred one is not:
    nobody knows when its service is back.

    Args:
        analyses: all of an upload, each after those that it requires.
    """
    needed = set(names)
    for analysis in reversed(analyses):
        if analysis.name not in needed:
            continue
        if analysis.state in (State.QUEUED, State.RUNNING):
            return True
        if analysis.state is State.WAITING:
            needed.update(analysis.requires)
    return False


@dataclass(frozen=True, slots=True)
class Retry:
    """Identifies an upload when a client repeats its request.

    Attributes:
        key: the `Idempotency-Key` that the client gave the request.
        fingerprint: of all files of the request, to tell whether it is the same.
        position: which of the accepted files of the request the upload is, from 0; where another
            one has the number already, that of all accepted files is added.
    """

    key: str
    fingerprint: str
    position: int


@dataclass(frozen=True, slots=True)
class Upload:
    """One stored image with its metadata.

    `width` and `height` are in pixels and as displayed, that is with the EXIF orientation applied;
    `size` is in bytes; `filename` is `<id>.<extension of the true type>`; `taken_at_local` is what
    the clock showed at `taken_at`, without a time zone; `edited_at` is when a person last changed
    it; `uploaded_by` is the name of the key that brought it, and `owner` the same if that key sees
    only what its name brought.
    """

    id: str
    original_name: str
    filename: str
    upload_time: datetime
    updated_at: datetime
    size: int
    content_type: str
    sha256: str
    width: int
    height: int
    status: Status
    analyses: tuple[Analysis, ...]
    request_id: str
    duplicate_of: str | None = None
    taken_at: datetime | None = None
    taken_at_local: datetime | None = None
    caption: str | None = None
    tags: tuple[str, ...] = ()
    faces: tuple[dict[str, Any], ...] = ()
    face_cluster_ids: tuple[str, ...] = ()
    retry: Retry | None = None
    edited_at: datetime | None = None
    uploaded_by: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class NewUpload(Upload):
    """An upload that is not stored yet.

    Attributes:
        edit: what the person who brings it says of it.
    """

    edit: Edit = field(default_factory=dict)
