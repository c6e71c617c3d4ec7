"""Which releases of MongoDB and Redis their makers support, and until when."""

import re
from collections.abc import Mapping
from datetime import date

# The last day on which a release is given fixes for security, as published in November 2026 by
# https://www.mongodb.com/legal/support-policy/lifecycles and
# https://redis.io/docs/latest/operate/oss_and_stack/install/version-mgmt/ (Redis Open Source).
# Releases between these have ended; what is newer than all of them is taken to be supported.
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
    """What there is to say of a server that its makers support no longer; None when they do.

    Args:
        product: `MongoDB` or `Redis`.
        version: as the server says it, such as `6.0.5`.
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
