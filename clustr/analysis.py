"""Analysis: a worker runs one analyzer on what waits for it.

A call for an analyzer is answered by one slice of work in a process of its own: claim some of what
waits, analyze each, write the ends down together, until nothing is left or the slice is over. How
many are claimed together follows from how long one takes, so that a claim is about a second's work.
"""

import json
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from random import uniform
from typing import Any

import orjson
import structlog
from marshmallow import Schema, ValidationError, fields, validate

from clustr import logs, reasons
from clustr.catalog import Catalog, Claimed, Finished, now
from clustr.errors import DatabaseUnavailable, QueueUnavailable
from clustr.http_session import Session
from clustr.limits import Interrupted, Interruption, TimeUp, time_limit
from clustr.plugin_host import PluginHost
from clustr.plugins import Analyzer, ConfigError, Context, Fail, Image, RetryLater, Skip
from clustr.queue import SETUP_SECONDS, SLICE_SECONDS, Queue
from clustr.storage import LocalStorage
from clustr.upload import State

log = logs.logger(__name__)

LEASE = timedelta(seconds=30)
RENEW_SECONDS = 10.0
CLAIM_SECONDS = 1.0
LARGEST_CLAIM = 32
LARGEST_RESULT_BYTES = 1_000_000
DEEPEST_RESULT = 50
LONGEST_DEFERRAL_SECONDS = 60.0
LONGEST_DEFERRAL_ASKED_FOR_SECONDS = 3600.0
HIGHEST_POWER = 10  # of two; a float cannot hold that of a thousand attempts
TEARDOWN_SECONDS = 10.0


class DimensionsField(Schema):
    """The width and height of an upload, in pixels."""

    width = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))
    height = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))


# What an analyzer may write into the upload's own fields: listings read them back without looking.
UPLOAD_FIELDS: dict[str, fields.Field[Any]] = {
    "caption": fields.String(),
    "tags": fields.List(fields.String()),
    "dimensions": fields.Nested(DimensionsField),
    "taken_at": fields.AwareDateTime(default_timezone=UTC),
    "faces": fields.List(fields.Dict(keys=fields.String())),
}
UploadFields = Schema.from_dict(UPLOAD_FIELDS, name="UploadFields")


class NotPrepared(Exception):
    """An analyzer could not be set up."""


class Analysts:
    """Those who run analyzers, with what they need for it.

    Args:
        host: the plugins and their analyzers.
    """

    def __init__(self, catalog: Catalog, storage: LocalStorage, queue: Queue, host: PluginHost):
        self._catalog = catalog
        self._storage = storage
        self._queue = queue
        self._host = host

    def run(self, name: str, run: str, interruption: Interruption) -> None:
        """Answer a call for the analyzer `name`, as the run with the id `run`."""
        analyzer = self._host.analyzers.get(name)
        if analyzer is None:
            log.warning("analyzer_unknown", analyzer=name)
            return
        with structlog.contextvars.bound_contextvars(analyzer=name, run=run):
            self._answer(analyzer)
            breaker = self._catalog.breakers.get(name)
            if breaker and breaker.open and not self._catalog.breakers.take_probe(name):
                self._catalog.analyses.park(name, breaker.reason)
                return
            probing = breaker is not None and breaker.open
            if not probing:
                self._catalog.analyses.wake(name, all_of_them=False)
            self._work(analyzer, run, interruption, probing, troubled=breaker is not None)

    def _answer(self, analyzer: Analyzer) -> None:
        try:
            self._queue.answer(analyzer)
        except QueueUnavailable:
            log.warning("bell_not_answered")

    def _work(
        self,
        analyzer: Analyzer,
        run: str,
        interruption: Interruption,
        probing: bool,
        troubled: bool,
    ) -> None:
        work = Slice(self._catalog, self._storage, analyzer, run, interruption)
        first = self._claim(analyzer, run, 1, probing)
        if not first:
            return
        try:
            with self._holding(analyzer, run), work.prepared(self._host) as context:
                self._run_slice(work, context, first, troubled)
        except Interrupted:
            log.info("analysis_interrupted")
        except NotPrepared as error:  # That says nothing about the image: it waits until it works.
            self._put_off(analyzer, str(error))
        finally:
            self._catalog.analyses.put_back(analyzer.name, run)
        if not interruption.requested:
            self._ring_if_work_waits(analyzer)

    def _run_slice(
        self, work: "Slice", context: Context, claims: list[Claimed], troubled: bool
    ) -> None:
        """Analyze claim after claim until nothing is left, time is up or the service away."""
        analyzer, size = work.analyzer, 1
        # Those claimed with one that ends the process get a second attempt, if there is a second.
        largest = LARGEST_CLAIM if analyzer.max_attempts > 1 else 1
        ends_at = time.monotonic() + SLICE_SECONDS
        while claims:
            began = time.monotonic()
            away = work.analyze(claims, context)
            if away:
                self._put_off(analyzer, away)
                return
            if troubled and work.succeeded:
                troubled = False
                self._recover(analyzer)
            if time.monotonic() > ends_at:
                return
            seconds_each = (time.monotonic() - began) / len(claims)
            size = max(1, min(2 * size, largest, int(CLAIM_SECONDS / (seconds_each + 1e-6))))
            claims = self._claim(analyzer, work.run, size, probing=False)
            if len(claims) == size:
                self._ring(analyzer)  # There may be more: an idle worker can join.

    def _claim(self, analyzer: Analyzer, run: str, size: int, probing: bool) -> list[Claimed]:
        states = (State.QUEUED, State.DEFERRED) if probing else (State.QUEUED,)
        for state in states:
            claims = self._catalog.analyses.claim(
                analyzer.name, analyzer.version, run, size, LEASE, state
            )
            if claims:
                return claims
        return []

    def _put_off(self, analyzer: Analyzer, reason: str) -> None:
        breaker = self._catalog.breakers.record_failure(analyzer.name, reason)
        if breaker.open:
            self._catalog.analyses.park(analyzer.name, reason)
        log.warning("analyzer_put_off", reason=reason, probe_at=breaker.probe_at.isoformat())

    def _recover(self, analyzer: Analyzer) -> None:
        self._catalog.breakers.close(analyzer.name)
        woken = self._catalog.analyses.wake(analyzer.name, all_of_them=True)
        log.info("analyzer_recovered", woken=woken)

    def _ring_if_work_waits(self, analyzer: Analyzer) -> None:
        if self._catalog.analyses.work_waits(analyzer.name):
            self._ring(analyzer)

    def _ring(self, analyzer: Analyzer) -> None:
        try:
            self._queue.ring([analyzer])
        except QueueUnavailable:
            log.warning("bell_not_rung")

    @contextmanager
    def _holding(self, analyzer: Analyzer, run: str) -> Iterator[None]:
        """Prolong the lease of the run's claims for as long as the block takes."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(RENEW_SECONDS):
                try:
                    self._catalog.analyses.renew(analyzer.name, run, LEASE)
                except DatabaseUnavailable:
                    log.warning("lease_not_renewed")

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Slice:
    """The work of one run: analyses of one analyzer, one after the other."""

    def __init__(
        self,
        catalog: Catalog,
        storage: LocalStorage,
        analyzer: Analyzer,
        run: str,
        interruption: Interruption,
    ):
        self.analyzer = analyzer
        self.run = run
        self.succeeded = False
        self._catalog = catalog
        self._storage = storage
        self._interruption = interruption

    @contextmanager
    def prepared(self, host: PluginHost) -> Iterator[Context]:
        """Set the analyzer up for the block, and tear it down after it."""
        plugin = host.plugin_of(self.analyzer)
        with tempfile.TemporaryDirectory(prefix="clustr-") as folder, Session() as http:
            context = Context(
                config=plugin.config,
                secrets=plugin.secrets,
                log=logs.logger(f"clustr.plugin.{plugin.name}"),
                http=http,
                deadline=time.monotonic() + SETUP_SECONDS,
                tmpdir=Path(folder),
            )
            self._set_up(context)
            try:
                yield context
            finally:
                self._tear_down()

    def _set_up(self, context: Context) -> None:
        try:
            with time_limit(SETUP_SECONDS), self._interruption.allowed():
                self.analyzer.setup(context)
        except Interrupted:
            raise
        except TimeUp as error:
            raise NotPrepared(f"setup() took longer than {SETUP_SECONDS} seconds") from error
        except BaseException as error:
            log.exception("setup_raised")
            raise NotPrepared(f"setup() raised {reasons.of(error)}") from error

    def _tear_down(self) -> None:
        try:
            with time_limit(TEARDOWN_SECONDS):
                self.analyzer.teardown()
        except BaseException:  # What was analyzed is written down; the process ends after this.
            log.exception("teardown_raised")

    def analyze(self, claims: list[Claimed], context: Context) -> str | None:
        """Analyze what was claimed and write the ends down.

        Returns:
            what is away, when the service that the analyzer needs is; the rest is put back then.
        """
        ends: list[Finished] = []
        try:
            for claimed in claims:
                ends.append(self._analyze(claimed, context))
                if ends[-1].state is State.DEFERRED:
                    return ends[-1].error
        finally:
            written = self._catalog.analyses.finish(self.analyzer.name, self.run, ends)
            if written < len(ends):  # Another run has them by now, or the uploads are gone.
                log.warning("late_results_dropped", count=len(ends) - written)
        return None

    def _analyze(self, claimed: Claimed, context: Context) -> Finished:
        upload = claimed.upload
        began = time.perf_counter()
        ids = {"upload_id": upload.id, "request_id": upload.request_id}
        with structlog.contextvars.bound_contextvars(**ids):
            end = self._end(claimed, context)
            duration = round((time.perf_counter() - began) * 1000, 1)
            level = log.error if end.state is State.FAILED else log.info
            level(f"analysis_{end.state}", duration_ms=duration, error=end.error)
        self.succeeded |= end.state in (State.SUCCEEDED, State.SKIPPED)
        return end

    def _end(self, claimed: Claimed, context: Context) -> Finished:
        """How the analysis ends; whatever the plugin does, it has an end with a reason."""
        upload_id, seconds = claimed.upload.id, self.analyzer.timeout
        context = replace(context, deadline=time.monotonic() + seconds)
        try:
            with time_limit(seconds), self._interruption.allowed():
                result = self.analyzer.analyze(self._image(claimed), context)
            return self._success(upload_id, result)
        except Interrupted:
            raise
        except Skip as outcome:
            return Finished(upload_id, State.SKIPPED, error=reasons.plain(outcome))
        except Fail as outcome:
            return Finished(upload_id, State.FAILED, error=reasons.plain(outcome))
        except (RetryLater, ConfigError) as outcome:
            return self._deferral(claimed, outcome)
        except TimeUp:
            error = f"took longer than {seconds:g} seconds"
            return Finished(upload_id, State.FAILED, error=error)
        except BaseException as error:
            log.exception("analyzer_raised")
            return Finished(upload_id, State.FAILED, error=reasons.of(error))

    def _image(self, claimed: Claimed) -> Image:
        upload = claimed.upload
        return Image(
            id=upload.id,
            sha256=upload.sha256,
            content_type=upload.content_type,
            size=upload.size,
            width=upload.width,
            height=upload.height,
            path=self._storage.path(self._storage.key(upload.filename)),
        )

    def _success(self, upload_id: str, result: Any) -> Finished:
        try:
            result = _storable(result, self.analyzer.result_schema)
            filled = _filled(result, self.analyzer.fields)
        except ValueError as error:
            return Finished(upload_id, State.FAILED, error=reasons.plain(error))
        return Finished(upload_id, State.SUCCEEDED, result=result, fields=filled)

    def _deferral(self, claimed: Claimed, outcome: RetryLater | ConfigError) -> Finished:
        seconds = min(LONGEST_DEFERRAL_SECONDS, 2.0 ** min(claimed.attempts, HIGHEST_POWER))
        seconds *= uniform(0.5, 1)  # noqa: S311
        after = getattr(outcome, "after", None)
        if isinstance(after, int | float):
            seconds = min(LONGEST_DEFERRAL_ASKED_FOR_SECONDS, max(0, after))
        return Finished(
            claimed.upload.id,
            State.DEFERRED,
            error=reasons.plain(outcome),
            due_at=now() + timedelta(seconds=seconds),
        )


def _storable(result: Any, schema: type[Schema]) -> dict[str, Any]:
    """The result in plain JSON values.

    Raises:
        ValueError: it does not fit its schema, or is nothing that JSON and MongoDB can both hold.
    """
    if not isinstance(result, dict):
        raise ValueError(f"returned {type(result).__name__} instead of a dict")
    try:
        text = json.dumps(result, allow_nan=False)
        plain = json.loads(text)
        # JavaScript and MongoDB hold no larger ones; it refuses halves of characters, too.
        orjson.dumps(plain, option=orjson.OPT_STRICT_INTEGER)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the result cannot be written as JSON: {error}") from error
    if len(text) > LARGEST_RESULT_BYTES:
        raise ValueError(f"the result has {len(text)} bytes of JSON")
    if "\\u0000" in text or _depth(plain) > DEEPEST_RESULT:
        raise ValueError("the result has NUL characters or is nested too deeply")
    if errors := schema().validate(plain):
        raise ValueError(f"the result does not fit its schema: {json.dumps(errors, default=str)}")
    return plain


def _filled(result: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """What the result puts into the upload's own fields.

    Args:
        keys: for each field, the key of the result.

    Raises:
        ValueError: it does not fit there.
    """
    values = {name: result[key] for name, key in keys.items() if result.get(key) is not None}
    try:
        return UploadFields().load(values)
    except ValidationError as error:
        raise ValueError(
            f"the result does not fit the upload's fields: {json.dumps(error.messages)}"
        ) from error


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_depth, inner), default=0) if isinstance(value, dict | list) else 0
