"""Analyses inside uploads: how uploads are found by one of them, and how one of them is changed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from clustr.catalog.connection import Document
from clustr.upload import UNFINISHED, State, Status


def with_analysis(**conditions: Any) -> Document:
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
    status = {
        "$switch": {
            "branches": [
                {"case": {"$in": [state, "$analyses.state"]}, "then": Status.PENDING}
                for state in UNFINISHED
            ]
            + [{"case": {"$in": [State.FAILED, "$analyses.state"]}, "then": Status.ERROR}],
            "default": Status.PROCESSED,
        }
    }
    return [
        {"$set": {"analyses": {"$map": {"input": "$analyses", "in": changed}}, **literal}},
        {"$set": {"status": status, "updated_at": moment}},
    ]
