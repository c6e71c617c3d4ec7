"""The rows of keys: what they cost, and what it costs to see one's own uploads alone."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from bench import load
from bench.captions import TAGS
from bench.listing import in_turn, uploads_of
from bench.rows import PHOTO_BYTES, Figure
from bench.seed import seed_library
from bench.service import Contender, web
from clustr.components import WORKER_TIMEOUT_SECONDS, build_database
from clustr.domain.access import OWN, Scope
from clustr.services.key_making import KeyMaking
from clustr.settings import read_settings

LIBRARY = 20_000
BOUND = 0.95
OWNER = "owner"
LISTINGS = {
    "first page of 20": "/api/uploads?limit=20",
    "first page of 100": "/api/uploads?limit=100",
    "of a tag": f"/api/uploads?tag={TAGS[2]}",
    "of a word": f"/api/uploads?q={TAGS[2]}",
    "by size, of a status": "/api/uploads?sort=-size&status=processed",
}


def keys(contenders: Sequence[Contender], rounds: int) -> Iterator[Figure]:
    """The same service without keys, with a key, and with one that sees its own alone.

    What is listed is the same library for all three: one owner has brought it.
    """
    with services(contenders[0]) as (without, with_key, with_own):
        photo = load.photograph(PHOTO_BYTES)
        for one, what in ((with_key, "with a key"), (with_own, "with a key that has `own`")):
            rates = [
                [load.uploads(each.url, photo, 600, 8).rate for each in (one, without)]
                for _ in range(rounds)
            ]
            ours, floor = zip(*rates, strict=True)
            yield Figure(f"200 KB JPEG, 8 clients, {what}", "requests/s", ours, floor, BOUND)
        library = uploads_of(without)
        library.delete_many({})
        seed_library(library, LIBRARY)
        library.update_many({}, {"$set": {"owner": OWNER, "uploaded_by": OWNER}})
        for one, what in ((with_key, "with a key"), (with_own, "with a key that has `own`")):
            for name, path in LISTINGS.items():
                groups = [(each.url, [path]) for each in (one, without)]
                figure = in_turn(groups, 1000, rounds)
                yield Figure(f"{name}, {what}", "requests/s", *figure, bound=BOUND)


@contextmanager
def services(ours: Contender) -> Iterator[tuple[Contender, Contender, Contender]]:
    """Clustr with `AUTH=off`, and with keys for two who are known by their addresses."""
    with ExitStack() as running:
        without, asking = (
            running.enter_context(
                web(
                    "keys",
                    "clustr.app:create_app()",
                    ours.folder / "keys",
                    ours.settings | {"AUTH": auth},
                )
            )
            for auth in ("off", "keys")
        )
        database = build_database(read_settings(asking.settings), WORKER_TIMEOUT_SECONDS)
        running.callback(database.close)
        making = KeyMaking(database.keys)
        every = making.create("every", Scope).text
        own = making.create(OWNER, [*(set(Scope) - {Scope.ADMIN}), OWN]).text
        with_key, with_own = (
            replace(asking, url=asking.url.replace("://", f"://{text}@")) for text in (every, own)
        )
        yield without, with_key, with_own
