"""Which fields of an upload a page has, and how they are read and written."""

from collections.abc import Callable, Mapping
from typing import Any

from clustr.api.http.etags import version_of
from clustr.api.http.json_provider import with_fraction
from clustr.api.http.service_addresses import without_addresses
from clustr.api.http.urls import FileUrls
from clustr.api.schemas.listing import RESULTS_FIELD
from clustr.api.schemas.uploads import dump_local_time
from clustr.components import WebComponents
from clustr.database import (
    COUNTED_TOTAL,
    MALFORMED_RECORD_ERRORS,
    Page,
    SearchPage,
    local_date_of,
    log_foreign_record,
)
from clustr.domain.models import State
from clustr.domain.result_fields import field_tree, only_fields, without_fields
from clustr.plugin_manager import private_fields
from clustr.search.query import SearchQuery

# The fields of an upload that the listing reads. Naming them costs MongoDB half of what naming the
# excluded fields would cost.
PROJECTION = dict.fromkeys(
    (
        *("original_name", "filename", "upload_time", "taken_at", "size", "content_type", "sha256"),
        *("dimensions", "status", "caption", "tags", "faces", "face_cluster_ids", "duplicate_of"),
        *("uploaded_by", "updated_at", "edited_at", "taken_at_local", "sort_date"),
    ),
    1,
)
ANALYSIS_FIELDS = (
    *("name", "state", "version", "attempts", "started_at", "finished_at", "provenance", "error"),
    "private",
    "failed_version",
)
PROJECTION_WITH_ANALYSES = PROJECTION | {f"analyses.{name}": 1 for name in ANALYSIS_FIELDS}


class FieldSelection:
    """Dumps the uploads of one page, with the selected fields.

    It reads documents of MongoDB directly: making objects of them first would take most of the time
    of a page of 100. A test checks that its output equals that of `dump_upload`.

    Args:
        components: gives the keys of files, and the current version of each analyzer.
        names: the fields to dump, as an `UploadFieldList` loads them; None for all without results.
        with_results: whether to include all results even if `names` does not.
    """

    def __init__(
        self,
        components: WebComponents,
        names: tuple[str, ...] | None,
        with_results: bool = False,
    ):
        asked = names or ()
        self._with_results = with_results or RESULTS_FIELD in asked
        self._paths: dict[str, list[str]] = {}
        for name in asked:
            if name.startswith("analyses.") and name != RESULTS_FIELD:
                analyzer_name, _, path = name.removeprefix("analyses.").partition(".")
                self._paths.setdefault(analyzer_name, []).append(path)
        self._trees = {
            analyzer_name: {} if "" in paths else field_tree(paths)
            for analyzer_name, paths in self._paths.items()
        }
        self._all_analyses = names is None or self._with_results or "analyses" in asked
        self._names = None
        if names is not None:
            own = [name for name in asked if not name.startswith("analyses.")]
            analyses = ["analyses"] if self._with_results or self._paths else []
            self._names = [*dict.fromkeys(["id", *own, *analyses])]
        self._versions, self._private = {}, {}
        for name, analyzer in components.plugin_manager.analyzers.items():
            self._versions[name] = analyzer.version
            self._private[name] = private_fields(analyzer.result_schema)
        self._key = components.storage.key
        self._urls = FileUrls()

    @property
    def projection(self) -> dict[str, int]:
        """The projection for MongoDB: the fields that the selection reads."""
        if self._names is not None and "analyses" not in self._names:
            return PROJECTION
        if self._with_results or not all(self._trees.values()):
            return PROJECTION_WITH_ANALYSES | {"analyses.result": 1}
        # MongoDB refuses a path that is inside another one.
        first_keys = {key for tree in self._trees.values() for key in tree}
        return PROJECTION_WITH_ANALYSES | {f"analyses.result.{key}": 1 for key in first_keys}

    def dump(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a document of the database to the shape of `ListedUploadSchema`.

        For a document that Clustr did not write, it raises one of `MALFORMED_RECORD_ERRORS`.
        """
        get, upload_id, filename = document.get, str(document["_id"]), document["filename"]
        if not filename.startswith(upload_id):
            raise ValueError("its file cannot be called so")
        duplicate_of = get("duplicate_of")
        wire = {
            "id": upload_id,
            "original_name": document["original_name"],
            "filename": filename,
            "file_path": self._key(filename),
            "url": self._urls.of_file(filename),
            "thumbnail_url": self._urls.of_thumbnail(upload_id),
            "upload_time": with_fraction(document["upload_time"]),
            "taken_at": with_fraction(get("taken_at")),
            "taken_at_local": dump_local_time(local_date_of(document)),
            "size": document["size"],
            "content_type": document["content_type"],
            "sha256": document["sha256"],
            "dimensions": document["dimensions"],
            "status": document["status"],
            "caption": get("caption"),
            "tags": get("tags") or [],
            "faces": get("faces") or [],
            "face_cluster_ids": get("face_cluster_ids") or [],
            "analyses": {
                a["name"]: self._dump_analysis(a)
                for a in get("analyses", ())
                if self._all_analyses or a["name"] in self._paths
            },
            "duplicate_of": str(duplicate_of) if duplicate_of else None,
            "uploaded_by": get("uploaded_by"),
            "updated_at": with_fraction(document["updated_at"]),
            "version": version_of(upload_id, get("edited_at")),
        }
        return wire if self._names is None else {name: wire[name] for name in self._names}

    def _dump_analysis(self, analysis: Mapping[str, Any]) -> dict[str, Any]:
        get, name, version = analysis.get, analysis["name"], analysis["version"]
        if not self._all_analyses and self._trees[name]:
            return {"result": self._dump_result(analysis)}
        wire = {
            "status": analysis["state"],
            "version": version,
            "attempts": get("attempts", 0),
            "started_at": with_fraction(get("started_at")),
            "finished_at": with_fraction(get("finished_at")),
            "stale": version < self._versions.get(name, version),
            "provenance": get("provenance"),
            "error": get("error") and without_addresses(analysis["error"]),
        }
        if wire["status"] == State.FAILED and get("failed_version") is not None:
            wire["failed_version"] = get("failed_version")
        if self._with_results or name in self._paths:
            wire["result"] = self._dump_result(analysis)
        return wire

    def _dump_result(self, analysis: Mapping[str, Any]) -> Any:
        private = (*(analysis.get("private") or ()), *self._private.get(analysis["name"], ()))
        result = without_fields(analysis.get("result"), field_tree(private))
        return result if self._with_results else only_fields(result, self._trees[analysis["name"]])


def dump_page(
    page: Page, selection: FieldSelection, number: int | None, limit: int
) -> dict[str, Any]:
    """Convert a page of the listing to the shape of `UploadPageSchema`."""
    return _dump_page(page, selection.dump, number, limit)


def dump_search_page(
    search_page: SearchPage,
    search_query: SearchQuery,
    selection: FieldSelection,
    number: int | None,
    limit: int,
) -> dict[str, Any]:
    """Convert a page of a search to the shape of `UploadPageSchema`."""

    def dump(document: Mapping[str, Any]) -> dict[str, Any]:
        terms = frozenset(document["search"]["terms"])
        return selection.dump(document) | {"matched": search_query.matched_fields(terms)}

    body = _dump_page(search_page.page, dump, number, limit)
    return body | {"order": search_page.order} if search_page.order else body


def _dump_page(
    page: Page,
    dump: Callable[[Mapping[str, Any]], dict[str, Any]],
    number: int | None,
    limit: int,
) -> dict[str, Any]:
    data = []
    for document in page.uploads:
        try:
            data.append(dump(document))
        except MALFORMED_RECORD_ERRORS as error:  # Records that Clustr did not write are left out.
            log_foreign_record(str(document["_id"]), f"{type(error).__name__}: {error}")
    is_whole = number == 1 and page.next_cursor is None
    return {
        "data": data,
        "total": len(data) if is_whole else page.total,
        "total_is_estimate": page.total is None or page.total > COUNTED_TOTAL,
        "page": number,
        "limit": limit,
        "next_cursor": page.next_cursor,
    }
