"""The health of the service for keys that see only their own uploads.

How many uploads there are, how long they wait and how much room they leave tells of others'.
"""

from dataclasses import replace

from clustr.services.health import BUSY, HEALTHY, UNHEALTHY, HealthChecks, ServiceHealth

# What is told of each service, besides its status; `detail` of one that is unhealthy, too.
TOLD = frozenset({"version", "durable", "uptime_seconds", "not_loaded"})
# Services whose other states come from the number and size of uploads.
FILLED_BY_UPLOADS = ("queue", "storage")


class OwnHealthChecks:
    """The checks of all services, without what they say of uploads."""

    def __init__(self, checks: HealthChecks):
        self._checks = checks

    def check_services(self) -> dict[str, ServiceHealth]:
        """As of `HealthChecks.check_services`."""
        return {name: _told(name, one) for name, one in self._checks.check_services().items()}

    def is_ready(self) -> bool:
        """As of `HealthChecks.is_ready`."""
        return self._checks.is_ready()


def _told(name: str, service: ServiceHealth) -> ServiceHealth:
    is_hidden = name in FILLED_BY_UPLOADS and service.status != UNHEALTHY
    status = HEALTHY if is_hidden or service.status == BUSY else service.status
    told = TOLD if status == HEALTHY else TOLD | {"detail"}
    details = {key: value for key, value in service.details.items() if key in told}
    return replace(service, status=status, details=details)
