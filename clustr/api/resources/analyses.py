"""`/api/analyses`: statistics of all analyses, and orders to run an analyzer on many uploads."""

from typing import Any

from flask import Response, jsonify

from clustr.api.http.audit import recording
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.etags import refuse_if_match
from clustr.api.http.request_context import components, request_id
from clustr.api.http.urls import public_path
from clustr.api.plugin_filters import installed_filters
from clustr.api.schemas.jobs import (
    AnalysesSchema,
    AnalysisOrderSchema,
    EstimateSchema,
    JobSchema,
    dump_estimate,
    dump_job,
    dump_statistics,
    selection_from,
)
from clustr.domain.access import Scope
from clustr.domain.audit import AuditAction

LOCATION_HEADER = {
    "Location": {
        "schema": {"type": "string"},
        "description": "Where the job is, to see how far it is or to cancel it.",
    }
}

blueprint = Blueprint(
    "analyses",
    __name__,
    url_prefix="/api/analyses",
    description="The analyses of all uploads together",
)
blueprint.before_request(refuse_if_match)


@blueprint.route("", needs=Scope.UPLOADS_READ)
@blueprint.response(200, AnalysesSchema)
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_analyses() -> Response:
    """See how the analyses of each analyzer are

    They are counted by the workers now and then, not for this answer. For a key with `own` those of
    the newest 20,000 of its uploads are, and what is not told of these is null.
    """
    counts = components.database.statistics.all()
    data = [
        dump_statistics(analyzer, components.plugin_manager.plugin_of(analyzer), counts.get(name))
        for name, analyzer in components.plugin_manager.analyzers.items()
    ]
    return jsonify({"data": data})


@blueprint.route("", methods=["POST"], needs=Scope.ANALYSES_RUN)
@blueprint.arguments(AnalysisOrderSchema)
@blueprint.response(202, JobSchema, headers=LOCATION_HEADER, description="The job that does it.")
@blueprint.alt_response(
    200, schema=EstimateSchema, description="With `dry_run`: what it would come to."
)
@blueprint.alt_response(409, "CONFLICT")
@blueprint.alt_response(412, "PRECONDITION_FAILED")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def order_analyses(order: dict[str, Any]) -> Response:
    """Have an analyzer look at uploads that it has not looked at, or once more

    This comes after all new uploads, and what is under way is left alone. A result that is there
    stays until there is a new one; 409 for an analyzer that is not configured. At most 100 jobs
    wait or run at once; when there are as many, this is 503 with the `type`
    `urn:clustr:problem:too_many_jobs`.
    """
    selection = selection_from(installed_filters.read_order(order))
    if order["dry_run"]:
        return jsonify(dump_estimate(components.analysis_jobs.estimate(selection)))
    with recording(AuditAction.ORDER_JOB) as details:
        job = components.analysis_jobs.create(selection, request_id())
        details |= {"job_id": job.id, "kind": job.kind}
    response = jsonify(dump_job(job))
    response.status_code = 202
    response.headers["Location"] = public_path(f"/api/jobs/{job.id}")
    return response
