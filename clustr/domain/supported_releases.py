"""Which releases of MongoDB and Redis their makers support, and until when."""

import re
from collections.abc import Mapping
from datetime import date

# The last day on which a release gets security fixes, as published in November 2026 by
# https://www.mongodb.com/legal/support-policy/lifecycles and
# https://redis.io/docs/latest/operate/oss_and_stack/install/version-mgmt/ (Redis Open Source).
# Releases that are not listed have ended; newer ones than all of these are taken as supported.
SUPPORTED_UNTIL: Mapping[str, Mapping[tuple[int, int], date]] = {
    "MongoDB": {
        (4, 4): date(2024, 2, 29),
        (5, 0): date(2024, 10, 31),
        (6, 0): date(2025, 7, 31),
        (7, 0): date(2027, 8, 31),
        (8, 0): date(2029, 10, 31),
        (8, 2): date(2026, 7, 31),
    },
    "Redis": {
        (6, 2): date(2027, 4, 1),
        (7, 2): date(2029, 12, 1),
        (7, 4): date(2029, 12, 1),
        (8, 0): date(2026, 12, 1),
        (8, 2): date(2030, 9, 1),
    },
}


def why_unsupported(product: str, version: str, today: date) -> str | None:
    """A sentence about a server that its makers no longer support; None when they do.

    Args:
        product: `MongoDB` or `Redis`.
        version: the version that the server reports, such as `6.0.5`.
    """
    known = SUPPORTED_UNTIL[product]
    release = re.match(r"(\d+)\.(\d+)", version)
    number = (int(release[1]), int(release[2])) if release else max(known)
    until = known.get(number)
    if number > max(known) or (until and today <= until):
        return None
    since = f"since {until:%B} {until.day}, {until.year}" if until else "any more"
    good = [f"{major}.{minor}" for (major, minor), end in known.items() if today <= end]
    others = f"; supported are {', '.join(good)} and what is newer" if good else ""
    return f"{product} {version} is not supported by its makers {since}{others}."
