"""Decides who may call: by the name of the service in `Host`, and the page's `Origin`.

Foreign pages are kept out by the headers that their browsers send, because with `AUTH=off` whoever
reaches the service may use it, and the browser of one who may can be made to. A page of another
origin cannot read a response that does not allow it (CORS), but a browser sends forms and some
other requests without a preflight: of those, requests that change something are refused here. With
DNS rebinding, a foreign page has our origin in the eyes of its browser; then `Host` has a name that
is not ours.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from flask import Response, request
from werkzeug.sansio.utils import get_host, host_is_trusted

from clustr import logs
from clustr.domain.errors import HostNotAllowed, MalformedHost, OriginNotAllowed
from clustr.settings import LOOPBACK, LOOPBACK_NAMES, Settings, is_every_address

log = logs.logger(__name__)

SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}  # RFC 9110, section 9.2.1
LONGEST_LOGGED = 200
ORIGIN_ON_LOOPBACK = re.compile(
    rf"https?://({'|'.join(map(re.escape, LOOPBACK_NAMES))})(:[0-9]{{1,5}})?", re.IGNORECASE
)

EXPOSED_HEADERS = ", ".join(
    [
        "X-Request-ID",
        "ETag",
        "Location",
        "Link",
        "Retry-After",
        "WWW-Authenticate",
        "RateLimit",
        "RateLimit-Policy",
        "Preference-Applied",
        "Content-Disposition",
        "Content-Range",
        "Accept-Ranges",
    ]
)
ALLOWED_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
PREFLIGHT_SECONDS = "600"


class AllowedHosts:
    """The names by which the service may be called.

    These are `ALLOWED_HOSTS`, the names of loopback, `HOST` and the host of `BASE_URL`. While the
    service listens on every address, all IP addresses are allowed too: the machine's own are not
    known, and DNS rebinding needs a name.
    """

    def __init__(self, settings: Settings):
        names = {*LOOPBACK_NAMES, *settings.allowed_hosts}
        self._every_address = is_every_address(settings.host)
        if not self._every_address:
            names.add(settings.host)
        if settings.base_url:
            names.add(_without_port(urlsplit(settings.base_url).netloc.rpartition("@")[2]))
        self._allow_all = "*" in names
        self._names = {_normalize_host(name) for name in names}
        self._is_allowed = lru_cache(maxsize=100)(self._compute_allowed)

    def check(self) -> None:
        """Check the name by which the service is called now.

        Raises:
            MalformedHost: there is no valid name; HTTP/1.1 requires one (RFC 9112, section 3.2).
            HostNotAllowed: the name is valid, but not one of ours.
        """
        environ = request.environ
        host = environ.get("HTTP_HOST")
        if host is None and environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
            return
        if host is None or not self._is_allowed(host):
            malformed = host is None or not host_is_trusted(host)
            log.warning("host_refused", host=(host or "")[:LONGEST_LOGGED], malformed=malformed)
            raise MalformedHost if malformed else HostNotAllowed

    def _compute_allowed(self, host: str) -> bool:
        if not host_is_trusted(host):
            return False
        name = _normalize_host(_without_port(host))
        if self._every_address and _is_address(name):
            return True
        return self._allow_all or name in self._names


def _without_port(host: str) -> str:
    return re.sub(r":[0-9]*\Z", "", host)


def _normalize_host(host: str) -> str:
    """Normalize a host without a port, so that equal hosts compare equal."""
    if not _is_address(host):
        return host.lower().removesuffix(".")
    address = ipaddress.ip_address(host.strip("[]"))
    return f"[{address}]" if address.version == 6 else str(address)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def is_own_page(base_url: str) -> bool:
    """Whether the current request is of a page of the service itself, or of no page.

    It is for cookies, which browsers send whatever page asks: another port, or another name of the
    same domain, is another origin, but the same site.
    """
    site = request.environ.get("HTTP_SEC_FETCH_SITE")
    origin = request.environ.get("HTTP_ORIGIN")
    if site == "same-origin":
        return True
    if origin is None:
        return site not in ("same-site", "cross-site")
    return _is_own(origin, base_url)


def _is_own(origin: str, base_url: str) -> bool:
    own = f"{request.scheme}://{request.host}".lower()
    return origin.lower() in (own, _origin_of(base_url) if base_url else own)


class AllowedOrigins:
    """The origins whose pages may call the API: those of `CORS_ORIGINS`, and the service's own.

    Args:
        origins: of `CORS_ORIGINS`.
        base_url: where clients reach the service; its pages are of that origin.
    """

    def __init__(self, origins: Iterable[str], base_url: str):
        self._allow_all = "*" in origins
        self._on_loopback = LOOPBACK in origins
        self._listed = {origin.lower() for origin in origins} - {"*", LOOPBACK}
        self._base_url = base_url
        self._is_allowed = lru_cache(maxsize=100)(self._compute_allowed)

    def check(self) -> None:
        """Check that no page of another origin makes a request which changes something.

        It reads `Origin` and `Sec-Fetch-Site`, whose values no page can choose. Clients that are
        no browsers send neither and are allowed.

        Raises:
            OriginNotAllowed: a page of another origin makes the request.
        """
        environ = request.environ
        if self._allow_all or environ["REQUEST_METHOD"] in SAFE_METHODS:
            return
        origin = environ.get("HTTP_ORIGIN")
        site = environ.get("HTTP_SEC_FETCH_SITE")
        if origin is None:
            allowed = site != "cross-site"
        else:
            allowed = (
                site == "same-origin" or self._is_allowed(origin) or _is_own(origin, self._base_url)
            )
        if not allowed:
            log.warning("origin_refused", origin=(origin or "")[:LONGEST_LOGGED], site=site)
            raise OriginNotAllowed

    def add_headers(self, response: Response) -> Response:
        """Add the CORS headers: which pages may read the response, and what they may call."""
        headers, environ = response.headers, request.environ
        if self._allow_all:
            headers["Access-Control-Allow-Origin"] = "*"
        else:
            # Set for every origin, because caches must not give one origin's response to another.
            vary = headers.get("Vary")
            headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
            origin = environ.get("HTTP_ORIGIN")
            if origin is None or not self._is_allowed(origin):
                return response
            headers["Access-Control-Allow-Origin"] = origin
            if origin.lower() in self._listed:
                headers["Access-Control-Allow-Credentials"] = "true"
        headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
        if environ["REQUEST_METHOD"] == "OPTIONS":
            headers["Access-Control-Allow-Methods"] = ALLOWED_METHODS
            headers["Access-Control-Max-Age"] = PREFLIGHT_SECONDS
            requested_headers = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS")
            if requested_headers:
                headers["Access-Control-Allow-Headers"] = requested_headers
        return response

    def _compute_allowed(self, origin: str) -> bool:
        if self._on_loopback and ORIGIN_ON_LOOPBACK.fullmatch(origin):
            return True
        return origin.lower() in self._listed


@lru_cache
def resource_policy(origins: tuple[str, ...]) -> str:
    """Return the `Cross-Origin-Resource-Policy` of files for the value of `CORS_ORIGINS`.

    `localhost` and `127.0.0.1` are different sites to a browser: a page on one of them can only
    show images of a service on the other if all pages can.
    """
    cross_origin = {"*", LOOPBACK}.intersection(origins) or any(
        map(ORIGIN_ON_LOOPBACK.fullmatch, origins)
    )
    return "cross-origin" if cross_origin else "same-site"


@lru_cache
def _origin_of(url: str) -> str:
    """Return the origin of a URL as browsers write it, without the default port of its scheme."""
    parts = urlsplit(url.lower())
    return f"{parts.scheme}://{get_host(parts.scheme, parts.netloc.rpartition('@')[2])}"
