"""Who may call: the names of the service (`Host`), and the pages of other origins (`Origin`).

There is no log-in, so what keeps a page from elsewhere out is what its browser says of it. Such a
page cannot read an answer that does not allow its origin (CORS), but a browser sends its forms, and
some of its other requests, without asking first: what changes something is refused here. A page
whose own name leads to this machine (DNS rebinding) is of our origin as its browser sees it; the
name in `Host` is then not one of ours.
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

EXPOSED = ", ".join(
    [
        "X-Request-ID",
        "ETag",
        "Location",
        "Link",
        "Retry-After",
        "Content-Disposition",
        "Content-Range",
        "Accept-Ranges",
    ]
)
METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
PREFLIGHT_SECONDS = "600"


class AllowedHosts:
    """The names by which the service may be called.

    Names of loopback, `HOST` and the host of `BASE_URL` always are among them. While the service
    listens on every address, so is each address of the machine: nobody knows which these are, and
    no address can be made to lead elsewhere as a name can.
    """

    def __init__(self, settings: Settings):
        names = {*LOOPBACK_NAMES, *settings.allowed_hosts}
        self._every_address = is_every_address(settings.host)
        if not self._every_address:
            names.add(settings.host)
        if settings.base_url:
            names.add(_without_port(urlsplit(settings.base_url).netloc.rpartition("@")[2]))
        self._everything = "*" in names
        self._names = {_name(name) for name in names}
        self._is_allowed = lru_cache(maxsize=100)(self._look_up)

    def check(self) -> None:
        """Check the name by which the service is called now.

        Raises:
            MalformedHost: it is no name; HTTP/1.1 demands one (RFC 9112, section 3.2).
            HostNotAllowed: it is a name, but none of ours.
        """
        environ = request.environ
        host = environ.get("HTTP_HOST")
        if host is None and environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
            return
        if host is None or not self._is_allowed(host):
            malformed = host is None or not host_is_trusted(host)
            log.warning("host_refused", host=(host or "")[:LONGEST_LOGGED], malformed=malformed)
            raise MalformedHost if malformed else HostNotAllowed

    def _look_up(self, host: str) -> bool:
        if not host_is_trusted(host):
            return False
        name = _name(_without_port(host))
        if self._every_address and _is_address(name):
            return True
        return self._everything or name in self._names


def _without_port(host: str) -> str:
    return re.sub(r":[0-9]*\Z", "", host)


def _name(host: str) -> str:
    """A host without a port, in the one form in which hosts are compared."""
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


class AllowedOrigins:
    """The origins whose pages may call the API: those of `CORS_ORIGINS`, and the service's own.

    Args:
        origins: of `CORS_ORIGINS`.
        base_url: where clients reach the service; its pages are of that origin.
    """

    def __init__(self, origins: Iterable[str], base_url: str):
        self._everybody = "*" in origins
        self._on_loopback = LOOPBACK in origins
        self._named = {origin.lower() for origin in origins} - {"*", LOOPBACK}
        self._base_origin = _origin_of(base_url) if base_url else None
        self._is_allowed = lru_cache(maxsize=100)(self._look_up)

    def check(self) -> None:
        """Check that a request which changes something is not made by a page from elsewhere.

        Other clients than browsers send neither header, and no page can choose their values.

        Raises:
            OriginNotAllowed: it is.
        """
        environ = request.environ
        if self._everybody or environ["REQUEST_METHOD"] in SAFE_METHODS:
            return
        origin = environ.get("HTTP_ORIGIN")
        site = environ.get("HTTP_SEC_FETCH_SITE")
        if origin is None:
            allowed = site != "cross-site"
        else:
            allowed = site == "same-origin" or self._is_allowed(origin) or self._is_own(origin)
        if not allowed:
            log.warning("origin_refused", origin=(origin or "")[:LONGEST_LOGGED], site=site)
            raise OriginNotAllowed

    def _is_own(self, origin: str) -> bool:
        own = f"{request.scheme}://{request.host}"
        return origin.lower() in (own.lower(), self._base_origin)

    def add_headers(self, response: Response) -> Response:
        """Say whose pages may read the answer, and what they may call."""
        headers, environ = response.headers, request.environ
        if self._everybody:
            headers["Access-Control-Allow-Origin"] = "*"
        else:
            # Whether or not this origin is allowed: caches must give another one another answer.
            vary = headers.get("Vary")
            headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
            origin = environ.get("HTTP_ORIGIN")
            if origin is None or not self._is_allowed(origin):
                return response
            headers["Access-Control-Allow-Origin"] = origin
            if origin.lower() in self._named:
                headers["Access-Control-Allow-Credentials"] = "true"
        headers["Access-Control-Expose-Headers"] = EXPOSED
        if environ["REQUEST_METHOD"] == "OPTIONS":
            headers["Access-Control-Allow-Methods"] = METHODS
            headers["Access-Control-Max-Age"] = PREFLIGHT_SECONDS
            wanted = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS")
            if wanted:
                headers["Access-Control-Allow-Headers"] = wanted
        return response

    def _look_up(self, origin: str) -> bool:
        if self._on_loopback and ORIGIN_ON_LOOPBACK.fullmatch(origin):
            return True
        return origin.lower() in self._named


@lru_cache
def resource_policy(origins: tuple[str, ...]) -> str:
    """Which pages may show files (`Cross-Origin-Resource-Policy`), by what `CORS_ORIGINS` says.

    `localhost` and `127.0.0.1` are different sites to a browser, so that a page on one of them
    shows pictures of a service on the other only if every page may.
    """
    wide = {"*", LOOPBACK}.intersection(origins) or any(map(ORIGIN_ON_LOOPBACK.fullmatch, origins))
    return "cross-origin" if wide else "same-site"


def _origin_of(url: str) -> str:
    """The origin of an address, as browsers write it: without the port that its scheme has."""
    parts = urlsplit(url.lower())
    return f"{parts.scheme}://{get_host(parts.scheme, parts.netloc.rpartition('@')[2])}"
