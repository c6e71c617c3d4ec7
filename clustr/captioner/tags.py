"""Tags from a caption: its words, without those that only hold English sentences together."""

import re

FUNCTION_WORDS_TEXT = """
a about above across after against all along among an and another any are around as at away be
been before behind being below beneath beside between beyond both but by can could did do does
down during each either every for from front had has have having he her hers him his how i if in
inside into is it its itself just like many may me might more most much my near neither next no
nor not of off on one onto or other others our out outside over own per she should so some such
than that the their them then there these they this those through to together too toward towards
under until up upon us very was we were what when where which while who whom whose why will with
within without would you your
"""
FUNCTION_WORDS = frozenset(FUNCTION_WORDS_TEXT.split())
WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


def tags_of(caption: str) -> list[str]:
    """The words of a caption in lower case, each once, in their order."""
    words = (word.lower() for word in WORD.findall(caption))
    return list(dict.fromkeys(word for word in words if word not in FUNCTION_WORDS))
