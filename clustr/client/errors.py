"""What can go wrong besides the connection, whose errors are those of `requests`."""

import re
from html import unescape
from typing import Any

import requests

from clustr.client.types import Analysis

PROBLEM_PREFIX = "urn:clustr:problem:"
LONGEST_TEXT = 300
# The service, or a proxy in front of it, asks to try again; so does `being_answered`.
TEMPORARY_STATUSES = (429, 502, 503, 504)
BEING_ANSWERED = "being_answered"
TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


class ApiError(Exception):
    """The service has refused a request, or could not answer it: a problem document (RFC 9457).

    Attributes:
        status: the status of the answer.
        code: the kind of problem, such as `not_found`; empty when a proxy has answered.
        detail: a sentence that says what is wrong.
        errors: what is wrong with each parameter, or each file of an upload.
        request_id: under which the logs of the service say what happened.
    """

    def __init__(self, response: requests.Response):
        try:
            problem = response.json()
        except requests.JSONDecodeError:
            problem = None
        if not isinstance(problem, dict):
            problem = {"detail": _text_of(response)}
        self.status = response.status_code
        self.code = str(problem.get("type", "")).removeprefix(PROBLEM_PREFIX)
        self.detail = str(problem.get("detail", ""))
        if response.is_redirect:
            self.detail = f"It leads to {response.headers['Location']}: give that address."
        self.errors: Any = problem.get("errors")
        self.request_id = response.headers.get("X-Request-ID")
        super().__init__(f"{self.status} {response.reason}: {self.detail}")

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may be answered a little later."""
        return self.status in TEMPORARY_STATUSES or self.code == BEING_ANSWERED


def _text_of(response: requests.Response) -> str:
    """What somebody else than Clustr has answered; of a page no more than its title."""
    text = response.text
    if "html" in response.headers.get("Content-Type", "") or text.lstrip().startswith("<"):
        title = TITLE.search(text)
        text = unescape(title[1]) if title else ""
    return " ".join(text.split())[:LONGEST_TEXT]


class NoCaptioner(Exception):
    """The service has no analyzer that writes captions."""

    def __init__(self) -> None:
        super().__init__("The service has no plugin that writes captions.")


class NoResult(Exception):
    """An analysis has no result: it failed, is deferred, or has not ended in time.

    Attributes:
        analysis: how it is; `error` in it says why.
    """

    def __init__(self, analyzer: str, analysis: Analysis):
        why = f": {analysis['error']}" if analysis["error"] else ""
        super().__init__(f"{analyzer} has no result, its analysis is {analysis['status']}{why}.")
        self.analysis = analysis
