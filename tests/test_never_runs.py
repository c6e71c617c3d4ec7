"""What is uploaded never runs: pages and scripts hidden in images, opened in a real browser."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import odd_images
import photographs
import pytest
import requests
from calling import Raw, part, upload
from playwright.sync_api import Browser, Dialog, Error, Page
from running import wait_until
from web_side import WebSide

from clustr.api.http.problem_schema import ProblemSchema

SECONDS = 30
CLOSED = "default-src 'none'; sandbox"


class Beacon(ThreadingHTTPServer):
    """Listens for scripts: each that runs fetches something from here.

    Attributes:
        heard: the paths that were asked for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.heard: list[str] = []
        super().__init__(("127.0.0.1", 0), Listener)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Listener(BaseHTTPRequestHandler):
    """Answers with an empty page that everybody may read."""

    server: Beacon

    def do_GET(self) -> None:
        """Note the path, and answer."""
        self.server.heard.append(self.path)
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def gif_service(web_with) -> WebSide:
    """A web side that takes all formats, and has all routes."""
    allowed = {"ALLOWED_EXTENSIONS": "png,jpg,webp,bmp,tif,gif,avif", "DEBUG_ENDPOINTS": "true"}
    return web_with(processes=1, PLUGINS_DISABLED="", **allowed)


@pytest.fixture(scope="module")
def beacon() -> Iterator[Beacon]:
    with Beacon() as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening
        listening.shutdown()


@pytest.fixture(scope="module")
def shared_page(browser: Browser) -> Iterator[Page]:
    """One for all tests, because a page of its own takes another process of the browser."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def dialogs(shared_page: Page) -> list[str]:
    """The dialogs that scripts have opened, which are dismissed."""
    opened: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        opened.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    shared_page.on("dialog", dismiss)
    return opened


@pytest.fixture
def page(shared_page: Page) -> Page:
    shared_page.goto("about:blank")
    return shared_page


@pytest.fixture
def seen(page: Page, beacon: Beacon, dialogs: list[str]) -> list[str]:
    """What shows on the page that a script ran; what it fetches, the beacon hears."""
    beacon.heard.clear()
    dialogs.clear()
    return dialogs


def script(beacon: Beacon) -> bytes:
    return f"fetch('{beacon.url}/ran');new Image().src='{beacon.url}/ran';alert(1);".encode()


def hostile(beacon: Beacon) -> dict[str, bytes]:
    """Images that are accepted, each with a page or a script inside, by name."""
    code = script(beacon)
    html = b"<!DOCTYPE html><html><body onload=\"eval('1')\"><script>" + code + b"</script></html>"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>' + code + b"</script></svg>"
    gif = odd_images.gif_and_script().replace(odd_images.SCRIPT, b"*/=1;" + b" " * 26)
    comment = odd_images.gif_comment(b"*/=1;" + code + b"/*")
    return {
        "page.html": odd_images.png_with(odd_images.chunk(b"tEXt", b"Title\0" + html)) + html,
        "picture.svg": odd_images.jpeg_with(odd_images.segment(0xFE, svg)) + svg,
        "note.xhtml": photographs.photograph("webp") + html,
        "start.htm": photographs.photograph("bmp") + html,
        "code.js": gif[: gif.index(b"!")] + comment + odd_images.GIF_FRAME + b";*/",
    }


def test_G1_a_script_that_runs_would_be_noticed(page, beacon, seen):
    """Or the tests below would prove nothing."""
    page.goto(beacon.url)
    with page.expect_event("dialog"):
        page.set_content(f"<script>{script(beacon).decode()}</script>")
    page.wait_for_load_state("networkidle")
    assert seen == ["dialog: 1"]
    wait_until(lambda: beacon.heard.count("/ran") == 2, 60, "both requests of the script")


@pytest.fixture(scope="module")
def originals(gif_service, beacon) -> dict[str, str]:
    """Where the hostile images are served, by their names; they were sent as what they hide."""
    types = {"html": "text/html", "svg": "image/svg+xml", "js": "text/javascript"}
    files = [
        part(content, name, types.get(name.rpartition(".")[2], "application/xhtml+xml"))
        for name, content in hostile(beacon).items()
    ]
    answer = upload(gif_service, *files)
    assert answer.status_code == 201, answer.text
    assert answer.json()["errors"] == []
    return {one["original_filename"]: one["preview_url"] for one in answer.json()["data"]}


NAMES = ("page.html", "picture.svg", "note.xhtml", "start.htm", "code.js")


@pytest.mark.parametrize("name", NAMES)
def test_G1_a_hostile_original_is_shown_and_runs_nothing(page, beacon, seen, originals, name):
    page.goto(originals[name])
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.contentType").startswith("image/")
    assert page.locator("img").count() == 1
    assert page.locator("script").count() == 0
    assert seen == []
    assert beacon.heard == []


@pytest.mark.parametrize("name", NAMES)
def test_G1_another_page_cannot_make_an_original_run(page, beacon, seen, originals, name):
    """Not even one that takes it for a page or a script."""
    url = originals[name]
    page.goto(beacon.url)
    asked_as = set()
    page.on("request", lambda request: request.url == url and asked_as.add(request.resource_type))
    page.set_content(
        f'''<iframe src="{url}"></iframe>
        <object data="{url}" type="text/html"></object>
        <embed src="{url}" type="image/svg+xml">
        <script src="{url}"></script>
        <script type="module" src="{url}"></script>'''
    )
    page.wait_for_load_state("networkidle")
    assert asked_as >= {"document", "script"}
    assert seen == []
    assert "/ran" not in beacon.heard


def test_G1_answers_and_errors_that_repeat_what_was_sent_run_nothing(
    page, beacon, seen, gif_service, originals
):
    """Names of files, paths and parameters are repeated in JSON, which is no page."""
    url = gif_service.url
    tag = "<img src=x onerror=alert(1)>"
    content = photographs.unique("png", 91_001)
    [one] = upload(gif_service, part(content, tag, "text/html")).json()["data"]
    assert one["original_filename"] == tag  # it is data, and kept
    for path in (
        f"/api/uploads/{one['id']}",
        "/api/uploads",
        f"/{tag}",
        f"/uploads/{tag}",
        f"/uploads/{one['id']}.html",
        f"/api/uploads/{tag}",
        f"/api/plugins/{tag}",
        f"/api/health/{tag}",
        f"/api/uploads?{tag}={tag}",
        f"/api/debug/dimensions?id={tag}",
        f"/docs/assets/{tag}",
        f"/docs?{tag}#{tag}",
    ):
        try:
            page.goto(url + path)
            assert page.locator("img[onerror]").count() == 0, path
        except Error as error:  # A type that no browser shows is saved to a file.
            assert "Download is starting" in str(error), path
        assert seen == [], path
    page.wait_for_load_state("networkidle")
    assert seen == []


def test_G1_no_answer_is_without_its_headers(gif_service, originals):
    """Every route of the document, with every method, whether it has it or not."""
    url = gif_service.url
    paths = requests.get(f"{url}/openapi.json", timeout=SECONDS).json()["paths"]
    assert len(paths) > 10
    filled = {path.replace("{", "<b>").replace("}", "</b>") for path in paths}
    known = {"/docs", "/redoc", "/openapi.json", "/docs/assets/redoc-page.js"}
    known |= {each.removeprefix(url) for each in originals.values()}
    statuses = set()
    for path in filled | known | {"/nothing"}:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
            answer = requests.request(method, url + path, timeout=SECONDS)
            statuses.add(answer.status_code)
            where = (method, path, answer.status_code)
            assert answer.headers["X-Content-Type-Options"] == "nosniff", where
            assert answer.headers["X-Request-ID"], where
            policy = answer.headers["Content-Security-Policy"]
            is_page = path in ("/docs", "/redoc", "/api/health/page") and answer.status_code == 200
            is_page = is_page and method in ("GET", "HEAD")
            assert (policy != CLOSED) == is_page, where
            if answer.content and not is_page:
                assert not answer.headers["Content-Type"].startswith("text/html"), where
    assert statuses >= {200, 404, 405, 422}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /?<script>" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n<script> : x\r\n\r\n", 400),
        (b"<script> / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/<script>\r\nHost: localhost\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: script\r\n\r\n", 501),
    ],
    ids=["long line", "long header", "header", "method", "version", "coding"],
)
def test_G1_G10_what_is_no_request_is_refused_like_all_else(gif_service, sent, status):
    """Before the application sees it, whose headers it has all the same."""
    with Raw(gif_service, sent) as answer:
        assert answer.status == status
        assert answer.headers["Content-Type"] == "application/problem+json"
        ordinary = requests.get(f"{gif_service.url}/nothing", timeout=SECONDS).headers
        for name in ("X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy"):
            assert answer.headers[name] == ordinary[name]
        document = json.loads(answer.body)
        ProblemSchema().load(document)
        assert document["status"] == status
        assert document["request_id"] == answer.headers["X-Request-ID"]
        assert b"script" not in answer.body
