"""Who may call: by which names, and the pages of which origins; in a real browser, too."""

import io
import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import photographs
import pytest
from calling import Raw, get, total_uploads, uploaded
from playwright.sync_api import Page
from web_side import WebSide

PROBLEM = "application/problem+json"
UNKNOWN_ID = "0123456789abcdef01234567"
CONTENT = photographs.photograph("png", "coffee")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:5000", "localhost.", "127.0.0.1:8080", "[::1]:5000", "[0:0::1]"],
)
def test_names_of_loopback_are_ours(web, host):
    assert get(web, "/api/uploads", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("elsewhere.example", "elsewhere.example:5000", "localhost.elsewhere.example"),
        *("elsewhere.localhost", "127.0.0.1.elsewhere.example", "192.0.2.7", "[2001:db8::7]:80"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/uploads", "/docs", "/nothing", "//api/uploads"])
def test_another_name_is_refused_in_words(web, host, path):
    answer = get(web, path, headers={"Host": host})
    assert answer.status_code == 421
    assert answer.headers["Content-Type"] == PROBLEM
    assert answer.json()["type"] == "urn:clustr:problem:host_not_allowed"
    assert "ALLOWED_HOSTS" in answer.json()["detail"]
    assert "elsewhere" not in f"{answer.headers}{answer.text}"


@pytest.mark.parametrize(
    "lines",
    [
        "Host: a b",
        "Host: user@elsewhere",
        'Host: elsewhere/x"><script>',
        "Host: elsewhere:port",
        "Host: elsewhere:0",
        "Host: elsewhere:65536",
        "Host: elsewhere,localhost",
        "Host: [elsewhere]",
        "Host: elsewhere?",
        "Host: elsewh\xe9re",
        "Host:",
        "Host: localhost\r\nHost: elsewhere",
        "X-Host: localhost",
    ],
)
@pytest.mark.parametrize("path", ["/api/uploads?limit=1", "//api/uploads", "/docs"])
def test_what_is_no_name_is_refused_and_not_repeated(web, path, lines):
    sent = f"GET {path} HTTP/1.1\r\n{lines}\r\nX-Forwarded-Host: elsewhere\r\n\r\n"
    with Raw(web, sent.encode("latin-1")) as answer:
        assert answer.status == 400
        assert answer.headers["Content-Type"] == PROBLEM
        assert "elsewh" not in f"{answer.headers}{answer.body.decode()}"
        assert "script" not in answer.body.decode()


def test_HTTP_1_0_needs_no_name(web):
    with Raw(web, b"GET /api/uploads HTTP/1.0\r\n\r\n") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("settings", "ours", "others"),
    [
        ({"ALLOWED_HOSTS": "A.example, b.example"}, ["a.example:81", "b.EXAMPLE"], ["c.example"]),
        ({"ALLOWED_HOSTS": "2001:db8::7"}, ["[2001:db8:0::7]:80", "localhost"], ["[2001:db8::8]"]),
        ({"ALLOWED_HOSTS": "*"}, ["a.example", "192.0.2.7"], []),
        ({"BASE_URL": "https://a.example:8443/x"}, ["a.example", "a.example:8443"], ["x"]),
        (
            {"HOST": "nas.example"},
            ["nas.example:5000", "127.0.0.1:5000"],
            ["nas", "192.0.2.7"],
        ),
        (
            {"HOST": "0.0.0.0"},
            ["192.0.2.7:5000", "[2001:db8::7]", "localhost"],
            ["nas.example"],
        ),
        (
            {"HOST": "::"},
            ["192.0.2.7:5000", "[2001:db8::7]", "localhost"],
            ["192.0.2.7.example"],
        ),
        (
            {"HOST": "2001:db8::7"},
            ["[2001:db8::7]:5000"],
            ["[2001:db8::8]:5000", "192.0.2.7"],
        ),
    ],
)
def test_names_are_told_by_the_settings(app_with, settings, ours, others):
    client = app_with(AUTH="off", **settings).test_client()
    assert [client.get("/", headers={"Host": host}).status_code for host in ours] == [200] * len(
        ours
    )
    for host in others:
        answer = client.get("/", headers={"Host": host})
        assert answer.status_code == 421
        assert "ALLOWED_HOSTS" in answer.json["detail"]


def test_behind_a_proxy_the_name_is_the_one_that_the_proxy_was_called_by(app_with):
    client = app_with(AUTH="off", PROXY_HOPS="1", ALLOWED_HOSTS="a.example").test_client()

    def status(forwarded: str) -> int:
        return client.get("/api/uploads", headers={"X-Forwarded-Host": forwarded}).status_code

    assert status("a.example") == 200
    assert status("c.example") == 421
    assert status("c.example, a.example") == 200  # What a client claims stands before.
    assert status("a.example, c.example") == 421
    assert status("user@a.example") == 400


CHANGES = [
    ("POST", "/api/upload"),
    ("POST", "/api/uploads/bulk"),
    ("PATCH", f"/api/uploads/{UNKNOWN_ID}"),
    ("DELETE", f"/api/uploads/{UNKNOWN_ID}"),
    ("POST", f"/api/uploads/{UNKNOWN_ID}/restore"),
    ("POST", f"/api/uploads/{UNKNOWN_ID}/analyses/dimensions"),
    ("POST", "/api/analyses"),
    ("POST", f"/api/jobs/{UNKNOWN_ID}/cancel"),
    ("POST", "/api/x/shelf/books"),
    ("DELETE", "/api/x/shelf/books"),
]

PLUGIN = """
from flask_smorest import Blueprint
from clustr.plugins import hookimpl

blueprint = Blueprint("shelf", __name__)

@blueprint.route("/books", methods=["POST", "DELETE"])
def put_book():
    return {"put": True}

@hookimpl
def clustr_register_blueprints(config, library):
    return [blueprint]
"""


@pytest.fixture
def shelf(app_with, tmp_path):
    """Builds a client of an application with a plugin that has routes; keywords are settings."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "shelf.py").write_text(PLUGIN)
    return lambda **settings: app_with(**settings).test_client()


# Headers of requests that pages from elsewhere make.
FOREIGN = [
    {"Origin": "https://elsewhere.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.elsewhere.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("settings", [{}, {"CORS_ORIGINS": "https://app.example"}])
def test_no_page_from_elsewhere_changes_anything(shelf, settings):
    client = shelf(**settings)
    for headers, (method, path) in itertools.product(FOREIGN, CHANGES):
        answer = client.open(path, method=method, headers=headers)
        assert answer.status_code == 403, (method, path, headers)
        assert answer.content_type == PROBLEM
        assert answer.json["type"] == "urn:clustr:problem:origin_not_allowed"
        assert "CORS_ORIGINS" in answer.json["detail"]
        assert "Access-Control-Allow-Origin" not in answer.headers
    for headers, path in itertools.product(FOREIGN, ("/api/uploads", "/docs", "/api/health/live")):
        assert client.get(path, headers=headers).status_code == 200
        assert client.options("/api/uploads", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("settings", "requests"),
    [
        (
            {},
            [
                {},
                {"Sec-Fetch-Site": "none"},
                {"Origin": "http://localhost:5173", "Sec-Fetch-Site": "cross-site"},
                {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"},
                {"Origin": "http://[::1]:3000"},
            ],
        ),
        (
            {"CORS_ORIGINS": ""},
            [
                {"Origin": "http://localhost"},  # the service's own
                {"Host": "localhost:8080", "Origin": "http://localhost:8080"},
                {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
            ],
        ),
        (
            {"CORS_ORIGINS": "https://app.example"},
            [{"Origin": "https://APP.example", "Sec-Fetch-Site": "cross-site"}],
        ),
        ({"BASE_URL": "https://a.example:443/x"}, [{"Origin": "https://a.example"}]),
        (
            {"CORS_ORIGINS": "*"},
            [{"Origin": "https://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}],
        ),
        (
            {"PROXY_HOPS": "1", "ALLOWED_HOSTS": "a.example", "CORS_ORIGINS": ""},
            [
                {
                    "X-Forwarded-Host": "a.example",
                    "X-Forwarded-Proto": "https",
                    "Origin": "https://a.example",
                }
            ],
        ),
    ],
)
def test_everybody_else_goes_on(shelf, settings, requests):
    client = shelf(AUTH="off", **settings)
    for headers, (method, path) in itertools.product(requests, CHANGES):
        answer = client.open(path, method=method, headers=headers)
        assert answer.status_code not in (400, 403, 421), (method, path, headers, answer.text)
    for headers in requests:
        assert client.post("/api/x/shelf/books", headers=headers).json == {"put": True}


@pytest.mark.parametrize(
    ("settings", "origins"),
    [
        ({"CORS_ORIGINS": ""}, ["http://localhost:5173", "https://localhost"]),
        ({"HOST": "0.0.0.0"}, ["http://localhost:5173"]),
        (
            {"CORS_ORIGINS": "https://app.example"},
            ["http://app.example", "https://app.example:8443"],
        ),
        ({"BASE_URL": "https://a.example"}, ["http://a.example"]),
    ],
)
def test_an_origin_is_scheme_host_and_port(shelf, settings, origins):
    client = shelf(AUTH="off", **settings)
    for origin in origins:
        assert client.post("/api/x/shelf/books", headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({}, "cross-origin"),
        ({"CORS_ORIGINS": "*"}, "cross-origin"),
        ({"CORS_ORIGINS": "http://localhost:5173"}, "cross-origin"),
        ({"CORS_ORIGINS": "https://app.example"}, "same-site"),
        ({"CORS_ORIGINS": ""}, "same-site"),
        ({"HOST": "0.0.0.0"}, "same-site"),
    ],
)
def test_files_are_shown_by_pages_that_may_call(app_with, settings, policy):
    client = app_with(AUTH="off", **settings).test_client()
    files = {"files": (io.BytesIO(CONTENT), "coffee.png")}
    [one] = client.post("/api/upload", data=files).json["data"]
    for path in (f"/uploads/{one['stored_filename']}", f"/api/uploads/{one['id']}/thumbnail"):
        answer = client.get(path)
        assert answer.headers["Cross-Origin-Resource-Policy"] == policy
        answer.close()


class Pages(ThreadingHTTPServer):
    """Serves an empty page under whatever name it is called by."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), EmptyPage)


class EmptyPage(BaseHTTPRequestHandler):
    """Answers with an empty page."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    with Pages() as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


@pytest.fixture
def page(browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


# What a page does with the API, and the result: the answer's status, or that it got none.
CALLS = """async ([url, id, size, bytes]) => {
    const image = new Blob([new Uint8Array(bytes)], {type: "image/png"})
    const form = () => { const f = new FormData(); f.append("files", image, "x.png"); return f }
    const json = {"Content-Type": "application/json"}
    const call = async (path, options) => {
        try {
            const answer = await fetch(url + path, options)
            await answer.text()
            return answer.type == "opaque" ? "opaque" : answer.status
        } catch (error) { return error.name }
    }
    const shown = await new Promise(resolve => {
        const picture = new Image()
        picture.onload = () => resolve(picture.naturalWidth)
        picture.onerror = () => resolve(0)
        picture.src = `${url}/uploads/${id}.png`
    })
    return {
        shown,
        list: await call("/api/uploads"),
        read: await call(`/uploads/${id}.png`),
        upload: await call("/api/upload", {method: "POST", body: form()}),
        form: await call("/api/upload", {method: "POST", body: form(), mode: "no-cors"}),
        rerun: await call(`/api/uploads/${id}/analyses/dimensions`,
            {method: "POST", mode: "no-cors"}),
        patch: await call(`/api/uploads/${id}`,
            {method: "PATCH", headers: json, body: '{"caption": "theirs"}'}),
        remove: await call(`/api/uploads/${id}`, {method: "DELETE"}),
    }
}"""


def use(page: Page, service: WebSide, name: str, pages: Pages) -> tuple[dict, dict | None, int]:
    """Have a page of this name use the API: what came, its upload, and how many were added."""
    [one] = uploaded(service, CONTENT)
    before = total_uploads(service)
    page.goto(f"http://{name}:{pages.server_port}/")
    came = page.evaluate(CALLS, [service.url, one["id"], len(CONTENT), list(CONTENT)])
    answer = get(service, f"/api/uploads/{one['id']}")
    added = total_uploads(service) - before
    return came, answer.json() if answer.ok else None, added


def test_a_page_from_elsewhere_reads_and_changes_nothing(page, web, pages):
    came, one, added = use(page, web, "elsewhere.test", pages)
    names = ("list", "read", "upload", "patch", "remove")
    assert {name: came[name] for name in names} == dict.fromkeys(names, "TypeError")
    assert (came["form"], came["rerun"]) == ("opaque", "opaque")  # sent, and refused
    assert one is not None and one["caption"] != "theirs"
    assert added == 0


def test_a_plain_form_from_elsewhere_plants_nothing(page, web, pages):
    before = total_uploads(web)
    page.goto(f"http://elsewhere.test:{pages.server_port}/")
    page.set_content(
        f'<form method="post" enctype="multipart/form-data" action="{web.url}/api/upload">'
        '<input type="file" name="files"></form>'
    )
    file = {"name": "planted.png", "mimeType": "image/png", "buffer": CONTENT}
    page.set_input_files("input", file)
    with page.expect_response(f"{web.url}/api/upload") as answer:
        page.evaluate("document.forms[0].submit()")
    assert answer.value.status == 403
    assert total_uploads(web) == before


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_page_of_this_machine_goes_on_as_before(page, web, pages, name):
    """To the browser `localhost` and `127.0.0.1` are different sites."""
    came, one, added = use(page, web, name, pages)
    assert came.pop("shown") == 160
    assert came.pop("rerun") == came.pop("form") == "opaque"
    assert came == {"list": 200, "read": 200, "upload": 201, "patch": 200, "remove": 204}
    assert one is None
    assert added == 1  # two more, and one less


def test_where_every_page_may_call_one_from_elsewhere_does(page, web_with, pages):
    """Or the tests above would prove nothing."""
    web = web_with(processes=1, CORS_ORIGINS="*")
    came, one, added = use(page, web, "elsewhere.test", pages)
    assert came["list"] == came["read"] == 200
    assert (came["upload"], came["patch"], came["remove"]) == (201, 200, 204)
    assert (one, added) == (None, 1)
    assert came["shown"] > 0


def test_a_page_whose_name_was_made_to_lead_here_gets_nothing(page, web):
    """DNS rebinding: to the browser the web side is of the page's own origin."""
    address = urlsplit(web.url)
    answer = page.goto(f"http://elsewhere.test:{address.port}/api/uploads")
    assert answer.status == 421
    assert json.loads(answer.text())["type"] == "urn:clustr:problem:host_not_allowed"
