"""Analyses inside uploads: how uploads are found by one of them, and how one of them is changed."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from clustr.catalog.clock import now
from clustr.catalog.connection import Document
from clustr.upload import UNFINISHED, State, Status


def matching(**conditions: Any) -> Document:
    """A query for uploads with one analysis that meets all conditions."""
    return {"analyses": {"$elemMatch": conditions}}


def changing(
    analyzer: str, changes: Document, fields: Mapping[str, Any], moment: datetime
) -> list[Document]:
    """An update that changes one analysis, fields of the upload, and the status that follows.

    It is a pipeline, so that the status is derived from all analyses as they are at that moment.
    Values are literals in it: a result may hold texts that begin with a dollar sign.
    """
    # What is deferred once more has been so since the first time.
    since = {"$ifNull": ["$$this.deferred_at", moment]}
    deferred_at = since if changes["state"] is State.DEFERRED else None
    derived: Document = {"deferred_at": deferred_at}
    if "finished_at" in changes:  # Should the clock have been set back, no end is before its start.
        derived["finished_at"] = {"$max": ["$$this.started_at", changes["finished_at"]]}
    changed = {
        "$cond": [
            {"$eq": ["$$this.name", analyzer]},
            {"$mergeObjects": ["$$this", {"$literal": changes}, derived]},
            "$$this",
        ]
    }
    literal = {name: {"$literal": value} for name, value in fields.items()}
    return [
        {"$set": {"analyses": {"$map": {"input": "$analyses", "in": changed}}, **literal}},
        *settled(),
    ]


def settled(gone: Sequence[str] = ()) -> list[Document]:
    """The stages that end every update which changes the states of analyses.

    An analysis that waits for others is queued when all of those have succeeded; it is skipped when
    one of them ended otherwise or is not there. Then the upload's status follows from all states.

    Args:
        gone: analyzers that nobody runs any more: what they have not ended is as if not there.
    """
    moment = now()
    # One after the other, because the array is in the order of the requirements: what an analysis
    # waits for has its new state by then.
    one_by_one = {
        "$reduce": {
            "input": "$analyses",
            "initialValue": [],
            "in": {"$concatArrays": ["$$value", [_settled_one(gone, moment)]]},
        }
    }
    waits = {"$in": [State.WAITING, "$analyses.state"]}
    unfinished = {"$setIntersection": ["$analyses.state", [*UNFINISHED]]}
    status = {
        "$switch": {
            "branches": [
                {"case": {"$ne": [unfinished, []]}, "then": Status.PENDING},
                {"case": {"$in": [State.FAILED, "$analyses.state"]}, "then": Status.ERROR},
            ],
            "default": Status.PROCESSED,
        }
    }
    return [
        {"$set": {"analyses": {"$cond": [waits, one_by_one, "$analyses"]}}},
        {"$set": {"status": status, "updated_at": moment}},
    ]


def _settled_one(gone: Sequence[str], moment: datetime) -> Document:
    """An analysis, `$$this`, as it is after those before it, which are in `$$value`."""
    succeeded = {"$eq": ["$$other.state", State.SUCCEEDED]}
    hopeful: Document = {"$in": ["$$other.state", [State.SUCCEEDED, *UNFINISHED]]}
    if gone:
        left = {"$not": {"$in": ["$$other.name", [*gone]]}}
        hopeful = {"$or": [succeeded, {"$and": [hopeful, left]}]}
    requires = {"$ifNull": ["$$this.requires", []]}
    hopeless = {
        "$filter": {
            "input": requires,
            "as": "name",
            "cond": {"$not": {"$in": ["$$name", _names_of_others(hopeful)]}},
        }
    }
    skipped = {
        "state": State.SKIPPED,
        "error": {"$concat": ["requires ", {"$first": hopeless}]},
        "finished_at": moment,
    }
    queued = {"state": State.QUEUED, "due_at": moment}
    return {
        "$switch": {
            "branches": [
                {"case": {"$ne": ["$$this.state", State.WAITING]}, "then": "$$this"},
                {
                    "case": {"$ne": [hopeless, []]},
                    "then": {"$mergeObjects": ["$$this", skipped]},
                },
                {
                    "case": {"$setIsSubset": [requires, _names_of_others(succeeded)]},
                    "then": {"$mergeObjects": ["$$this", queued]},
                },
            ],
            "default": "$$this",
        }
    }


def _names_of_others(condition: Document) -> Document:
    """The names of the analyses before this one that meet a condition on `$$other`."""
    others = {"$filter": {"input": "$$value", "as": "other", "cond": condition}}
    return {"$map": {"input": others, "as": "other", "in": "$$other.name"}}
