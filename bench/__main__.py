"""`make bench`: measure a `clustr up` of its own and print what came of it."""

import tempfile
from pathlib import Path

from bench import load
from bench.service import captioner, last_captioned_at, service

BURST = 500


def main() -> None:
    """Upload a burst, and see how long the last caption takes."""
    photo = load.photograph(200_000)
    with (
        tempfile.TemporaryDirectory(prefix="clustr-bench-") as folder,
        captioner() as captions,
        service(Path(folder), BLIP_SERVICE_URL=captions) as running,
    ):
        load.uploads(running.url, photo, 20, 8)
        burst = load.uploads(running.url, photo, BURST, 8)
        waited = last_captioned_at(running) - burst.ended_at
    milliseconds = [round(burst.percentile(share) * 1000) for share in (0.5, 0.99)]
    print(f"| {BURST} uploads of 200 KB, 8 clients | {burst.rate:.0f} a second |")
    print(f"| p50, p99 | {milliseconds[0]} ms, {milliseconds[1]} ms |")
    print(f"| last caption after the last answer, one worker | {waited:.1f} s |")


if __name__ == "__main__":
    main()
