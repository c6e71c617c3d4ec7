"""Limits of requests: how many may come from whom, and how many bytes they may bring.

The header fields are those of draft-ietf-httpapi-ratelimit-headers-11.
"""

import ipaddress
from collections import Counter
from collections.abc import Sequence
from math import ceil
from threading import Lock

from flask import Response, g, request

from clustr.api.http.access import current_access
from clustr.api.http.request_context import components
from clustr.domain.access import Access, Rate
from clustr.domain.errors import LargerThanQuota, QuotaExceeded, TooManyAtOnce
from clustr.domain.quotas import BYTES, REQUESTS, WRONG_KEYS, Quota, Standing, Use
from clustr.queue.quotas import QuotaStore
from clustr.supervisor import web_process

UPLOAD_PATH = "/api/upload"
# Whoever starts and ends processes by these would end one that is asked too often.
PROBES = ("/api/health/live", "/api/health/ready")
WRONG_KEYS_PER_MINUTE = 10
DAY_SECONDS = 86_400
UNITS = {BYTES: ';qu="content-bytes"'}  # that of the others is requests, the default


class RequestQuotas:
    """The limits of requests, by key and by address.

    Args:
        per_address: how many requests without a key may come from one address; None: any number.
    """

    def __init__(self, store: QuotaStore, per_address: Rate | None):
        self._store = store
        self._per_address = per_address
        self._under_way: Counter[str] = Counter()
        self._lock = Lock()

    def check(self) -> None:
        """Check the request before it is answered, once it is known who makes it.

        Raises:
            QuotaExceeded: too many came with its key or, without one, from its address; or its key
                may not bring so many bytes today.
            LargerThanQuota: its key may not bring so many bytes on any day.
            TooManyAtOnce: too many with its key are being answered by this process.
        """
        access = current_access()
        if access.key_id is not None:
            self._begin(access.key_id)
            _use(self._store, _uses_of_key(access))
        elif request.path not in PROBES and request.method != "OPTIONS":
            _use(self._store, self._uses_of_address())

    def check_without_key(self) -> None:
        """Check a request that is to be refused because it has no key.

        Raises:
            QuotaExceeded: too many came from its address, or too many wrong keys did.
        """
        _use(self._store, [*self._uses_of_address(), *_wrong_keys(is_counted=False)])

    def check_wrong_key(self) -> None:
        """Check a request that is to be refused because its key is wrong, which is counted.

        Raises:
            QuotaExceeded: too many came from its address, or too many wrong keys did.
        """
        _use(self._store, [*self._uses_of_address(), *_wrong_keys(is_counted=True)])

    def end(self, _error: BaseException | None) -> None:
        """Note that a request is no longer under way, whatever became of it."""
        if holder := g.pop("under_way", None):
            with self._lock:
                self._under_way[holder] -= 1
                if not self._under_way[holder]:
                    del self._under_way[holder]

    def add_headers(self, response: Response) -> Response:
        """Say in a response what is left."""
        standings: list[Standing] = g.get("standings", [])
        if standings:
            response.headers["RateLimit-Policy"] = ", ".join(map(_policy, standings))
            response.headers["RateLimit"] = ", ".join(map(_left, standings))
        return response

    def _begin(self, holder: str) -> None:
        """Note that a request is under way; `end` is called for every one."""
        with self._lock:
            if self._under_way[holder] >= web_process.places_of_a_key():
                raise TooManyAtOnce
            self._under_way[holder] += 1
        g.under_way = holder

    def _uses_of_address(self) -> list[Use]:
        address = client_address()
        if self._per_address is None or address is None:
            return []
        rate = self._per_address
        return [Use(Quota(REQUESTS, address, rate.requests, rate.seconds))]


def count_bytes(received_bytes: int) -> None:
    """Count the bytes that an upload request brought, of which its key may bring so many."""
    access = current_access()
    if access.key_id is not None and access.bytes_per_day is not None and received_bytes:
        quota = _bytes_of(access.key_id, access.bytes_per_day)
        components.quotas.count_later(quota, received_bytes)


def count_wrong_key() -> None:
    """Count a wrong key that was sent to log in with; the request itself is counted already.

    Raises:
        QuotaExceeded: too many wrong keys came from its address.
    """
    _use(components.quotas, _wrong_keys(is_counted=True))


def client_address() -> str | None:
    """The address from which the request comes, as far as `PROXY_HOPS` says which that is.

    A client of IPv6 has a network of 64 bits to itself. None: it comes over a socket of Unix.
    """
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False).network_address)
        address = address.ipv4_mapped
    return str(address)


def _use(store: QuotaStore, uses: Sequence[Use]) -> None:
    if not uses:
        return
    g.standings = store.use(uses)
    for use, standing in zip(uses, g.standings, strict=False):  # There may be none.
        if use.cost > use.quota.amount:
            raise LargerThanQuota(use.cost, use.quota.amount)
        if standing.is_exceeded:
            raise QuotaExceeded(standing, by_key=current_access().key_id is not None)


def _uses_of_key(access: Access) -> list[Use]:
    uses = []
    key_id, rate = access.key_id or "", access.rate
    if rate is not None:
        uses.append(Use(Quota(REQUESTS, key_id, rate.requests, rate.seconds)))
    if access.bytes_per_day is not None and request.path == UPLOAD_PATH:
        # A body of unknown length is received as long as any byte is left.
        cost = request.content_length or 1
        uses.append(Use(_bytes_of(key_id, access.bytes_per_day), cost, is_counted=False))
    return uses


def _bytes_of(key_id: str, bytes_per_day: int) -> Quota:
    return Quota(BYTES, key_id, bytes_per_day, DAY_SECONDS)


def _wrong_keys(is_counted: bool) -> list[Use]:
    address = client_address()
    if address is None:
        return []
    return [Use(Quota(WRONG_KEYS, address, WRONG_KEYS_PER_MINUTE, 60), is_counted=is_counted)]


def _policy(standing: Standing) -> str:
    quota = standing.quota
    return f'"{quota.name}";q={quota.amount};w={quota.seconds}{UNITS.get(quota.name, "")}'


def _left(standing: Standing) -> str:
    return f'"{standing.quota.name}";r={standing.remaining};t={ceil(standing.seconds)}'
