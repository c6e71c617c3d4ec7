"""The service as an import uses it: what is tried again, and for how long."""

import itertools
import math
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import requests

from clustr.client.authorization import with_key
from clustr.client.errors import ApiError
from clustr.client.importing.errors import ImportStopped, Interrupted, QuotaSpent
from clustr.client.importing.form import Form
from clustr.client.retries import BROKEN_CONNECTION, asked_pause_seconds, pause_seconds

# For a connection, and for each piece of what is sent.
CONNECT_SECONDS = 20.0
# For each part of an answer. Pictures are decoded before they are acknowledged.
ANSWER_SECONDS = 120.0
# For how long the first request is tried: then it is more likely that the address is wrong.
FIRST_SECONDS = 5.0
NEEDED_SCOPES = ("uploads:read", "uploads:write")
HOW_TO_GO_ON = "what is there is there: the same command goes on from here"
GIVE_A_KEY = "give one with the scopes uploads:read and uploads:write as CLUSTR_KEY or with --key"
UNAUTHORIZED, FORBIDDEN, INTERNAL_SERVER_ERROR, STORAGE_FULL = 401, 403, 500, 507
QUOTA_EXCEEDED = "quota_exceeded"
# Several files that the quota of the key has no room for are not kept waiting for longer, because
# one of them may go in before.
LONGEST_PAUSE_OF_SEVERAL_SECONDS = 60.0


class ImportService:
    """A service; may be used by several threads, each with a connection of its own.

    Args:
        key: a key of the service, if it asks for one.
        patience_seconds: for how long to try when it does not answer, or asks to come later.
    """

    def __init__(self, url: str, key: str | None, patience_seconds: float):
        self.url = url.rstrip("/")
        self._auth = with_key(key.strip()) if key else None
        self._patience_seconds = patience_seconds
        self._stopping = threading.Event()
        self._own = threading.local()

    def stop(self) -> None:
        """End all requests, those that wait to be sent again, too."""
        self._stopping.set()

    def check_stopped(self) -> None:
        """Raise `Interrupted` once it was stopped."""
        if self._stopping.is_set():
            raise Interrupted

    def limits(self) -> dict[str, Any]:
        """Get what the service accepts.

        Raises:
            ImportStopped: it cannot be used, or not with this key.
        """
        try:
            limits = self._request("GET", "/api/limits", patience_seconds=FIRST_SECONDS)
            scopes, name = limits["allowed"]["scopes"], limits["allowed"]["key"]
        except ApiError as error:
            raise ImportStopped(f"{self.url}: {error}") from error
        except (LookupError, TypeError) as error:
            raise ImportStopped(self._no_clustr()) from error
        if missing := [scope for scope in NEEDED_SCOPES if scope not in scopes]:
            lacks = f"the scope {missing[0]}" if len(missing) == 1 else "what an import needs"
            raise ImportStopped(f"the key {name} lacks {lacks}; {GIVE_A_KEY}")
        return limits

    def existing(self, hashes: Sequence[str]) -> set[str]:
        """Return which of these SHA-256 the service has.

        Raises:
            ImportStopped: it does not say.
        """
        try:
            answer = self._request("POST", "/api/uploads/exists", json={"sha256": [*hashes]})
        except ApiError as error:
            raise ImportStopped(f"{error}; {HOW_TO_GO_ON}") from error
        return {sha256 for sha256, upload_id in answer["data"].items() if upload_id}

    def upload(self, make_form: Callable[[], Form], key: str, are_several: bool) -> dict[str, Any]:
        """Upload files that are not there yet.

        Args:
            make_form: makes the form anew for each attempt.
            key: names this upload (`Idempotency-Key`).
            are_several: whether it has several files, which could be sent one by one.

        Returns:
            the answer: in `data` those that are there now, in `errors` those that were refused.

        Raises:
            ApiError: the request as a whole was refused.
            QuotaSpent: the key may bring no more for longer than it is to be waited.
            UnreadableFile: one of the files cannot be read.
        """
        longest_pause_seconds = self._patience_seconds
        if are_several:
            longest_pause_seconds = min(longest_pause_seconds, LONGEST_PAUSE_OF_SEVERAL_SECONDS)
        return self._request(
            "POST",
            "/api/upload",
            make_form,
            quota_pause_seconds=longest_pause_seconds,
            headers={"Idempotency-Key": key},
            params={"duplicates": "reuse"},
        )

    def _request(
        self,
        method: str,
        path: str,
        make_form: Callable[[], Form] | None = None,
        patience_seconds: float | None = None,
        quota_pause_seconds: float = math.inf,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Send a request, again and again while the service is away, and return the answer.

        Raises:
            ApiError: it was refused.
            QuotaSpent: the key has to wait for longer than `quota_pause_seconds`.
            ImportStopped: the service is away for too long, or no request would do any better.
        """
        patience_seconds = self._patience_seconds if patience_seconds is None else patience_seconds
        first_failed_at: float | None = None
        for attempt in itertools.count(1):
            self.check_stopped()
            form = make_form() if make_form else None
            sent = {**(headers or {}), **({"Content-Type": form.content_type} if form else {})}
            pause = pause_seconds(attempt)
            try:
                response = self._session().request(
                    method,
                    self.url + path,
                    data=form,
                    headers=sent,
                    timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                    allow_redirects=False,
                    **options,
                )
            except BROKEN_CONNECTION as error:
                self._session().close()
                problem = self._explain_broken(error)
            except (requests.RequestException, ValueError) as error:
                raise ImportStopped(f"{self.url} cannot be used: {error}") from error
            else:
                if response.ok and not response.is_redirect:
                    return self._read(response)
                refusal = self._explain(response)
                # A request without files changes nothing, and may do better after a fault.
                is_fault = form is None and refusal.status >= INTERNAL_SERVER_ERROR
                if not refusal.is_temporary and not is_fault:
                    raise refusal
                asked_seconds = asked_pause_seconds(response)
                pause = pause if asked_seconds is None else asked_seconds
                if refusal.code == QUOTA_EXCEEDED and pause > quota_pause_seconds:
                    raise QuotaSpent(refusal.detail, pause)
                problem = str(refusal)
            now = time.monotonic()
            first_failed_at = now if first_failed_at is None else first_failed_at
            if now + pause > first_failed_at + patience_seconds:
                if pause > patience_seconds:
                    problem += f" (it asks to wait {pause:.0f} seconds)"
                raise ImportStopped(f"{problem}; {HOW_TO_GO_ON}")
            self._stopping.wait(pause)
        raise AssertionError("the loop ends by returning or raising")

    def _read(self, response: requests.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except requests.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise ImportStopped(self._no_clustr())
        return answer

    def _no_clustr(self) -> str:
        return f"what answers at {self.url} is no Clustr that this command can use"

    def _explain_broken(self, error: Exception) -> str:
        """Say why there was no answer.

        Raises:
            ImportStopped: trying again would not help.
        """
        reason = _reason(error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise ImportStopped(
                f"the certificate of {self.url} is not trusted ({reason.verify_message}); if it is "
                "of an authority of your own, name the file with the certificate of that in "
                "REQUESTS_CA_BUNDLE"
            ) from error
        return f"no service answers at {self.url}: {reason}"

    def _explain(self, response: requests.Response) -> ApiError:
        """Read why a request was refused.

        Raises:
            ImportStopped: every request would be.
        """
        if response.is_redirect:
            leads_to = response.headers.get("Location", "nowhere")
            raise ImportStopped(f"{response.url} leads to {leads_to}: give that address with --url")
        error = ApiError(response)
        if error.status == UNAUTHORIZED:
            raise ImportStopped(f"the service asks for a key: {error.detail} {GIVE_A_KEY}")
        if error.status == FORBIDDEN:
            raise ImportStopped(str(error))
        if error.status == STORAGE_FULL:
            raise ImportStopped(f"{error}; {HOW_TO_GO_ON} when there is room")
        return error

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = requests.Session()
            session.auth = self._auth
        return session


def _reason(error: Exception) -> Exception:
    """The innermost reason of an error of `requests`, which is the one that says something."""
    while error.__context__ is not None and isinstance(error.__context__, Exception):
        error = error.__context__
    return error
