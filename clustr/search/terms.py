"""Terms: what is stored of an upload's words so that a search finds them.

A term is the field of a word, a mark, and the word itself:

- `c=beaches`: the caption has the word `beaches`, in lower case and folded (see `fold`).
- `c~beach`: the caption has another word whose stem is `beach`.
- `#=golden retriever`: there is just this tag. Tags of several words also have the terms of these.
- `d=2024-07-31`: the picture was taken on this day.

The fields are `FIELDS`. So one array with one index says in which field an upload has a word, and
whether it is just this word. Words of scripts that are written without spaces are their characters
and the pairs of neighbors.
"""

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from itertools import groupby

import Stemmer

# A letter for each field of words; others stand for tags as a whole, and for dates.
FIELDS = {"tag": "t", "caption": "c", "name": "n"}
WHOLE_TAG = "#"
TAKEN_ON = "d"
EXACT, STEM = "=", "~"

# Raise it when the same text may have other terms: the terms of all uploads are then made again.
RULES = 2

# Longer words are cut: nobody looks for them, and they would only make the index large.
LONGEST_WORD = 64
LONGEST_TAG = 100
# Of a longer text the first words are found: each has terms, and each term a key in the index.
MAX_TOKENS = 1000

LANGUAGES = {
    "ar": "arabic",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "ne": "nepali",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}

# Scripts that are written without spaces, and Korean, which attaches particles to its words.
UNSPACED = (
    "\u0e00-\u0eff"  # Thai and Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese and Khmer
    "\u1100-\u11ff\uac00-\ud7ff"  # Hangul
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
SEGMENT = re.compile(f"[{UNSPACED}]+|[^{UNSPACED}]+")
UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
# `2024-07-15` and `1,000.5` are one word each.
NUMBER = r"\d+(?:[.,:/-]\d+)+"
NUMBER_PART = re.compile(r"\d+")
# After an apostrophe an `s` is an ending, not a word.
POSSESSIVE = re.compile(r"(?<=[^\W_])['\u2019]s(?![^\W_])", re.IGNORECASE)
# Where the names of files are cut besides at punctuation: `IMG2024Beach` is `IMG`, `2024`, `Beach`.
LETTERS_OR_DIGITS = re.compile(r"\d+|\D+")
CASE_CHANGE = re.compile(r"(?<=[a-z\xdf-\xff])(?=[A-Z\xc0-\xde])|(?<=[A-Z])(?=[A-Z][a-z])")
EXTENSION = re.compile(r"(?<=.)\.(?:jpe?g|png|webp|bmp|tiff?|gif|hei[cf]|avif|jxl)$", re.IGNORECASE)

# What many keyboards lack, though Unicode knows no marks on it, is what people write instead; the
# Russian io is ie, and the sigma at the end of words is a sigma.
LETTERS = str.maketrans(
    {
        **{"\u00df": "ss", "\u00e6": "ae", "\u0153": "oe", "\u00fe": "th"},  # ß æ œ þ
        **{
            "\u00f8": "o",
            "\u0142": "l",
            "\u0111": "d",
            "\u00f0": "d",
            "\u0131": "i",
        },  # ø ł đ ð, the dotless i
        **{"\u0451": "\u0435", "\u03c2": "\u03c3"},
    }
)
# Soft hyphen, zero-width space and joiners, direction marks: they are not seen.
UNSEEN = dict.fromkeys((0xAD, 0x61C, *range(0x200B, 0x2010), *range(0x202A, 0x202F), 0xFEFF))
MARKED_PLANES = 0x20000  # Beyond these code points there are no combining marks but selectors.


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a text; texts are compared word by word where a phrase is looked for.

    Attributes:
        word: in lower case and folded; in scripts without spaces, a character with its marks.
        unfolded: the word with its marks, from which stems are made; empty where it has none.
        forms: further words by which this one is found, such as the parts of a number.
        joined: whether a character follows another one without a space between them.
    """

    word: str
    unfolded: str = ""
    forms: tuple[str, ...] = ()
    joined: bool = False


@dataclass(frozen=True, slots=True)
class UploadTerms:
    """What is stored of an upload's words.

    Attributes:
        terms: each once.
        text: a line for each field (for tags, a line for each of them; for a name that is cut, one
            with its parts as well): the field's letter, and the words, each between spaces. Phrases
            are looked for in it.
    """

    terms: tuple[str, ...]
    text: str


def normalize(text: str) -> str:
    """The text in the form in which its words are compared, with their marks: NFKC, lower case."""
    lower = unicodedata.normalize("NFKC", text).translate(UNSEEN).lower()
    return unicodedata.normalize("NFKC", lower)


def fold(word: str) -> str:
    """A word in lower case without the marks on its Latin and Greek letters, and with `LETTERS`.

    Marks of other scripts are kept: without them a Hindi word would lose its vowels.
    """
    if word.isascii():
        return word
    kept: list[str] = []
    loses_marks = False
    for character in unicodedata.normalize("NFD", word):
        if not unicodedata.category(character).startswith("M"):
            loses_marks = _is_latin_or_greek(character)
        elif loses_marks:
            continue
        kept.append(character)
    return unicodedata.normalize("NFC", "".join(kept)).translate(LETTERS)


@lru_cache(10_000)
def _is_latin_or_greek(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(("LATIN ", "GREEK "))


@cache
def _combining_marks() -> str:
    """All combining marks, as a part of a class of characters in a regular expression."""
    codes = (c for c in range(MARKED_PLANES) if unicodedata.category(chr(c)).startswith("M"))
    runs = groupby(enumerate(codes), lambda each: each[1] - each[0])
    ranges = ([code for _, code in run] for _, run in runs)
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in ranges)


@cache
def _run_pattern() -> re.Pattern[str]:
    """A number with its separators, or letters and digits in a row, with their marks."""
    letters = rf"[^\W_](?:[^\W_]|[{_combining_marks()}])*"
    return re.compile(rf"{NUMBER}(?![^\W_])|{letters}")


@cache
def _character_pattern() -> re.Pattern[str]:
    """A character with its marks."""
    return re.compile(rf".[{_combining_marks()}]*")


def text_tokens(text: str) -> list[Token]:
    """The words of a text, such as a caption, a tag or what somebody looks for."""
    runs = _run_pattern().findall(POSSESSIVE.sub("", normalize(text)))
    return [token for run in runs for token in _tokens_of_run(run)][:MAX_TOKENS]


def name_tokens(name: str) -> list[Token]:
    """The words of the name of a file, without extension, cut at changes of case and digits too."""
    found: list[Token] = []
    seen = unicodedata.normalize("NFKC", without_extension(name)).translate(UNSEEN)
    for run in _run_pattern().findall(POSSESSIVE.sub("", seen)):
        if re.fullmatch(NUMBER, run):
            found += _tokens_of_run(run)
            continue
        cut = [part for each in LETTERS_OR_DIGITS.findall(run) for part in CASE_CHANGE.split(each)]
        found += [token for part in cut for token in _tokens_of_run(normalize(part))]
    return found[:MAX_TOKENS]


def without_extension(name: str) -> str:
    """The name of a file without the extension that says that it is an image."""
    return EXTENSION.sub("", name)


def _tokens_of_run(run: str) -> Iterator[Token]:
    """The words of a normalized number, or of normalized letters and digits in a row."""
    if re.fullmatch(NUMBER, run):
        parts = [*NUMBER_PART.finditer(run)]
        forms = {*(run[: part.end()] for part in parts), *(part.group() for part in parts)} - {run}
        yield Token(run[:LONGEST_WORD], forms=tuple(sorted(form[:LONGEST_WORD] for form in forms)))
        return
    for segment in SEGMENT.findall(run):
        if UNSPACED_CHARACTER.match(segment):
            for number, character in enumerate(_character_pattern().findall(segment)):
                yield Token(character, joined=number > 0)
        else:
            yield Token(fold(segment)[:LONGEST_WORD], segment[:LONGEST_WORD])


class Stemming:
    """The stems of words in some languages.

    Args:
        languages: keys of `LANGUAGES`.

    Attributes:
        version: differs for other languages or rules, by which the same words have other terms.
    """

    def __init__(self, languages: Sequence[str]):
        self._algorithms = [LANGUAGES[language] for language in languages]
        # A stemmer must not be used by two threads at once.
        self._of_thread = threading.local()
        self.version = f"{RULES}:{','.join(languages)}"

    def stems(self, token: Token) -> list[str]:
        """The folded stems of a word that are not the word itself."""
        if not token.unfolded:
            return []
        stemmers = getattr(self._of_thread, "stemmers", None)
        if stemmers is None:
            stemmers = [Stemmer.Stemmer(algorithm) for algorithm in self._algorithms]
            self._of_thread.stemmers = stemmers
        # People write a word with its marks in one place and without them in another.
        spellings = {token.unfolded, token.word}
        found = {fold(stemmer.stemWord(s)) for stemmer in stemmers for s in spellings}
        return sorted(found - {token.word, ""})

    def terms_of_upload(
        self,
        name: str,
        caption: str | None = None,
        tags: Iterable[str] = (),
        taken_on: date | None = None,
    ) -> UploadTerms:
        """The terms of an upload with this original name, caption, tags and date."""
        terms: dict[str, None] = {}
        lines: list[str] = []

        def add(field: str, found: Sequence[Token]) -> None:
            terms.update(dict.fromkeys(self._terms(FIELDS[field], found)))
            if found:
                lines.append(f"{FIELDS[field]} {_written(found)} ")

        for tag in tags:
            found = text_tokens(tag)
            add("tag", found)
            if found:
                terms[whole_tag_term(found)] = None
                if len(found) == 1:  # The whole tag says it already.
                    terms.pop(f"{FIELDS['tag']}{EXACT}{found[0].word}", None)
        add("caption", text_tokens(caption or ""))
        # People write a name as it is, and its parts as words.
        whole, cut = text_tokens(without_extension(name)), name_tokens(name)
        add("name", whole)
        if cut != whole:
            add("name", cut)
        if taken_on:
            terms[date_term(taken_on)] = None
        return UploadTerms(tuple(terms), "\n".join(lines))

    def _terms(self, field: str, found: Sequence[Token]) -> Iterator[str]:
        for number, token in enumerate(found):
            for word in (token.word, *token.forms):
                yield f"{field}{EXACT}{word}"
            for stem in self.stems(token):
                yield f"{field}{STEM}{stem}"
            if token.joined:
                yield f"{field}{EXACT}{found[number - 1].word}{token.word}"


def whole_tag_term(found: Sequence[Token]) -> str:
    """The term for a tag of just these words."""
    return f"{WHOLE_TAG}{EXACT}{_written(found)}"[:LONGEST_TAG]


def date_term(day: date) -> str:
    """The term for a picture that was taken on this day."""
    return f"{TAKEN_ON}{EXACT}{day.isoformat()}"


def _written(found: Sequence[Token]) -> str:
    return " ".join(token.word for token in found)
