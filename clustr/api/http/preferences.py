"""What a request prefers (RFC 7240): how long to wait for analyses before it is answered."""

import re
import select
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import Response, request
from werkzeug.http import parse_list_header

from clustr.api.http.request_context import components

LONGEST_WAIT_SECONDS = 60
# Digits of a number of seconds; more are no more seconds, and Python reads no number of any length.
LONGEST_NUMBER = 10

PREFER_PARAMETER = {
    "in": "header",
    "name": "Prefer",
    "schema": {"type": "string"},
    "description": "`wait=10`: answer when the analyses have ended, and after 10 seconds at the "
    f"latest ({LONGEST_WAIT_SECONDS} at most; RFC 7240). An analysis that is `deferred` is not "
    "waited for. Whether the answer waited, `Preference-Applied` says: without it too many others "
    "wait already, or the service is being restarted; then ask again.",
}
PREFERENCE_APPLIED_HEADER = {
    "Preference-Applied": {
        "schema": {"type": "string"},
        "description": "With `Prefer: wait=…`, when it was followed: for how many seconds at most.",
        "example": "wait=10",
    }
}


def preferred_wait(header: str) -> int | None:
    """Return for how many seconds a `Prefer` header asks to wait, at most `LONGEST_WAIT_SECONDS`.

    Of several instances of a preference the first counts (RFC 7240, section 2); what is malformed
    asks for nothing.
    """
    for preference in parse_list_header(header):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"')
            if not re.fullmatch("[0-9]+", digits):
                return None
            is_long = len(digits.lstrip("0")) > LONGEST_NUMBER
            return LONGEST_WAIT_SECONDS if is_long else min(int(digits), LONGEST_WAIT_SECONDS)
    return None


class WaitPreference:
    """The current request's preference to wait.

    Args:
        analyzers: the names of those whose analyses the request names; None to wait for all.

    Attributes:
        seconds: how long to wait at most; None when the request does not prefer to wait.
        is_applied: whether it was waited, until the analyses had ended or the time was up.
    """

    def __init__(self, analyzers: Sequence[str] | None):
        header = request.environ.get("HTTP_PREFER")
        self.seconds = preferred_wait(header) if header else None
        self.is_applied = False
        self._analyzers = analyzers

    def wait_for(self, upload_ids: Sequence[str]) -> None:
        """Wait for analyses of these uploads, if the request prefers it.

        Raises:
            DatabaseUnavailable: MongoDB does not answer, or stopped answering meanwhile.
            NotFound: one of these is no id of an upload.
        """
        if self.seconds is None:
            return
        # Nobody runs what analyzers that were removed have left unfinished.
        analyzers = self._analyzers or [*components.plugin_manager.analyzers]
        self.is_applied = components.analysis_waits.wait(
            upload_ids, analyzers, self.seconds, client_check(request.environ)
        )

    def add_to(self, response: Response) -> Response:
        """Say in a response whether it was waited."""
        if self.is_applied:
            response.headers["Preference-Applied"] = f"wait={self.seconds}"
        return response


def client_check(environ: Mapping[str, Any]) -> Callable[[], bool]:
    """Return a function that tells whether the client of a request has hung up."""
    client = environ.get("gunicorn.socket")
    if client is None:  # Another WSGI server: it does not say.
        return lambda: False
    poller = select.poll()
    poller.register(client, select.POLLRDHUP)
    return lambda: bool(poller.poll(0))
