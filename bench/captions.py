"""Captions and tags of a library, of invented words, with the terms by which they are found.

Words are about as frequent as in a language: few are in very many captions, most in few. Each has
forms with the same stem. Beside them there are words of known frequency.
"""

import itertools
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache

from clustr.database.vocabulary import is_in_vocabulary
from clustr.search.terms import Stemming, date_term

# Word n is a tag of every (n + 2)nd upload or so; beside those there is a rarer one.
TAGS = ("sea", "sky", "person", "tree", "dog", "car", "beach", "street", "cat", "snow")
RARE_TAG, UPLOADS_WITH_RARE_TAG = "lighthouse", 55
# Each of these is in the caption of one in fifty; where both are, it is in this order.
COMMON_WORDS = ("harbor", "sunset")
RARE_WORD = "zebra"  # in one of a thousand
CJK_CAPTION = "日本語の海の写真"  # in one of seven hundred

DIFFERENT = 49_999  # A prime number: no other number of the library has to do with it.
STEMS = 7000
ENDINGS = ("", "s", "ing")
# The first ones are the most frequent: of 20,000 words some 300 begin with the same three letters.
CONSONANTS, VOWELS = "pcsmtbdrflngvhk", "aeiou"
LENGTHS = range(8, 21)  # of captions, in words
TAGS_EACH = 5
STEMMING = Stemming(["en"])


@dataclass(frozen=True, slots=True)
class Words:
    """The words of an upload beside its name.

    Attributes:
        terms, text: as in `clustr.search.terms.UploadTerms`, without those of the name.
    """

    caption: str
    tags: list[str]
    terms: list[str]
    text: str


def words_of(number: int) -> Words:
    """The words of this upload of the library."""
    return _different_words()[number % DIFFERENT]


@cache
def terms_of_name(name: str) -> tuple[list[str], str]:
    """The terms and the text that the name of a file has."""
    made = STEMMING.terms_of_upload(name)
    return [*made.terms], made.text


def search_field(name: str, words: Words, taken_on: date | None) -> dict[str, object]:
    """The field `search` as `clustr.database.SearchTerms` writes it."""
    terms, text = terms_of_name(name)
    dates = [date_term(taken_on)] if taken_on else []
    return {
        "terms": words.terms + terms + dates,
        "text": f"{words.text}\n{text}",
        "version": STEMMING.version,
    }


def counted_terms(numbers: Iterable[int], name: str) -> Counter[str]:
    """How many of these uploads have each of the terms that the vocabulary has.

    Args:
        name: which all have, apart from digits.
    """
    counts: Counter[str] = Counter()
    for number, times in Counter(number % DIFFERENT for number in numbers).items():
        terms = words_of(number).terms + terms_of_name(name)[0]
        counts.update(dict.fromkeys(filter(is_in_vocabulary, terms), 0))
        for term in terms:
            if term in counts:
                counts[term] += times
    return counts


@cache
def _different_words() -> list[Words]:
    choose = random.Random(1)
    vocabulary = _invented_words(choose)
    weights = [*itertools.accumulate(1 / (rank + 3) for rank in range(len(vocabulary)))]
    return [_words(n, choose, vocabulary, weights) for n in range(DIFFERENT)]


def _invented_words(choose: random.Random) -> list[str]:
    """Words, the most frequent first."""
    stems: dict[str, None] = {}
    while len(stems) < STEMS:
        count = choose.randint(2, 4)
        letters = [
            choose.choices(kind, [1 / (n + 2) for n in range(len(kind))], k=count)
            for kind in (CONSONANTS, VOWELS)
        ]
        last = choose.choice(CONSONANTS)
        stems["".join(map("".join, zip(*letters, strict=True))) + last] = None
    words = [stem + ending for stem in stems for ending in ENDINGS]
    choose.shuffle(words)
    return words


def _words(
    number: int, choose: random.Random, vocabulary: list[str], weights: list[float]
) -> Words:
    words = choose.choices(vocabulary, cum_weights=weights, k=choose.choice(LENGTHS) - 2)
    tags = [tag for n, tag in enumerate(TAGS) if choose.random() < 1 / (n + 2)][: TAGS_EACH - 1]
    tags += [RARE_TAG] if number % UPLOADS_WITH_RARE_TAG == 3 else []
    tags = [*dict.fromkeys([*tags, *words])][:TAGS_EACH]
    common = [word for word in COMMON_WORDS if choose.random() < 1 / 50]
    at = choose.randrange(len(words))
    words[at:at] = common + ([RARE_WORD] if number % 1000 == 7 else [])
    if number % 700 == 1:
        words.append(CJK_CAPTION)
    made = STEMMING.terms_of_upload("", " ".join(words), tags)
    return Words(" ".join(words), tags, [*made.terms], made.text)
