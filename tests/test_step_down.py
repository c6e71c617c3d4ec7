"""A primary that steps down or ends under a write: that is an outage, and the end of nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from failing import fail_once
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, OperationFailure, WriteConcernError, WriteError
from stored_analyses import add, an_upload, claim, finish, stored

from clustr.database.connection import translate_errors
from clustr.database.documents import ORIGINAL
from clustr.domain.errors import DatabaseUnavailable
from clustr.domain.models import State

STEPPED_DOWN = {"code": 189, "errmsg": "Primary stepped down while waiting for replication"}


def of_bulk(**failures: Any) -> BulkWriteError:
    return BulkWriteError({"writeErrors": [], "writeConcernErrors": [], "nModified": 0} | failures)


def of_write(code: int) -> OperationFailure:
    return WriteError("not primary", code, {"index": 0, "code": code})


def of_write_concern(code: int) -> OperationFailure:
    return WriteConcernError("not primary", code, {"code": code})


def of_write_in_bulk(code: int) -> OperationFailure:
    return of_bulk(writeErrors=[{"index": 0, "code": code, "errmsg": "not primary"}])


def of_write_concern_in_bulk(code: int) -> OperationFailure:
    return of_bulk(writeConcernErrors=[{"code": code, "errmsg": "not primary"}])


def of_command(code: int) -> OperationFailure:
    return OperationFailure("shard away", code, {"code": code})


KINDS = [of_write, of_write_concern, of_write_in_bulk, of_write_concern_in_bulk, of_command]


@pytest.mark.parametrize("code", [91, 189, 10107, 11600, 11602, 13435, 13436])
@pytest.mark.parametrize("error", KINDS)
def test_a_primary_that_steps_down_is_away(error: Callable[[int], OperationFailure], code: int):
    with pytest.raises(DatabaseUnavailable), translate_errors():
        raise error(code)


@pytest.mark.parametrize("code", [6, 7, 89, 133, 134, 262, 9001])
@pytest.mark.parametrize("error", KINDS)
def test_a_shard_whose_primary_is_away_is_away(error: Callable[[int], OperationFailure], code: int):
    with pytest.raises(DatabaseUnavailable), translate_errors():
        raise error(code)


@pytest.mark.parametrize("error", KINDS)
def test_what_is_refused_for_good_is_no_outage(error: Callable[[int], OperationFailure]):
    with pytest.raises(OperationFailure), translate_errors():
        raise error(121)  # DocumentValidationFailure


@pytest.mark.parametrize(
    "failures",
    [{"writeErrors": [{"index": 0, **STEPPED_DOWN}]}, {"writeConcernErrors": [STEPPED_DOWN]}],
)
def test_a_step_down_under_the_end_of_an_analysis_is_not_its_end(
    database, collection, monkeypatch, failures
):
    [upload_id] = add(database, State.QUEUED)
    claim(database)
    fail_once(monkeypatch, Collection, "bulk_write", of_bulk(**failures))
    with pytest.raises(DatabaseUnavailable):
        finish(database, upload_id, result={"x": 1})
    assert stored(collection, upload_id)["state"] == "running"
    assert finish(database, upload_id, result={"x": 1}) == 1


def test_uploads_before_one_that_is_refused_are_not_taken_for_stored(database, monkeypatch):
    refused = {"index": 1, "code": 11000, "keyPattern": {ORIGINAL: 1}, "errmsg": "duplicate key"}
    error = of_bulk(writeErrors=[refused], writeConcernErrors=[STEPPED_DOWN])
    fail_once(monkeypatch, Collection, "insert_many", error)
    with pytest.raises(DatabaseUnavailable):
        database.uploads.add([an_upload((), 1), an_upload((), 2)])
