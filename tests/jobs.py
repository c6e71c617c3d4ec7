"""Jobs in tests: ordering them, and doing them step by step in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from running import wait_until
from workshop import Workshop, another

from clustr import components
from clustr.api.schemas import jobs as schemas
from clustr.database import Job
from clustr.services.job_runner import JobRunner


@contextmanager
def engine(workshop: Workshop) -> Iterator[JobRunner]:
    """What does the jobs, in this process, step by step."""
    built = components.build_worker(
        workshop.settings, components.build_plugin_manager(workshop.settings)
    )
    try:
        yield built.job_runner
    finally:
        built.job_runner.stop()
        built.database.close()


def order(workshop: Workshop, analyzer: str, select: str, **more: Any) -> Any:
    body = {"analyzer": analyzer, "select": select, **more}
    return workshop.app.test_client().post("/api/analyses", json=body)


def ordered(workshop: Workshop, analyzer: str, select: str, **more: Any) -> str:
    """The id of a job that was ordered."""
    answer = order(workshop, analyzer, select, **more)
    assert answer.status_code == 202, answer.text
    schemas.JobSchema().load(answer.json)
    assert answer.headers["Location"] == f"/api/jobs/{answer.json['id']}"
    return answer.json["id"]


def get(workshop: Workshop, path: str) -> Any:
    answer = workshop.app.test_client().get(path)
    assert answer.status_code == 200, answer.text
    return answer.json


def job_of(workshop: Workshop, job_id: str) -> Job:
    return workshop.web.database.jobs.get(job_id)


def end_of(workshop: Workshop, job_id: str, seconds: float = 60) -> Job:
    wait_until(lambda: job_of(workshop, job_id).ended, seconds, "the end of the job")
    return job_of(workshop, job_id)


def run_until(bulk: JobRunner, condition: Callable[[], Any]) -> None:
    """Do one round after another until the condition holds."""

    def holds() -> Any:
        bulk.run_once()
        return condition()

    wait_until(holds, 60, "that the jobs are so far")


def queue_all(workshop: Workshop, bulk: JobRunner, job_id: str) -> Job:
    """Let a job queue everything that it is about."""
    run_until(bulk, lambda: job_of(workshop, job_id).total is not None)
    return job_of(workshop, job_id)


def multiply(workshop: Workshop, count: int) -> None:
    """Have so many uploads with the same file and analyses as the one that there is."""
    document = workshop.collection.find_one()
    copies = [another(document) for _ in range(count - 1)]
    workshop.collection.insert_many(copies)
