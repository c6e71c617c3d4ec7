"""What schemathesis cannot know of the OpenAPI document by itself."""

import time
from typing import Any
from urllib.parse import urlencode

import hypothesis.strategies as st
import photographs
import requests
import schemathesis

# Of the 100 that can wait or run at once.
MANY_JOBS = 50

schemathesis.openapi.format(
    "binary", st.sampled_from([photographs.photograph(each) for each in photographs.EXTENSIONS])
)


@schemathesis.hook
def filter_query(context: Any, query: dict[str, Any] | None) -> bool:
    """Leave out what makes a request line too long: it is refused before anybody reads a path."""
    return len(urlencode(query or {}, doseq=True)) < 3000


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Take away what allows every answer, so that an answer that is not described is found.

    And say which analyzers there are to wait for, as `GET /api/plugins` does.
    """
    for path in raw_schema["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict):
                operation["responses"].pop("default")
                for parameter in operation.get("parameters", ()):
                    if parameter.get("name") == "wait_for":
                        parameter["schema"]["enum"] = ["dimensions", "exif,phash"]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Wait until there is room for a job, as the answer of a service that has too many says."""
    if case.method == "POST" and case.operation.path in ("/api/analyses", "/api/uploads/bulk"):
        limit = time.monotonic() + 30
        while count_unfinished(case.operation.base_url) >= MANY_JOBS:
            assert time.monotonic() < limit, "the jobs do not end"
            time.sleep(0.1)


def count_unfinished(url: str) -> int:
    """How many jobs wait or run."""
    jobs = requests.get(f"{url.rstrip('/')}/api/jobs", {"limit": MANY_JOBS * 2}, timeout=10).json()
    return sum(job["finished_at"] is None for job in jobs["data"])
