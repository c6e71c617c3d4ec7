"""Queries and update stages for the analyses inside uploads."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId

from clustr.database.clock import MAX_AHEAD, now
from clustr.database.connection import Document
from clustr.database.documents import FACETS
from clustr.database.local_dates import LOCAL_DATE, local_date, local_date_stages
from clustr.database.tags import TagList, tag_fields
from clustr.domain.models import UNFINISHED, State, Status
from clustr.plugins import Analyzer

# The fields that a person can edit, whatever analyzers have written there, and that searches look
# at. `words_at` is the time of the last change to one of them.
EDITABLE_FIELDS = ("caption", "original_name", "tags", "taken_at")
# No run has begun them. Running analyses are left to end by themselves.
UNSTARTED_STATES = (State.WAITING, State.QUEUED, State.DEFERRED)
# Among the terms of an upload this one says that they are not those of its words any more.
DUE_TERM = "!"
DUE_TERMS = {"$setUnion": [{"$ifNull": ["$search.terms", []]}, [DUE_TERM]]}
HAS_EDITS: Document = {"$gt": ["$human", None]}  # The field `human` exists.


def with_analysis(**conditions: Any) -> Document:
    """A query for uploads with one analysis that meets all conditions."""
    return {"analyses": {"$elemMatch": conditions}}


def update_of_analysis(
    analyzer: str, changes: Document, fields: Mapping[str, Any], moment: datetime
) -> list[Document]:
    """The stages of an update that change one analysis and fields of its upload.

    `settle_stages()` has to follow. Values are wrapped in `$literal`, because a result may hold
    texts that begin with a dollar sign.
    """
    # An analysis that is deferred again keeps the time of the first deferral.
    since = {"$ifNull": ["$$this.deferred_at", moment]}
    deferred_at = since if changes["state"] is State.DEFERRED else None
    derived: Document = {"deferred_at": deferred_at}
    if "finished_at" in changes:  # If the clock was set back, the end is not before the start.
        derived["finished_at"] = {"$max": ["$$this.started_at", changes["finished_at"]]}
    changed = {
        "$cond": [
            {"$eq": ["$$this.name", analyzer]},
            {"$mergeObjects": ["$$this", {"$literal": changes}, derived]},
            "$$this",
        ]
    }
    literal = {
        name: {"$literal": value} for name, value in fields.items() if name not in EDITABLE_FIELDS
    }
    return [
        {"$set": {"analyses": {"$map": {"input": "$analyses", "in": changed}}, **literal}},
        *_analyzer_fields_stages(
            {name: value for name, value in fields.items() if name in EDITABLE_FIELDS}
        ),
    ]


def _analyzer_fields_stages(words: Mapping[str, Any]) -> list[Document]:
    """The stages that write editable fields from an analyzer, where a person may have edited."""
    if not words:
        return []
    keyed = tag_fields(words["tags"]) if "tags" in words else {}
    literal = {name: {"$literal": value} for name, value in {**words, **keyed}.items()}
    found = {"$mergeObjects": ["$found", literal]}
    plain = {name: {"$cond": [HAS_EDITS, f"${name}", value]} for name, value in literal.items()}
    new = [{"$ne": [{"$ifNull": [f"${name}", None]}, literal[name]]} for name in words]
    if "taken_at" in words:  # Searches look at the day, which may be another at the same moment.
        stored = {"$ifNull": [f"${LOCAL_DATE}", None]}
        new.append({"$ne": [stored, {"$ifNull": [local_date(), None]}]})
    words_at = {"$cond": [{"$or": new}, now(), {"$ifNull": ["$words_at", "$$REMOVE"]}]}
    terms = {"$cond": [{"$or": new}, DUE_TERMS, {"$ifNull": ["$search.terms", []]}]}
    found = {"$cond": [HAS_EDITS, found, "$$REMOVE"]}
    derived = {"found": found, "words_at": words_at, "search.terms": terms}
    dates = local_date_stages() if "taken_at" in words else []
    return [{"$set": plain | derived}, effective_fields_stage(), *dates]


def effective_fields_stage() -> Document:
    """The stage that computes the own fields of an edited upload from edits and analyzers.

    `human` holds the edits; `found` holds what the fields would be without them. Uploads that
    nobody has edited have neither.
    """
    found = TagList.from_fields("found.tags", "found.tag_keys")
    added = TagList.from_fields("human.tags.added", "human.tags.added_keys")
    removed = {"$ifNull": ["$human.tags.removed", []]}
    tags = found.without({"$concatArrays": [added.keys, removed]}).followed_by(added)
    words = {
        "caption": {"$ifNull": ["$human.caption", "$found.caption"]},
        "original_name": {"$ifNull": ["$human.original_name", "$found.original_name"]},
        "tags": {"$ifNull": ["$human.tags.set", tags.tags]},
        "tag_keys": {"$ifNull": ["$human.tags.set_keys", tags.keys]},
        "taken_at": {"$ifNull": ["$human.taken_at", analyzer_taken_at(), "$$REMOVE"]},
    }
    return {
        "$set": {name: {"$cond": [HAS_EDITS, word, f"${name}"]} for name, word in words.items()}
    }


def analyzer_taken_at() -> Document:
    """An expression for the `taken_at` from analyzers, of an edited upload.

    Uploads that were edited before `taken_at` was editable lack it in `found`: their own
    `taken_at` is from analyzers. All others have it, as null where analyzers give none.
    """
    old = {"$eq": [{"$type": "$found.taken_at"}, "missing"]}
    return {"$cond": [old, {"$ifNull": ["$taken_at", None]}, "$found.taken_at"]}


def settle_stages(removed_analyzers: Sequence[str] = ()) -> list[Document]:
    """The final stages of every update that changes the states of analyses.

    They derive the upload's status from all analyses as they are at that moment. First, a waiting
    analysis is queued when all analyses that it requires have succeeded, and skipped when one of
    them is missing or ended otherwise.

    Args:
        removed_analyzers: analyzers that no longer exist: their unfinished analyses count as
            missing.
    """
    moment = now()
    # One after the other: the array is in the order of the requirements, so the analyses that one
    # waits for have their new states by then.
    one_by_one = {
        "$reduce": {
            "input": "$analyses",
            "initialValue": [],
            "in": {"$concatArrays": ["$$value", [_settled_analysis(removed_analyzers, moment)]]},
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
        {"$set": {"status": status, "updated_at": next_updated_at(moment)}},
        {"$set": {"facets": FACETS}},
    ]


def next_updated_at(moment: datetime) -> Document:
    """An expression for the time of a change, always later than that of the previous change.

    Otherwise two versions of an upload could have the same time. A stored time far ahead of the
    clock is ignored: it was written while the clock was wrong.
    """
    next = {"$add": ["$updated_at", 1]}
    ahead = {"$and": [{"$gt": [next, moment]}, {"$lt": [next, moment + MAX_AHEAD]}]}
    return {"$cond": [ahead, next, moment]}


def _settled_analysis(removed_analyzers: Sequence[str], moment: datetime) -> Document:
    """An expression for the analysis `$$this`, settled after the earlier ones in `$$value`."""
    succeeded = {"$eq": ["$$other.state", State.SUCCEEDED]}
    hopeful: Document = {"$in": ["$$other.state", [State.SUCCEEDED, *UNFINISHED]]}
    if removed_analyzers:
        left = {"$not": {"$in": ["$$other.name", [*removed_analyzers]]}}
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


def queue_stages(analyzer: Analyzer, dependents: Sequence[str], order: Document) -> list[Document]:
    """The update that queues an analysis, and adds it where there is none.

    The analysis goes behind all analyses that do not require it: the analyses of an upload are in
    the order of their requirements.

    Args:
        order: the fields `priority` and `job` of the queued analysis.
    """
    moment = now()
    is_this = {"$eq": ["$$this.name", analyzer.name]}
    behind = {"$in": ["$$this.name", list(dependents)]}

    def analyses_where(condition: Document) -> Document:
        return {"$filter": {"input": "$analyses", "as": "this", "cond": condition}}

    before = {"$first": analyses_where(is_this)}
    looked_at = {"$in": ["$content_type", sorted(analyzer.formats)]} if analyzer.formats else True
    state = State.WAITING if analyzer.requires else State.QUEUED
    refusal = {"$concat": ["does not look at ", "$content_type"]}
    changed = {
        "name": analyzer.name,
        # While there is a result, this is the version that produced it.
        "version": {
            "$cond": [{"$ifNull": ["$$before.result", False]}, "$$before.version", analyzer.version]
        },
        "state": {"$cond": [looked_at, state, State.SKIPPED]},
        "error": {"$cond": [looked_at, None, refusal]},
        "requires": list(analyzer.requires),
        "due_at": moment,
        "deferred_at": None,
        "attempts": 0,
        "crashes": 0,
        "faults": 0,
    }
    both: Document = {"$mergeObjects": ["$$before", changed]}
    for name, value in order.items():
        both = {"$setField": {"field": name, "input": both, "value": value}}
    queued = {"$let": {"vars": {"before": before}, "in": both}}
    ahead = {"$not": [{"$or": [is_this, behind]}]}
    in_order = {"$concatArrays": [analyses_where(ahead), [queued], analyses_where(behind)]}
    return [{"$set": {"analyses": in_order}}]


def withdraw_stages(job: ObjectId) -> list[Document]:
    """The update that restores the unstarted analyses of a job to what they were before it."""
    not_begun = {
        "$and": [{"$eq": ["$$this.job", job]}, {"$in": ["$$this.state", [*UNSTARTED_STATES]]}]
    }
    good = {"state": State.SUCCEEDED, "error": None, "deferred_at": None}
    cancelled = {
        **good,
        "state": State.CANCELLED,
        "error": "the job that asked for it was cancelled",
        "finished_at": now(),
    }
    changes = {"$cond": [{"$ifNull": ["$$this.result", False]}, good, cancelled]}
    changed = {"$mergeObjects": ["$$this", changes]}
    without_job = {"$unsetField": {"field": "job", "input": changed}}
    each = {"$cond": [not_begun, without_job, "$$this"]}
    return [{"$set": {"analyses": {"$map": {"input": "$analyses", "in": each}}}}]
