"""`make bench`: measure Clustr against the floor, in turns, and print how they compare."""

import argparse
import tempfile
from pathlib import Path

from bench import (
    analyses,
    backlog,
    calls,
    engine,
    importing,
    indexes,
    keys,
    listing,
    memory,
    report,
    rows,
    search,
    similar,
    thumbnails,
)
from bench.service import contenders

ROWS = {
    "single": rows.single_uploads,
    "many": rows.many_in_one,
    "downloads": rows.downloads,
    "import": importing.imports,
    "burst": rows.burst,
    "processed": analyses.processed,
    "pictures": analyses.pictures,
    "steady": backlog.steady,
    "backlog": backlog.backlog,
    "calls": calls.calls,
    "large": rows.one_large,
    "back-fill": engine.back_fill,
    "overtaking": engine.overtaking,
    "plugins": engine.listing,
    "listing": listing.listing,
    "search": search.search,
    "similar": similar.similar,
    "keys": keys.keys,
    "indexes": indexes.indexes,
    "thumbnails": thumbnails.thumbnails,
    "memory": memory.large_pictures,
}


def main() -> None:
    """Measure the rows that are asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    arguments = parser.parse_args()
    chosen = arguments.rows or list(ROWS)
    figures: list[rows.Figure] = []
    with (
        tempfile.TemporaryDirectory(prefix="clustr-bench-") as folder,
        contenders(Path(folder)) as both,
    ):
        for name in chosen:
            for figure in ROWS[name](both, arguments.rounds):
                print(report.table([figure], header=not figures), flush=True)
                figures.append(figure)
    if chosen == list(ROWS):
        report.write(figures, arguments.rounds)


if __name__ == "__main__":
    main()
