"""`/api/uploads/bulk`: orders to remove, restore or tag many uploads."""

from typing import Any

from flask import Response, jsonify

from clustr.api.http.access import require_scope
from clustr.api.http.audit import recording
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.etags import refuse_if_match
from clustr.api.http.request_context import components, request_id
from clustr.api.http.urls import public_path
from clustr.api.plugin_filters import installed_filters
from clustr.api.resources.analyses import LOCATION_HEADER
from clustr.api.schemas.changes import BulkOrderSchema, MatchedSchema, selected_uploads_from
from clustr.api.schemas.jobs import JobSchema, dump_job
from clustr.database import distinct_tags
from clustr.domain.access import SCOPE_OF_JOB
from clustr.domain.audit import AuditAction

EXAMPLE_ORDER = {"action": "tag", "filter": {"content_type": "image/jpeg"}, "tags": ["holiday"]}

ACTIONS = ("delete", "restore", "tag", "untag")
SCOPES = frozenset(SCOPE_OF_JOB[action] for action in ACTIONS)

blueprint = Blueprint(
    "bulk_uploads",
    __name__,
    url_prefix="/api/uploads/bulk",
    description="The same done to many uploads",
)
blueprint.before_request(refuse_if_match)


@blueprint.route("", methods=["POST"], needs=SCOPES)
@blueprint.arguments(BulkOrderSchema, example=EXAMPLE_ORDER)
@blueprint.response(202, JobSchema, headers=LOCATION_HEADER, description="The job that does it.")
@blueprint.alt_response(
    200, schema=MatchedSchema, description="With `dry_run`: what it would come to."
)
@blueprint.alt_response(412, "PRECONDITION_FAILED")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def change_uploads(order: dict[str, Any]) -> Response:
    """Remove, restore or tag many uploads

    The job says how many it is done to and what went wrong with others, for one that they are not
    there. When it is cancelled, what is done stays done. At most 100 jobs wait or run at once; when
    there are as many, this is 503 with the `type` `urn:clustr:problem:too_many_jobs`.
    """
    require_scope(SCOPE_OF_JOB[order["action"]])
    order = installed_filters.read_order(order)
    action, uploads = order["action"], selected_uploads_from(order)
    if order["dry_run"]:
        return jsonify({"matched": components.bulk_jobs.count_matched(action, uploads)})
    tags = distinct_tags(order.get("tags", ()))
    with recording(AuditAction.ORDER_JOB) as details:
        job = components.bulk_jobs.create(action, uploads, tags, request_id())
        details |= {"job_id": job.id, "kind": job.kind}
    response = jsonify(dump_job(job))
    response.status_code = 202
    response.headers["Location"] = public_path(f"/api/jobs/{job.id}")
    return response
