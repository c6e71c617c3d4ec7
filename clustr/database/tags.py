"""Tags: two tags that differ only in the case of letters are the same.

An upload has the keys of its tags in `tag_keys`, in the order of `tags`; they are used to find and
compare tags. The lists of tags in `found` and `human` have such keys, too. Only Python can compute
a key (see `clustr.database.case_folding`), so every write of tags includes their keys.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clustr.database.case_folding import tag_key
from clustr.database.connection import Document


def distinct_tags(tags: Iterable[str]) -> list[str]:
    """The tags, trimmed and in NFC, each once in its first spelling, without empty ones."""
    by_key: dict[str, str] = {}
    for tag in tags:
        written = unicodedata.normalize("NFC", tag).strip()
        by_key.setdefault(tag_key(written), written)
    by_key.pop("", None)
    return list(by_key.values())


def tag_fields(tags: Iterable[str]) -> Document:
    """The fields `tags` and `tag_keys` for these tags."""
    written = distinct_tags(tags)
    return {"tags": written, "tag_keys": [tag_key(tag) for tag in written]}


@dataclass(frozen=True, slots=True)
class TagList:
    """MongoDB expressions for a list of tags, and for their keys in the same order."""

    tags: Any
    keys: Any

    @classmethod
    def from_fields(cls, tags: str, keys: str) -> "TagList":
        """The list in these fields; empty where they are missing.

        Where only the keys are missing (an older version of Clustr is still running), the tags
        themselves stand in for them, so that no tag is lost.
        """
        return cls(
            {"$ifNull": [f"${tags}", []]}, {"$ifNull": [f"${keys}", {"$ifNull": [f"${tags}", []]}]}
        )

    @classmethod
    def from_tags(cls, tags: Iterable[str]) -> "TagList":
        """The list of these tags."""
        written = tag_fields(tags)
        return cls({"$literal": written["tags"]}, {"$literal": written["tag_keys"]})

    def without(self, keys: Any) -> "TagList":
        """The tags whose keys are not among these."""
        pairs = {"$zip": {"inputs": [self.tags, self.keys]}}
        others = {"$not": {"$in": [{"$last": "$$pair"}, keys]}}
        left = {"$filter": {"input": pairs, "as": "pair", "cond": others}}
        return TagList(_map_pairs(left, {"$first": "$$pair"}), exclude_keys(self.keys, keys))

    def spelled_as(self, other: "TagList") -> "TagList":
        """The same tags, in the spelling of another list where that has them."""
        place = {"$indexOfArray": [other.keys, {"$last": "$$pair"}]}
        spelled = {"$arrayElemAt": [other.tags, place]}
        tag = {"$cond": [{"$gte": [place, 0]}, spelled, {"$first": "$$pair"}]}
        return TagList(_map_pairs({"$zip": {"inputs": [self.tags, self.keys]}}, tag), self.keys)

    def followed_by(self, other: "TagList") -> "TagList":
        """These tags, then those of another list."""
        return TagList(
            {"$concatArrays": [self.tags, other.tags]}, {"$concatArrays": [self.keys, other.keys]}
        )


def exclude_keys(keys: Any, others: Any) -> Document:
    """An expression for a list of keys without the elements of another, in its order."""
    different = {"$not": {"$in": ["$$this", others]}}
    return {"$filter": {"input": keys, "cond": different}}


def _map_pairs(pairs: Any, expression: Any) -> Document:
    return {"$map": {"input": pairs, "as": "pair", "in": expression}}


def missing_key_fields(document: Mapping[str, Any]) -> Document:
    """The fields for tags and their keys that an upload of an older version lacks.

    Raises:
        AttributeError, TypeError: it is a foreign record.
    """
    if not isinstance(document["tags"], list):
        raise TypeError("its tags are no list")
    missing = tag_fields(document["tags"])
    if found := (document.get("found") or {}).get("tags"):
        fields = tag_fields(found)
        missing |= {f"found.{name}": value for name, value in fields.items()}
    human = (document.get("human") or {}).get("tags") or {}
    for name in human.keys() & {"set", "added"}:
        fields = tag_fields(human[name])
        missing |= {
            f"human.tags.{name}": fields["tags"],
            f"human.tags.{name}_keys": fields["tag_keys"],
        }
    if "removed" in human:
        missing["human.tags.removed"] = tag_fields(human["removed"])["tag_keys"]
    return missing
