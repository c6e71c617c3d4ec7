"""The `Client`."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import uuid4

import requests

from clustr.client.authorization import with_key
from clustr.client.body import FileBody, OnProgress, disposition
from clustr.client.errors import ApiError, NoCaptioner, NoResult
from clustr.client.retries import (
    BROKEN_CONNECTION,
    LONGEST_PAUSE_SECONDS,
    asked_pause_seconds,
    pause_seconds,
)
from clustr.client.types import AcceptedFile, Analysis, CaptionAndTags, Upload
from clustr.domain.models import State

DEFAULT_URL = "http://127.0.0.1:5000"
CAPTION = "caption"  # the field that a captioner fills
UNDER_WAY = "under_way"

ATTEMPTS = 5
READ_BYTES = 256 * 1024
# The service waits no longer for one request.
LONGEST_WAIT_SECONDS = 60
# When the service has too many requests that wait, it is asked now and then.
ASK_EVERY_SECONDS = 1.0


class Client:
    """A client of one service; use one in each thread.

    What may be repeated without harm is tried again when the connection breaks, or the service asks
    to try later.

    Args:
        base_url: where the service is; by default the environment variable `BASE_URL`, or the
            address at which `make run` serves.
        timeout_seconds: how long to wait for a connection, and for each part of an answer.
        key: for a service with `AUTH=keys`; by default the environment variable `CLUSTR_KEY`.

    Raises, in all methods:
        ApiError: the service has refused the request.
        requests.RequestException: it cannot be reached.
    """

    def __init__(
        self,
        base_url: str | None = None,
        timeout_seconds: float = 30.0,
        key: str | None = None,
    ):
        self._base_url = (base_url or os.environ.get("BASE_URL") or DEFAULT_URL).rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._session = requests.Session()
        if sent_key := key or os.environ.get("CLUSTR_KEY"):
            self._session.auth = with_key(sent_key)
        self._captioner: str | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def upload(
        self,
        file: str | Path | BinaryIO,
        name: str | None = None,
        reuse: bool = False,
        on_progress: OnProgress | None = None,
        key: str | None = None,
    ) -> AcceptedFile:
        """Upload one image.

        Args:
            file: its path, or an open file that can seek.
            name: what it is called; by default its name, if it has one.
            reuse: whether to be answered with an upload of the same bytes, if there is one, and to
                store nothing then.
            on_progress: called with the bytes that were sent, and all of them; from the beginning
                again when the request is repeated.
            key: names this upload (`Idempotency-Key`), so that it is stored once however often it
                is sent; by default a new one.
        """
        if isinstance(file, str | Path):
            with Path(file).open("rb") as opened:
                return self.upload(opened, name or Path(file).name, reuse, on_progress, key)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": disposition(name or Path(str(getattr(file, "name", ""))).name),
            "Idempotency-Key": key or str(uuid4()),
        }
        response = self._send(
            "POST",
            "/api/upload",
            headers=headers,
            params={"duplicates": "reuse"} if reuse else None,
            make_body=lambda: FileBody(file, on_progress),
        )
        return cast(AcceptedFile, response.json()["data"][0])

    def get(self, upload_id: str) -> Upload:
        """Get one upload with the results of its analyses."""
        return cast(Upload, self._send("GET", f"/api/uploads/{upload_id}").json())

    def uploads(self, **filters: str | int) -> Iterator[Upload]:
        """Walk through uploads, by default the newest first, without the results of analyses.

        Args:
            filters: the parameters of `GET /api/uploads`, such as `q`, `tag` or `sort`; `limit`
                is how many are asked for at a time.
        """
        parameters: dict[str, str | int] = {"limit": 100, **filters}
        while True:
            page = self._send("GET", "/api/uploads", params=parameters).json()
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            parameters["cursor"] = page["next_cursor"]

    def original(self, upload_id: str) -> bytes:
        """Get the original of an upload, as the service sends it to this key."""
        return self._send("GET", f"/api/uploads/{upload_id}/file").content

    def read_original(self, upload_id: str, read: Callable[[Iterator[bytes]], None]) -> None:
        """Get the original of an upload piece by piece.

        Args:
            read: reads the pieces to the end; called again, for all of them, when the connection
                breaks on the way.
        """
        self._send("GET", f"/api/uploads/{upload_id}/file", read=read)

    def limits(self) -> dict[str, Any]:
        """Get what the service accepts, and what the key may do."""
        return cast(dict[str, Any], self._send("GET", "/api/limits").json())

    def wait(self, upload_id: str, analyzers: Sequence[str] = (), seconds: float = 60.0) -> Upload:
        """Wait until analyses of an upload have ended, or are deferred.

        Args:
            analyzers: which to wait for; by default all.
            seconds: how long to wait at most.

        Returns:
            the upload as it is then.
        """
        until = time.monotonic() + seconds
        while True:
            left = max(0.0, until - time.monotonic())
            response = self._send(
                "GET",
                f"/api/uploads/{upload_id}",
                params={"wait_for": ",".join(analyzers)} if analyzers else None,
                wait_seconds=left,
            )
            upload = cast(Upload, response.json())
            if time.monotonic() >= until or not _is_under_way(upload["analyses"], analyzers):
                return upload
            if "Preference-Applied" not in response.headers:
                time.sleep(min(ASK_EVERY_SECONDS, max(0.0, until - time.monotonic())))

    def analyze(
        self, upload_id: str, analyzer: str, only_missing: bool = False, seconds: float = 60.0
    ) -> Analysis:
        """Have an analyzer look at an upload, and wait for the end.

        Args:
            only_missing: whether to leave it alone when there is a result, or when it is under way,
                which is then waited for.
            seconds: how long to wait at most; 0 to wait for nothing.

        Returns:
            the analysis as it is then.
        """
        until = time.monotonic() + seconds
        response = self._send(
            "POST",
            f"/api/uploads/{upload_id}/analyses/{analyzer}",
            params={"if": "missing"} if only_missing else None,
            wait_seconds=seconds,
            is_repeatable=only_missing,
        )
        left = until - time.monotonic()
        if response.status_code == requests.codes.accepted and left > 0:
            return self.wait(upload_id, [analyzer], left)["analyses"][analyzer]
        return cast(Analysis, response.json())

    def caption(self, upload_id: str, seconds: float = 60.0) -> str:
        """Get the caption of an upload, and have it made if there is none.

        Args:
            seconds: how long to wait for it at most.

        Raises:
            NoResult: it could not be made, or not in time.
            NoCaptioner: the service makes none.
        """
        upload = self.get(upload_id)
        if upload["caption"] is None:
            analysis = self._caption_missing(upload_id, seconds)
            upload = self.get(upload_id)
            if upload["caption"] is None:
                raise NoResult(self.captioner(), analysis)
        assert upload["caption"] is not None
        return upload["caption"]

    def tags(self, upload_id: str, seconds: float = 60.0) -> list[str]:
        """Get the tags of an upload, and have them made if there are none, as `caption` does."""
        upload = self.get(upload_id)
        if not upload["tags"]:
            analysis = self._caption_missing(upload_id, seconds)
            if analysis["result"] is None:
                raise NoResult(self.captioner(), analysis)
            upload = self.get(upload_id)
        return upload["tags"]

    def caption_and_tags(self, upload_id: str, seconds: float = 60.0) -> CaptionAndTags:
        """Get both, and have them made if one is missing, as `caption` does."""
        upload = self.get(upload_id)
        if upload["caption"] is None or not upload["tags"]:
            analysis = self._caption_missing(upload_id, seconds)
            upload = self.get(upload_id)
            if upload["caption"] is None:
                raise NoResult(self.captioner(), analysis)
        return {"caption": upload["caption"], "tags": upload["tags"]}

    def generate_caption_and_tags(self, upload_id: str, seconds: float = 60.0) -> CaptionAndTags:
        """Have caption and tags made, also where there are some; a person's words stay.

        Raises:
            NoResult: they could not be made, or not in time.
            NoCaptioner: the service makes none.
        """
        captioner = self.captioner()
        try:
            analysis = self.analyze(upload_id, captioner, seconds=seconds)
        except ApiError as error:
            if error.code != UNDER_WAY:
                raise
            analysis = self.wait(upload_id, [captioner], seconds)["analyses"][captioner]
        if analysis["status"] != State.SUCCEEDED:
            raise NoResult(captioner, analysis)
        upload = self.get(upload_id)
        return {"caption": upload["caption"], "tags": upload["tags"]}

    def captioner(self) -> str:
        """Get the name of the analyzer that writes captions.

        Raises:
            NoCaptioner: there is none.
        """
        if self._captioner is None:
            plugins = self._send("GET", "/api/plugins").json()["data"]
            analyzers = [analyzer for plugin in plugins for analyzer in plugin["analyzers"]]
            found = [analyzer for analyzer in analyzers if CAPTION in analyzer["fields"]]
            if not found:
                raise NoCaptioner
            found.sort(key=lambda analyzer: not analyzer["configured"])
            self._captioner = str(found[0]["name"])
        return self._captioner

    def _caption_missing(self, upload_id: str, seconds: float) -> Analysis:
        return self.analyze(upload_id, self.captioner(), only_missing=True, seconds=seconds)

    def _send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str | int] | None = None,
        make_body: Callable[[], FileBody] | None = None,
        wait_seconds: float = 0.0,
        is_repeatable: bool = True,
        read: Callable[[Iterator[bytes]], None] | None = None,
    ) -> requests.Response:
        """Send a request, again if need be.

        Args:
            make_body: makes the body anew for each attempt.
            wait_seconds: how long the service may wait for analyses.
            is_repeatable: whether the request may be sent again when it may have been received.
            read: reads the body of the answer as it comes.
        """
        seconds = min(LONGEST_WAIT_SECONDS, math.ceil(wait_seconds))
        preference = {"Prefer": f"wait={seconds}"} if seconds > 0 else {}
        for attempt in range(1, ATTEMPTS + 1):
            is_last = attempt == ATTEMPTS or not is_repeatable
            pause = pause_seconds(attempt)
            try:
                response = self._session.request(
                    method,
                    self._base_url + path,
                    headers={**preference, **(headers or {})},
                    params=params,
                    data=cast(Any, make_body()) if make_body else None,
                    timeout=(self._timeout_seconds, self._timeout_seconds + seconds),
                    stream=read is not None,
                    allow_redirects=make_body is None,  # A file would not be sent again.
                )
                redirect = _redirect_instead(response, method)
                if read and response.ok:
                    with response:
                        read(response.iter_content(READ_BYTES))
            except BROKEN_CONNECTION:
                if is_last:
                    raise
            else:
                if response.ok and redirect is None:
                    return response
                error = ApiError(response if redirect is None else redirect)
                if is_last or not error.is_temporary:
                    raise error
                asked_seconds = asked_pause_seconds(response)
                if asked_seconds is not None:
                    pause = min(asked_seconds, LONGEST_PAUSE_SECONDS)
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _redirect_instead(response: requests.Response, method: str) -> requests.Response | None:
    """The redirect because of which a request was not carried out; None if there was none.

    After some redirects `requests` sends GET in place of the method.
    """
    if response.is_redirect:
        return response
    return response.history[0] if response.request.method != method else None


def _is_under_way(analyses: Mapping[str, Analysis], analyzers: Sequence[str]) -> bool:
    """Whether analyses by these analyzers (by default all) can be expected to end."""
    named = [analysis["status"] for name, analysis in analyses.items() if name in analyzers]
    every = [analysis["status"] for analysis in analyses.values()]
    working = (State.QUEUED, State.RUNNING)
    if any(status in working for status in (named if analyzers else every)):
        return True
    return State.WAITING in named and any(status in working for status in every)
