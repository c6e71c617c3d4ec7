"""`/api/jobs`: jobs on many uploads, and their progress."""

from typing import Any

from flask import Response, jsonify

from clustr.api.http.access import require_scope
from clustr.api.http.audit import recording
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.etags import refuse_if_match
from clustr.api.http.fields import id_path_parameter
from clustr.api.http.request_context import components
from clustr.api.schemas.jobs import JobListSchema, JobQuerySchema, JobSchema, dump_job
from clustr.domain.access import SCOPE_OF_JOB, Scope
from clustr.domain.audit import AuditAction

JOB_ID_PARAMETER = id_path_parameter("job_id", "The id of the job.")

blueprint = Blueprint(
    "jobs", __name__, url_prefix="/api/jobs", description="What is being done to many uploads"
)
blueprint.before_request(refuse_if_match)


@blueprint.route("", needs=Scope.UPLOADS_READ)
@blueprint.arguments(JobQuerySchema, location="query")
@blueprint.response(200, JobListSchema)
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_jobs(query: dict[str, Any]) -> Response:
    """List the newest jobs, those that have ended among them

    The newest comes first. What failed in a job is told by `GET /api/jobs/{job_id}` alone. Jobs
    that have ended are kept for thirty days, and no more than the newest 1,000 of them.
    """
    jobs = components.database.jobs.newest(query["limit"])
    return jsonify({"data": [dump_job(job, in_list=True) for job in jobs]})


@blueprint.route("/<job_id>", parameters=[JOB_ID_PARAMETER], needs=Scope.UPLOADS_READ)
@blueprint.response(200, JobSchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_job(job_id: str) -> Response:
    """See how far a job is

    Ask again until its `state` is `succeeded`, `failed` or `cancelled`. What failed is in
    `failures`, with the ids of the uploads. 404 also for a job that ended and is no longer kept.
    """
    return jsonify(dump_job(components.database.jobs.get(job_id)))


@blueprint.route(
    "/<job_id>/cancel",
    methods=["POST"],
    parameters=[JOB_ID_PARAMETER],
    needs=frozenset(SCOPE_OF_JOB.values()),
)
@blueprint.response(202, JobSchema, description="The job, which ends soon.")
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(412, "PRECONDITION_FAILED")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def cancel_job(job_id: str) -> Response:
    """Cancel a job

    What it has queued and nobody has begun with is as before; what runs ends by itself. A job that
    has ended stays as it is.
    """
    require_scope(SCOPE_OF_JOB[components.database.jobs.get(job_id).kind])
    with recording(AuditAction.CANCEL_JOB) as details:
        details["job_id"] = job_id
        job = components.database.jobs.cancel(job_id)
    response = jsonify(dump_job(job))
    response.status_code = 202
    return response
