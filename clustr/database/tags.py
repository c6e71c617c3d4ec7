"""Tags: those that differ in the case of letters alone are one.

Beside the tags of an upload are their keys, in `tag_keys`, in the same order: by these they are
found and compared. So it is with those that analyzers say and those that humans say. Only Python
can work a key out (see `clustr.database.case_folding`); whoever writes tags writes their keys, too.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clustr.database.case_folding import tag_key
from clustr.database.connection import Document


def distinct_tags(tags: Iterable[str]) -> list[str]:
    """The tags trimmed and in NFC, without those that are there already; the first spelling stays.

    Nothing is left of those in which there is nothing but spaces.
    """
    by_key: dict[str, str] = {}
    for tag in tags:
        written = unicodedata.normalize("NFC", tag).strip()
        by_key.setdefault(tag_key(written), written)
    by_key.pop("", None)
    return list(by_key.values())


def with_keys(tags: Iterable[str]) -> Document:
    """The fields of an upload with these tags."""
    written = distinct_tags(tags)
    return {"tags": written, "tag_keys": [tag_key(tag) for tag in written]}


@dataclass(frozen=True, slots=True)
class TagList:
    """Expressions for a list of tags in an upload, and for their keys in the same order."""

    tags: Any
    keys: Any

    @classmethod
    def at(cls, tags: str, keys: str) -> "TagList":
        """The list that is in these fields; an empty one where they are not there.

        Should there be no keys, for an older version of Clustr is still at work, nothing is lost.
        """
        return cls(
            {"$ifNull": [f"${tags}", []]}, {"$ifNull": [f"${keys}", {"$ifNull": [f"${tags}", []]}]}
        )

    @classmethod
    def of(cls, tags: Iterable[str]) -> "TagList":
        """The list of these tags."""
        written = with_keys(tags)
        return cls({"$literal": written["tags"]}, {"$literal": written["tag_keys"]})

    def without(self, keys: Any) -> "TagList":
        """Those with other keys than these."""
        pairs = {"$zip": {"inputs": [self.tags, self.keys]}}
        others = {"$not": {"$in": [{"$last": "$$pair"}, keys]}}
        left = {"$filter": {"input": pairs, "as": "pair", "cond": others}}
        return TagList(_each(left, {"$first": "$$pair"}), keys_without(self.keys, keys))

    def spelled_as(self, other: "TagList") -> "TagList":
        """The same, those that are in another list in its spelling."""
        place = {"$indexOfArray": [other.keys, {"$last": "$$pair"}]}
        spelled = {"$arrayElemAt": [other.tags, place]}
        tag = {"$cond": [{"$gte": [place, 0]}, spelled, {"$first": "$$pair"}]}
        return TagList(_each({"$zip": {"inputs": [self.tags, self.keys]}}, tag), self.keys)

    def followed_by(self, other: "TagList") -> "TagList":
        """These and, behind them, others."""
        return TagList(
            {"$concatArrays": [self.tags, other.tags]}, {"$concatArrays": [self.keys, other.keys]}
        )


def keys_without(keys: Any, others: Any) -> Document:
    """An expression for a list of keys without the elements of another, in its order."""
    different = {"$not": {"$in": ["$$this", others]}}
    return {"$filter": {"input": keys, "cond": different}}


def _each(pairs: Any, expression: Any) -> Document:
    return {"$map": {"input": pairs, "as": "pair", "in": expression}}


def keys_missing(document: Mapping[str, Any]) -> Document:
    """The fields with keys that an upload of an older version lacks, and its tags.

    Raises:
        AttributeError, TypeError: others have written it.
    """
    if not isinstance(document["tags"], list):
        raise TypeError("its tags are no list")
    missing = with_keys(document["tags"])
    if found := (document.get("found") or {}).get("tags"):
        said = with_keys(found)
        missing |= {f"found.{name}": value for name, value in said.items()}
    human = (document.get("human") or {}).get("tags") or {}
    for name in human.keys() & {"set", "added"}:
        said = with_keys(human[name])
        missing |= {f"human.tags.{name}": said["tags"], f"human.tags.{name}_keys": said["tag_keys"]}
    if "removed" in human:
        missing["human.tags.removed"] = with_keys(human["removed"])["tag_keys"]
    return missing
