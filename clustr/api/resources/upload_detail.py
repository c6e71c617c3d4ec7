"""`/api/uploads/{id}`: changes of one upload, and its analyses."""

from contextlib import suppress
from typing import Any

from flask import Response, jsonify
from marshmallow import Schema

from clustr.api.http.audit import recording
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.etags import add_etag, versions_from_headers
from clustr.api.http.fields import UPLOAD_ID_PARAMETER, links_to_upload, text
from clustr.api.http.preferences import (
    PREFER_PARAMETER,
    PREFERENCE_APPLIED_HEADER,
    WaitPreference,
)
from clustr.api.http.request_context import components
from clustr.api.http.urls import public_path
from clustr.api.schemas.analyses import AnalysisSchema, dump_analysis
from clustr.api.schemas.changes import (
    AnalysesOfUploadSchema,
    ConditionSchema,
    EditSchema,
    RemovalQuerySchema,
    edit_from_body,
)
from clustr.api.schemas.uploads import EXAMPLE_ETAG, UploadSchema, dump_upload
from clustr.api.schemas.waiting import RunQuerySchema
from clustr.domain.access import Scope
from clustr.domain.audit import AuditAction
from clustr.domain.errors import DatabaseUnavailable, NotFound
from clustr.domain.models import UNFINISHED, Analysis, Upload

ANALYZER_PARAMETER = {
    "in": "path",
    "name": "analyzer",
    "required": True,
    "schema": {"type": "string"},
    "description": "The name of the analyzer.",
    "example": "dimensions",
}
ETAG_HEADER = {
    "ETag": {
        "schema": {"type": "string"},
        "description": "Of the upload as it is now; for `If-Match` and `If-None-Match`.",
        "example": EXAMPLE_ETAG,
    }
}
LOCATION_HEADER = {
    "Location": {
        "schema": {"type": "string"},
        "description": "Where the analysis is, to see how far it is.",
    }
}
TRASH_LINKS = links_to_upload(
    "$request.path.upload_id",
    {
        "get_trashed_upload": "The upload as it is in the trash.",
        "get_trashed_original": "The image under the name that it had.",
        "get_trashed_thumbnail": "A small copy.",
    },
)
EXAMPLE_EDIT = {"caption": "our cat on the sofa", "tags": {"add": ["cat"], "remove": ["dog"]}}

blueprint = Blueprint(
    "one_upload", __name__, url_prefix="/api/uploads", description="What is done to one upload"
)


@blueprint.route(
    "/<upload_id:upload_id>",
    methods=["PATCH"],
    parameters=[UPLOAD_ID_PARAMETER],
    needs=Scope.UPLOADS_WRITE,
)
@blueprint.arguments(ConditionSchema, location="headers")
@blueprint.arguments(EditSchema, example=EXAMPLE_EDIT)
@blueprint.response(200, UploadSchema, headers=ETAG_HEADER, description="The upload as it is now.")
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(412, "PRECONDITION_FAILED")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def edit_upload(headers: dict[str, str], edit: dict[str, Any], upload_id: str) -> Response:
    """Say what is to be seen

    What a human says wins over what analyzers say, also when they run again: a tag that was removed
    stays removed. With null the analyzers' word counts again. What is left out stays as it is.

    With `If-Match` the upload is changed only if no person has changed it since it was read; that
    an analysis has ended since does not matter.
    """
    versions = versions_from_headers(headers, upload_id)
    return upload_response(
        components.database.editing.edit(upload_id, edit_from_body(edit), versions)
    )


@blueprint.route(
    "/<upload_id:upload_id>",
    methods=["DELETE"],
    parameters=[UPLOAD_ID_PARAMETER],
    needs=Scope.UPLOADS_DELETE,
)
@blueprint.arguments(ConditionSchema, location="headers")
@blueprint.arguments(RemovalQuerySchema, location="query")
@blueprint.doc(responses={204: {"links": TRASH_LINKS}})
@blueprint.response(204, description="It is removed.")
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(412, "PRECONDITION_FAILED")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
@blueprint.alt_response(507, "INSUFFICIENT_STORAGE")
def remove_upload(headers: dict[str, str], query: dict[str, bool], upload_id: str) -> Response:
    """Put an upload into the trash

    It is gone from everywhere but `/api/trash/{upload_id}`; what asks for it is answered 404 with
    the `type` `urn:clustr:problem:in_trash` and `trashed_at`. `POST …/restore` brings it back
    until the trash is emptied of it, after thirty days if it is not set otherwise (without any it
    is removed for good). With `permanently` it is removed for good at once, also from the trash.
    """
    versions = versions_from_headers(headers, upload_id)
    for_good = query["permanently"] or components.removal.trash_days == 0
    action = AuditAction.PURGE_UPLOAD if for_good else AuditAction.TRASH_UPLOAD
    with recording(action, upload_id):
        components.removal.remove(upload_id, query["permanently"], versions=versions)
    return Response(status=204)


@blueprint.route(
    "/<upload_id:upload_id>/restore",
    methods=["POST"],
    parameters=[UPLOAD_ID_PARAMETER],
    needs=Scope.UPLOADS_WRITE,
)
@blueprint.arguments(ConditionSchema, location="headers")
@blueprint.response(200, UploadSchema, headers=ETAG_HEADER, description="The upload, as it was.")
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(409, "CONFLICT")
@blueprint.alt_response(412, "PRECONDITION_FAILED")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
@blueprint.alt_response(507, "INSUFFICIENT_STORAGE")
def restore_upload(headers: dict[str, str], upload_id: str) -> Response:
    """Bring an upload back from the trash

    With everything that was known of it; analyses that had not come to their end go on.
    """
    versions = versions_from_headers(headers, upload_id)
    with recording(AuditAction.RESTORE_UPLOAD, upload_id):
        upload = components.removal.restore(upload_id, versions=versions)
    return upload_response(upload)


@blueprint.route(
    "/<upload_id:upload_id>/analyses", parameters=[UPLOAD_ID_PARAMETER], needs=Scope.UPLOADS_READ
)
@blueprint.response(200, AnalysesOfUploadSchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_analyses_of_upload(upload_id: str) -> Response:
    """List the analyses of one upload, with their results

    By the analyzers' names, in the order in which they are run. Ask again until each has a status
    in which it has ended: `succeeded`, `skipped`, `failed` or `cancelled`.
    """
    upload = components.database.uploads.get(upload_id)
    return jsonify({"data": {a.name: dump_analysis(a, components, True) for a in upload.analyses}})


@blueprint.route(
    "/<upload_id:upload_id>/analyses/<analyzer>",
    parameters=[UPLOAD_ID_PARAMETER, ANALYZER_PARAMETER],
    needs=Scope.UPLOADS_READ,
)
@blueprint.response(200, AnalysisSchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_analysis(upload_id: str, analyzer: str) -> Response:
    """Get one analysis of an upload

    Its `status` says how far it is; the `result`, once there is one, has the shape that
    `GET /api/plugins` gives as the analyzer's `result_schema`.
    """
    analysis = analysis_of(components.database.uploads.get(upload_id), analyzer)
    return jsonify(dump_analysis(analysis, components, True))


class TracebackSchema(Schema):
    """Where in its plugin an analysis failed."""

    traceback = text(
        "The lines of the plugin through which it went, and the exception; `null` when it did not "
        "fail there.",
        'File "brightness.py", line 14, in analyze\n    mean = sum(values) / len(values)\n'
        "ZeroDivisionError: division by zero",
        required=True,
        allow_none=True,
    )


@blueprint.route(
    "/<upload_id:upload_id>/analyses/<analyzer>/traceback",
    parameters=[UPLOAD_ID_PARAMETER, ANALYZER_PARAMETER],
    needs=Scope.ADMIN,
)
@blueprint.response(200, TracebackSchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_traceback(upload_id: str, analyzer: str) -> Response:
    """See where in its plugin an analysis failed

    For authors and operators of the plugin; `error` of the analysis says it for everybody else.
    """
    _, traceback = components.database.analyses.traceback(upload_id, analyzer)
    return jsonify({"traceback": traceback})


@blueprint.route(
    "/<upload_id:upload_id>/analyses/<analyzer>",
    methods=["POST"],
    parameters=[UPLOAD_ID_PARAMETER, ANALYZER_PARAMETER, PREFER_PARAMETER],
    needs=Scope.ANALYSES_RUN,
)
@blueprint.arguments(ConditionSchema, location="headers")
@blueprint.arguments(RunQuerySchema, location="query")
@blueprint.response(
    202,
    AnalysisSchema,
    headers=LOCATION_HEADER | PREFERENCE_APPLIED_HEADER,
    description="It is done soon.",
)
@blueprint.alt_response(
    200,
    schema=AnalysisSchema,
    headers=LOCATION_HEADER | PREFERENCE_APPLIED_HEADER,
    description="It has ended: with `if=missing` before, with `Prefer: wait=…` meanwhile.",
)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(409, "CONFLICT")
@blueprint.alt_response(412, "PRECONDITION_FAILED")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def run_analysis(
    headers: dict[str, str], query: dict[str, Any], upload_id: str, analyzer: str
) -> Response:
    """Have an analyzer look at one upload, or once more

    As soon as at a new upload. A result that is there stays until there is a new one; 409 while the
    analysis is under way, or when the analyzer is not configured.

    `POST …/analyses/blip?if=missing` with `Prefer: wait=30` answers with the result, whether it is
    there, on its way, or has to be made: 200 once the analysis has ended, as its `status` says, and
    202 when the time was up before, or the analysis is `deferred`.
    """
    versions = versions_from_headers(headers, upload_id)
    preference = WaitPreference(query.get("wait_for", [analyzer]))
    only_missing = "if_" in query
    upload = components.analysis_jobs.run_again(upload_id, analyzer, versions, only_missing)
    analysis = analysis_of(upload, analyzer)
    has_answer = only_missing and analysis.result is not None
    if not has_answer:
        with suppress(DatabaseUnavailable):  # It is ordered all the same.
            preference.wait_for([upload_id])
        if preference.is_applied:
            analysis = analysis_of(components.database.uploads.get(upload_id), analyzer)
    response = jsonify(dump_analysis(analysis, components, True))
    response.status_code = 202 if analysis.state in UNFINISHED and not has_answer else 200
    response.headers["Location"] = public_path(f"/api/uploads/{upload_id}/analyses/{analyzer}")
    return preference.add_to(response)


def analysis_of(upload: Upload, name: str) -> Analysis:
    """Return the analysis of an upload by the analyzer `name`.

    Raises:
        NotFound: there is none.
    """
    for analysis in upload.analyses:
        if analysis.name == name:
            return analysis
    raise NotFound(f"There is no analysis {name} of the upload {upload.id}.")


def upload_response(upload: Upload) -> Response:
    """Respond with an upload and its entity tag."""
    body = dump_upload(upload, components, with_results=True)
    return add_etag(jsonify(body), body["version"])
