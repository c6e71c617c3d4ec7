"""Analyses inside uploads: how uploads are found by one of them, and how one of them is changed."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from clustr.database.clock import FARTHEST, now
from clustr.database.connection import Document
from clustr.database.documents import FACETS
from clustr.database.tags import TagList, with_keys
from clustr.domain.models import UNFINISHED, State, Status

# What a human can say of an upload otherwise than analyzers did.
WORDS = ("caption", "original_name", "tags", "taken_at")
# Those that are searched. When one of them was changed last is in an upload's `words_at`.
SEARCHED = ("caption", "original_name", "tags")
EDITED: Document = {"$gt": ["$human", None]}  # There is such a field.


def with_analysis(**conditions: Any) -> Document:
    """A query for uploads with one analysis that meets all conditions."""
    return {"analyses": {"$elemMatch": conditions}}


def update_of_analysis(
    analyzer: str, changes: Document, fields: Mapping[str, Any], moment: datetime
) -> list[Document]:
    """The stages of an update that change one analysis and fields of its upload.

    `settled()` has to follow. Values are literals in it: a result may hold texts that begin with a
    dollar sign.
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
    literal = {name: {"$literal": value} for name, value in fields.items() if name not in WORDS}
    return [
        {"$set": {"analyses": {"$map": {"input": "$analyses", "in": changed}}, **literal}},
        *_said({name: value for name, value in fields.items() if name in WORDS}),
    ]


def _said(words: Mapping[str, Any]) -> list[Document]:
    """The stages that write what an analyzer says where a human may have said something else."""
    if not words:
        return []
    keyed = with_keys(words["tags"]) if "tags" in words else {}
    literal = {name: {"$literal": value} for name, value in {**words, **keyed}.items()}
    found = {"$mergeObjects": ["$found", literal]}
    plain = {name: {"$cond": [EDITED, f"${name}", value]} for name, value in literal.items()}
    new = [{"$ne": [f"${name}", value]} for name, value in literal.items() if name in SEARCHED]
    words_at = {"$cond": [{"$or": new}, now(), {"$ifNull": ["$words_at", "$$REMOVE"]}]}
    found = {"$cond": [EDITED, found, "$$REMOVE"]}
    return [{"$set": {**plain, "found": found, "words_at": words_at}}, effective_fields()]


def effective_fields() -> Document:
    """The stage that writes into an upload's own fields what counts, where a human said something.

    What the human said is in `human`; in `found` is what the fields would be without it. Uploads
    of which no human said anything have neither.
    """
    found = TagList.at("found.tags", "found.tag_keys")
    added = TagList.at("human.tags.added", "human.tags.added_keys")
    removed = {"$ifNull": ["$human.tags.removed", []]}
    tags = found.without({"$concatArrays": [added.keys, removed]}).followed_by(added)
    words = {
        "caption": {"$ifNull": ["$human.caption", "$found.caption"]},
        "original_name": {"$ifNull": ["$human.original_name", "$found.original_name"]},
        "tags": {"$ifNull": ["$human.tags.set", tags.tags]},
        "tag_keys": {"$ifNull": ["$human.tags.set_keys", tags.keys]},
        "taken_at": {"$ifNull": ["$human.taken_at", found_taken_at(), "$$REMOVE"]},
    }
    return {"$set": {name: {"$cond": [EDITED, word, f"${name}"]} for name, word in words.items()}}


def found_taken_at() -> Document:
    """An expression for the time that analyzers say, of an upload of which a human said something.

    Uploads that were edited before humans could say a time have none in `found`: the one of their
    own is what analyzers say. In all others it is there, as null where analyzers say nothing.
    """
    old = {"$eq": [{"$type": "$found.taken_at"}, "missing"]}
    return {"$cond": [old, {"$ifNull": ["$taken_at", None]}, "$found.taken_at"]}


def settled_states(gone: Sequence[str] = ()) -> list[Document]:
    """The stages that end every update which changes the states of analyses.

    It is a pipeline, so that the status is derived from all analyses as they are at that moment.
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
        {"$set": {"status": status, "updated_at": later_updated_at(moment)}},
        {"$set": {"facets": FACETS}},
    ]


def later_updated_at(moment: datetime) -> Document:
    """The time of a change: never that of the one before, by which a version could be taken for it.

    A time that lies far ahead was written while the clock was wrong.
    """
    next = {"$add": ["$updated_at", 1]}
    ahead = {"$and": [{"$gt": [next, moment]}, {"$lt": [next, moment + FARTHEST]}]}
    return {"$cond": [ahead, next, moment]}


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
