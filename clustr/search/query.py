"""The language of searches, such as `cat "on a sofa" -dog tag:red taken:2024-07`.

    search  = part { " " part }
    part    = ["-"] (date | [field ":"] (word | quoted))
    field   = "tag" | "caption" | "name"
    date    = ("taken" | "before" | "after") ":" year ["-" month ["-" day]]
    quoted  = '"' words '"'

An upload is found when all parts are met: a word in any field, or in the field that is named; a
quoted phrase with just these words in this order; a date at which the picture was taken, before or
after it. With a minus, the part must not be met. The last word may be the beginning of a word while
somebody types: see `parse`.
"""

import calendar
import itertools
import re
import unicodedata
from collections.abc import Iterator, Set
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import date, timedelta
from functools import cached_property

from clustr.domain.errors import InvalidInput
from clustr.search.terms import (
    EXACT,
    FIELDS,
    STEM,
    WHOLE_TAG,
    Stemming,
    Token,
    UploadTerms,
    date_term,
    text_tokens,
    without_extension,
)

MAX_PARTS = 20
ARROWS_AND_BARS = "+<=>|~"  # Symbols to Unicode, and written like punctuation: `cat -> dog`.
# The beginning of a word has at least so many letters: those of one letter begin too many words.
MIN_PREFIX = 2
LONGEST_QUOTE = 40  # of a part that an error repeats

DATES = ("taken", "before", "after")
PART = re.compile(
    r"""(?P<minus>-?)(?:(?P<field>[^\W\d_]+):)?(?:"(?P<quoted>[^"]*)"|(?P<word>[^\s"]+))"""
)
DATE = re.compile(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?")

# How well a term matches: the lower, the better.
WHOLE_TAG_RANK, TAG_RANK, CAPTION_RANK, NAME_RANK, STEM_RANK, PREFIX_RANK = range(6)
EXACT_RANKS = {
    WHOLE_TAG: WHOLE_TAG_RANK,
    FIELDS["tag"]: TAG_RANK,
    FIELDS["caption"]: CAPTION_RANK,
    FIELDS["name"]: NAME_RANK,
}


@dataclass(frozen=True, slots=True)
class Word:
    """That an upload has a word, or another one with its stem.

    Attributes:
        fields: in one of these fields.
        ranks: how well each of the terms matches of which an upload has at least one.
        prefix: the beginning of words which are found, too; None where the word is whole.
    """

    fields: tuple[str, ...]
    ranks: dict[str, int]
    prefix: str | None = None

    def prefixes(self) -> list[str]:
        """The beginnings of the terms of words that begin so."""
        if self.prefix is None:
            return []
        letters = [FIELDS[field] for field in self.fields]
        letters += [WHOLE_TAG] if "tag" in self.fields else []
        return [f"{letter}{EXACT}{self.prefix}" for letter in letters]

    def rank(self, terms: Set[str]) -> int | None:
        """How well the best of an upload's terms matches; None where none does."""
        ranks = [rank for term, rank in self.ranks.items() if term in terms]
        if not ranks and self.prefix is not None:
            begins = tuple(self.prefixes())
            ranks = [PREFIX_RANK] if any(term.startswith(begins) for term in terms) else []
        return min(ranks, default=None)

    def matches(self, stored: UploadTerms) -> bool:
        return self.rank(frozenset(stored.terms)) is not None


@dataclass(frozen=True, slots=True)
class Phrase:
    """That a field of an upload has words in a row.

    Attributes:
        fields: one of these.
        words: folded.
    """

    fields: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def pattern(self) -> str:
        """A regular expression for `UploadTerms.text`, with the option `m` of Python and PCRE."""
        letters = "".join(FIELDS[field] for field in self.fields)
        return f"^[{letters}][^\\n]* {re.escape(' '.join(self.words))} "

    def matches(self, stored: UploadTerms) -> bool:
        return re.search(self.pattern, stored.text, re.MULTILINE) is not None


@dataclass(frozen=True, slots=True)
class Taken:
    """That a picture was taken in a period, in the local time of the picture.

    Attributes:
        first_day, last_day: both are in the period.
    """

    first_day: date
    last_day: date

    def term_range(self) -> tuple[str, str]:
        """The terms of the first and of the last day."""
        return date_term(self.first_day), date_term(self.last_day)

    def matches(self, stored: UploadTerms) -> bool:
        first, last = self.term_range()
        return any(first <= term <= last for term in stored.terms)


Condition = Word | Phrase | Taken


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a search: all of its conditions are met; with `excluded`, not all of them."""

    conditions: tuple[Condition, ...]
    excluded: bool = False


@dataclass(frozen=True)
class SearchQuery:
    """A search.

    Attributes:
        text: as it was written.
        prefix: whether the last word may be the beginning of a word.
        parts: an upload is found when all of them are met.
    """

    text: str
    prefix: bool
    parts: tuple[Part, ...] = dataclass_field(repr=False)

    @cached_property
    def required(self) -> tuple[Condition, ...]:
        """The conditions that an upload has to meet."""
        return tuple(c for part in self.parts if not part.excluded for c in part.conditions)

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """The words that an upload has to have."""
        return tuple(each for each in self.required if isinstance(each, Word))

    def matches(self, stored: UploadTerms) -> bool:
        """Whether an upload is found."""
        return all(
            all(each.matches(stored) for each in part.conditions) != part.excluded
            for part in self.parts
        )

    def rank(self, terms: Set[str]) -> int:
        """How well an upload with these terms matches: the lower, the better."""
        return sum(word.rank(terms) or 0 for word in self.words)

    def matched_fields(self, terms: Set[str]) -> list[str]:
        """In which fields an upload with these terms has one of the words."""
        wanted = {term for word in self.words for term in word.ranks}
        begins = tuple(prefix for word in self.words for prefix in word.prefixes())
        letters = {t[0] for t in terms if t in wanted or (begins and t.startswith(begins))}
        letters |= {FIELDS["tag"]} if WHOLE_TAG in letters else set()
        return [field for field, letter in FIELDS.items() if letter in letters]


def parse(text: str, stemming: Stemming, prefix: bool = True) -> SearchQuery:
    """Parse a search.

    Args:
        prefix: whether the last word may be the beginning of a word: when it is not in quotation
            marks, excluded or followed by a space, and has at least `MIN_PREFIX` letters.

    Raises:
        InvalidInput: it cannot be understood, has too many parts, or nothing to look for; or a part
            has nothing.
    """
    if text.count('"') % 2:
        at = text.rindex('"') + 1
        raise _invalid(f"The quotation mark at character {at} is not closed")
    parts: list[Part] = []
    for found in PART.finditer(text):
        is_last = prefix and found.end() == len(text) and found["quoted"] is None
        conditions = tuple(_conditions(found, stemming, is_last and not found["minus"]))
        if conditions:
            parts.append(Part(conditions, bool(found["minus"])))
        elif _is_meant(found):
            at = found.start() + 1
            raise _invalid(
                f"At character {at}: there are no letters and no digits to look for, and endings "
                "of names are not looked for"
            )
    if not parts:
        raise _invalid("Give a word to look for: there are no letters and no digits in this")
    if len(parts) > MAX_PARTS:
        raise _invalid(f"Give at most {MAX_PARTS} words, phrases and dates; these are {len(parts)}")
    return SearchQuery(text, prefix, tuple(parts))


def _is_meant(found: re.Match[str]) -> bool:
    """Whether a part in which no word is left asks for something, and is no mere punctuation.

    Without it, more would be found, and deleted. `*.png` has letters, those of an ending.
    """
    written = found["quoted"] or found["word"] or ""
    if found["field"] or any(each.isalnum() for each in written):
        return True
    # Some emoji are punctuation with a mark that makes them one.
    kinds = (unicodedata.category(each)[0] for each in written if each not in ARROWS_AND_BARS)
    return bool(found["minus"]) and not {"S", "M"}.isdisjoint(kinds)


def _conditions(found: re.Match[str], stemming: Stemming, is_prefix: bool) -> Iterator[Condition]:
    """The conditions of a part."""
    name, quoted, word = found["field"], found["quoted"], found["word"]
    if quoted is None and word.rstrip(":") in (*FIELDS, *DATES) and word.endswith(":"):
        raise _invalid(f"At character {found.start() + 1}: a word has to follow `{word}` directly")
    if name in DATES:
        yield _taken(name, quoted or word or "", found.start() + 1)
        return
    if name and name not in FIELDS:
        if word is None or not word.startswith("/"):  # not the address of a page
            raise _unknown_field(name, found.start() + 1)
        word = f"{name}:{word}"
        name = None
    fields = (name,) if name else tuple(FIELDS)
    if quoted is not None:
        words = text_tokens(without_extension(quoted))
        yield from (_word(token.word, fields) for token in words)
        if len(words) > 1:
            yield Phrase(fields, tuple(token.word for token in words))
        return
    words = text_tokens(without_extension(word))
    for run in _runs(words):
        last_letters = run[-1] is words[-1] and len(run[-1].word) >= MIN_PREFIX
        yield from _run_conditions(run, fields, stemming, is_prefix and last_letters)


def _runs(words: list[Token]) -> Iterator[list[Token]]:
    """The words, those together that are characters of a run without spaces."""
    run: list[Token] = []
    for token in words:
        if run and not token.joined:
            yield run
            run = []
        run.append(token)
    if run:
        yield run


def _run_conditions(
    run: list[Token], fields: tuple[str, ...], stemming: Stemming, is_prefix: bool
) -> Iterator[Condition]:
    if len(run) == 1:
        stems = (run[0].word, *stemming.stems(run[0]))
        yield _word(run[0].word, fields, stems, is_prefix)
        return
    for first, second in itertools.pairwise(run):
        yield _word(first.word + second.word, fields)
    if len(run) > 2:
        yield Phrase(fields, tuple(token.word for token in run))


def _word(
    word: str, fields: tuple[str, ...], stems: tuple[str, ...] = (), is_prefix: bool = False
) -> Word:
    """The condition for a word, or others with one of these stems."""
    ranks: dict[str, int] = {}
    for field in fields:
        letters = [FIELDS[field], *([WHOLE_TAG] if field == "tag" else [])]
        # Words that have a stem for theirs, and words that are one.
        inexact = [f"{FIELDS[field]}{STEM}{stem}" for stem in stems]
        inexact += [f"{letter}{EXACT}{stem}" for letter in letters for stem in stems]
        ranks |= dict.fromkeys(inexact, STEM_RANK)
        ranks |= {f"{letter}{EXACT}{word}": EXACT_RANKS[letter] for letter in letters}
    return Word(fields, ranks, word if is_prefix else None)


def _taken(name: str, written: str, at: int) -> Taken:
    """The period of a date with its name, such as `before:2024-07`."""
    parsed = DATE.fullmatch(written)
    if parsed is None:
        raise _invalid_date(name, written, at)
    year, month, day = (int(number) if number else None for number in parsed.groups())
    try:
        first = date(year or 0, 1 if month is None else month, 1 if day is None else day)
        last = _last_day(first, month) if day is None else first
        if name == "before":
            return Taken(date.min, first - timedelta(days=1))
        return Taken(last + timedelta(days=1), date.max) if name == "after" else Taken(first, last)
    except (ValueError, OverflowError):
        raise _invalid_date(name, written, at) from None


def _last_day(first: date, month: int | None) -> date:
    """The last day of the month that begins so, or of the year."""
    if month is None:
        return date(first.year, 12, 31)
    return first.replace(day=calendar.monthrange(first.year, month)[1])


def _invalid(message: str) -> InvalidInput:
    return InvalidInput({"q": [f"{message}."]})


def _invalid_date(name: str, written: str, at: int) -> InvalidInput:
    return _invalid(
        f"At character {at}: `{name}:{written[:LONGEST_QUOTE]}` has no date; write a year, a month "
        f"or a day, such as `{name}:2024`, `{name}:2024-07` or `{name}:2024-07-31`"
    )


def _unknown_field(name: str, at: int) -> InvalidInput:
    known = ", ".join(f"`{each}:`" for each in (*FIELDS, *DATES))
    return _invalid(
        f"At character {at}: there is no `{name[:LONGEST_QUOTE]}:` to look for; there are {known}. "
        "Words with a colon go into quotation marks"
    )
