"""The rows of search: the first page among a million uploads, and what its index costs."""

import json
import math
import time
import urllib.request
from collections.abc import Iterator, Sequence
from urllib.error import HTTPError
from urllib.parse import urlencode

from bench import load
from bench.captions import COMMON_WORDS, RARE_TAG, RARE_WORD, TAGS, words_of
from bench.indexes import with_and_without, worked
from bench.listing import LARGER, uploads_of
from bench.rows import Figure
from bench.seed import key_of, seed_library
from bench.service import Contender, web
from clustr.database import Database

REQUESTS = 120
CAPTIONS = 500
ONE, OTHER = COMMON_WORDS
# What is looked for, and how many uploads of a million have it.
WHOLE_WORDS = {
    RARE_WORD: "a word in a thousand",
    ONE: "a word in fifty",
    RARE_TAG: "a tag in fifty-five",
    TAGS[0]: "the most common tag",
    f"{ONE} {OTHER}": "two words in fifty each",
    f'"{ONE} {OTHER}"': "a phrase that is there",
    f"{ONE} -{OTHER}": "a word in fifty without another",
    "日本": "a pair of characters",
    "日本語の海": "four pairs and a phrase",
}
BEGINNINGS = {
    "pap": "the most common beginning of 3 letters",
    "kat": "a beginning of 3 letters in the middle",
    "pa": "a beginning of 2 letters",
    f"{ONE} pap": "a word in fifty, and a beginning",
}
# The words of both are common, and nobody has them in this order.
NOWHERE = {f'"{OTHER} {ONE}"': "two words in fifty each", f'"{TAGS[1]} {TAGS[0]}"': "common tags"}
TYPED = ("p", "pap", "ka", ONE)
MOST, MOST_NOWHERE, MOST_SUGGEST = 100, 300, 30  # milliseconds


def search(contenders: Sequence[Contender], rounds: int) -> Iterator[Figure]:
    """First pages of searches, the cost of being found, and the size of what they need."""
    ours, count = contenders[0], LARGER[-1]
    with web("large", "clustr.app:create_app()", ours.folder / "large", ours.settings) as large:
        seed_library(uploads_of(large), count)
        for q, what in WHOLE_WORDS.items():
            yield first_page(large, rounds, f"{what} ({q})", MOST, q=q, prefix="off")
        for q, what in BEGINNINGS.items():
            yield first_page(large, rounds, f"{what} ({q})", MOST, q=q)
        for q, what in NOWHERE.items():
            name = f"a phrase that nobody has, of {what}"
            yield first_page(large, rounds, name, MOST_NOWHERE, q=q, prefix="off")
        yield from completions(large, rounds)
        yield from writing_captions(large, count)
        yield from sizes(large)
    yield with_and_without(ours.settings["MONGODB_URL"], "search_terms", rounds)


def first_page(ours: Contender, rounds: int, work: str, most: float, **parameters: str) -> Figure:
    """The 99th percentile of the first page of a search, or of the answer that it is too broad."""
    path = f"/api/uploads?{urlencode(parameters)}"
    if is_refused(ours, path):
        spent = [seconds_until_refused(ours, path) * 1000 for _ in range(rounds)]
        return Figure(f"search for {work}: refused as too slow", "ms", spent, most=math.inf)
    p99 = [slow(ours, path) for _ in range(rounds)]
    return Figure(f"search for {work}", "p99 ms", p99, most=most)


def slow(ours: Contender, path: str) -> float:
    """The 99th percentile in milliseconds; infinite where it is refused now and then."""
    try:
        return load.gets(ours.url, [path], REQUESTS, 1).percentile(0.99) * 1000
    except AssertionError:
        return math.inf


def completions(ours: Contender, rounds: int) -> Iterator[Figure]:
    """The completions of what somebody types, of all kinds, once the tags are counted."""
    database = database_of(ours)
    while not database.counters.step():
        pass
    database.close()
    for q in TYPED:
        p99 = [slow(ours, f"/api/suggest?q={q}") for _ in range(rounds)]
        yield Figure(f"completions of {q}", "p99 ms", p99, most=MOST_SUGGEST)


def database_of(ours: Contender) -> Database:
    return Database(ours.settings["MONGODB_URL"], ours.name, "uploads", timeout_seconds=30)


def is_refused(ours: Contender, path: str) -> bool:
    """Whether a search is answered by saying that it is too broad."""
    try:
        urllib.request.urlopen(ours.url + path, timeout=60).close()
    except HTTPError as error:
        assert [*json.load(error)["errors"]] == ["q"], error
        return True
    return False


def seconds_until_refused(ours: Contender, path: str) -> float:
    began = time.perf_counter()
    assert is_refused(ours, path)
    return time.perf_counter() - began


def writing_captions(ours: Contender, count: int) -> list[Figure]:
    """Edits of captions, the terms of the new ones included."""
    uploads = uploads_of(ours)
    server = uploads.database.client.admin.command("serverStatus")["pid"]
    database = database_of(ours)
    worked_before, seconds = worked(server), []
    for number in range(CAPTIONS):
        upload_id = str(key_of(number * (count // CAPTIONS)))
        caption = words_of(number * 7).caption
        began = time.perf_counter()
        database.editing.edit(upload_id, {"caption": caption})
        seconds.append(time.perf_counter() - began)
    spent = (worked(server) - worked_before) / CAPTIONS / 1000
    database.close()
    work = "writing a caption, with its terms"
    return [
        Figure(work, "p50 ms", [1000 * sorted(seconds)[CAPTIONS // 2]], most=math.inf),
        Figure(work, "µs of MongoDB", [spent], most=math.inf),
    ]


def sizes(ours: Contender) -> list[Figure]:
    """Megabytes of what is kept for searches."""
    database = uploads_of(ours).database
    uploads, vocabulary = (
        database.command("collStats", name) for name in ("uploads", "search_vocabulary")
    )
    terms = uploads["indexSizes"]["search_terms"]
    kept = {
        "the index on terms": terms,
        "the vocabulary": vocabulary["storageSize"] + vocabulary["totalIndexSize"],
        "all other indexes of uploads": uploads["totalIndexSize"] - terms,
        "the uploads": uploads["storageSize"],
    }
    return [
        Figure(f"size of {what}", "MB", [size / 1e6], most=math.inf) for what, size in kept.items()
    ]
