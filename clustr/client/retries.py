"""When a request is sent again, and how long to wait before that."""

import random

import requests

# The last one is for an answer that is cut off.
BROKEN_CONNECTION = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
SHORTEST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0


def pause_seconds(attempt: int) -> float:
    """How long to wait after this attempt, from 1."""
    longest = min(SHORTEST_PAUSE_SECONDS * 2.0 ** min(attempt, 10), LONGEST_PAUSE_SECONDS)
    return random.uniform(longest / 2, longest)  # noqa: S311  So that not all come back at once.


def asked_pause_seconds(response: requests.Response) -> float | None:
    """Return the seconds of `Retry-After`; None when it is a date, or is not there."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None
