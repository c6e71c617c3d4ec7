"""What the application knows of the web process that serves it: how many requests may
wait, and its end.

gunicorn's worker sets both; under another WSGI server the defaults stay.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Semaphore

# Of the threads of a process; the rest is for requests that arrive slowly, and for all others.
WAITING_SHARE = 1 / 5
# Of the threads of a process; so no key can take all of them.
KEY_SHARE = 1 / 2
DEFAULT_THREADS = 100

# Set once the process takes no more requests; those that wait are to be answered at once.
ending = Event()

_threads = DEFAULT_THREADS
_waiting_places = Semaphore(int(DEFAULT_THREADS * WAITING_SHARE))


def set_threads(threads: int) -> None:
    """Set how many threads answer requests in this process, before any does."""
    global _threads, _waiting_places
    _threads = threads
    _waiting_places = Semaphore(int(threads * WAITING_SHARE))


def places_of_a_key() -> int:
    """How many requests with one key this process answers at the same time."""
    return max(int(_threads * KEY_SHARE), 1)


@contextmanager
def waiting_place() -> Iterator[bool]:
    """Take the place of a request that keeps its thread while it waits; true if there is one."""
    places = _waiting_places
    taken = places.acquire(blocking=False)
    try:
        yield taken
    finally:
        if taken:
            places.release()
