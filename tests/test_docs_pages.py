"""The two pages that show the OpenAPI document, in a real browser."""

import hashlib
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from browsing import HOST, Traffic
from PIL import Image
from playwright.sync_api import expect

import clustr.api
import clustr.web

ASSETS = Path(clustr.api.__path__[0]) / "static"
GALLERY = Path(clustr.web.__path__[0]) / "static"


@pytest.fixture(scope="module")
def site(service):
    """The service's address for the browser."""
    address = urlsplit(service.url)
    return address._replace(netloc=f"{HOST}:{address.port}").geturl()


@pytest.fixture(scope="module")
def context(browser, site):
    """What the pages share; to load one takes seconds of the processor's time."""
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    yield context
    context.close()


@pytest.fixture(scope="module")
def traffic(context, site):
    return Traffic(context, urlsplit(site).netloc)


@pytest.fixture(scope="module")
def loaded_swagger_ui(context, traffic, site):
    page = context.new_page()
    page.goto(f"{site}/docs")
    return page


@pytest.fixture(scope="module")
def loaded_redoc(context, traffic, site):
    page = context.new_page()
    page.goto(f"{site}/redoc")
    return page


@pytest.fixture
def swagger_ui(traffic, loaded_swagger_ui):
    """A page that must make no request to another host and must report no error."""
    yield loaded_swagger_ui
    traffic.require_only_ours()


@pytest.fixture
def redoc(traffic, loaded_redoc):
    """A page that must make no request to another host and must report no error."""
    yield loaded_redoc
    traffic.require_only_ours()


@pytest.fixture
def operations(service):
    """Every (method, path) of the document."""
    paths = requests.get(f"{service.url}/openapi.json", timeout=60).json()["paths"]
    methods = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
    return {(method, path) for path, item in paths.items() for method in methods & item.keys()}


def open_operation(page, method, path):
    operation = page.locator(
        f".opblock-{method}", has=page.locator(f'.opblock-summary-path[data-path="{path}"]')
    )
    operation.locator(".opblock-summary-control").click()
    return operation


def test_swagger_ui_shows_every_operation(swagger_ui, operations):
    expect(swagger_ui.locator(".opblock")).to_have_count(len(operations))
    shown = swagger_ui.locator(".opblock").evaluate_all(
        """blocks => blocks.map(block => [
            block.querySelector(".opblock-summary-method").textContent.toLowerCase(),
            block.querySelector(".opblock-summary-path").dataset.path,
        ])"""
    )
    assert {tuple(each) for each in shown} == operations


def test_redoc_shows_every_operation(redoc, operations):
    expect(redoc.locator(".http-verb")).to_have_count(len(operations))
    shown = redoc.locator(".http-verb").evaluate_all(
        "verbs => verbs.map(verb => [verb.textContent, verb.nextElementSibling.textContent])"
    )
    assert {tuple(each) for each in shown} == operations
    # The logo beside this link is what would come from elsewhere. ReDoc draws it last.
    expect(redoc.get_by_role("link", name="API docs by Redocly")).to_be_visible()
    redoc.wait_for_load_state("networkidle")


def test_redoc_finds_an_operation(redoc):
    """The search runs in a worker, which the page's policy must allow."""
    redoc.get_by_role("textbox", name="Search").press_sequentially("upload")
    expect(redoc.locator("[data-role='search:results'] li").first).to_be_visible()


def test_two_files_are_uploaded_from_swagger_ui(swagger_ui, tmp_path):
    upload = open_operation(swagger_ui, "post", "/api/upload")
    inputs = upload.locator("input[type=file]")
    one_more = upload.get_by_role("button", name="Add string item")
    expect(one_more).to_be_visible()
    for number, colour in enumerate(("teal", "plum")):
        path = tmp_path / f"{colour}.png"
        Image.new("RGB", (64, 48), colour).save(path)
        # There is one input to begin with when the document calls the files required.
        if inputs.count() == number:
            one_more.click()
        inputs.nth(number).set_input_files(path)
    upload.get_by_role("button", name="Execute").click()

    answer = upload.locator(".live-responses-table")
    expect(answer.locator("tbody td.response-col_status")).to_have_text("201")
    for text in ("Successfully uploaded 2 files", "teal.png", "plum.png"):
        expect(answer).to_contain_text(text)


def test_an_image_is_shown_in_swagger_ui(swagger_ui, service, operations, tmp_path):
    """Swagger UI shows it from a blob: address, which the page's policy must allow."""
    path = tmp_path / "teal.png"
    Image.new("RGB", (64, 48), "teal").save(path)
    with path.open("rb") as file:
        answer = requests.post(f"{service.url}/api/upload", files={"files": file}, timeout=60)
    (address,) = (path for _, path in operations if path.endswith("/{stored_filename}"))

    operation = open_operation(swagger_ui, "get", address)
    operation.get_by_placeholder("stored_filename").fill(
        answer.json()["data"][0]["stored_filename"]
    )
    operation.get_by_role("button", name="Execute").click()
    image = operation.locator(".live-responses-table img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_page_has_a_policy_that_allows_nothing_from_elsewhere(service, path):
    policy = requests.get(service.url + path, timeout=60).headers["Content-Security-Policy"]
    directives = dict(each.split(maxsplit=1) for each in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    sources = {source for value in directives.values() for source in value.split()}
    assert sources <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}


def test_assets_are_kept_by_browsers_and_nothing_else_is_served(service):
    address = f"{service.url}/docs/assets"
    script = requests.get(f"{address}/redoc.standalone.js", timeout=60)
    assert script.status_code == 200
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert "max-age=31536000" in script.headers["Cache-Control"]
    for name in ("ASSETS.toml", "nothing.js", "..%2fdocs.py"):
        assert requests.get(f"{address}/{name}", timeout=60).status_code == 404


@pytest.mark.parametrize(
    ("folder", "is_ours"),
    [
        (ASSETS, {"swagger-ui-page.js", "redoc-page.js", "icon.svg"}.__contains__),
        (GALLERY, lambda name: name.endswith((".js", ".css")) and name != "lit-html.js"),
    ],
    ids=["documentation", "gallery"],
)
def test_what_others_wrote_is_what_is_stated(folder, is_ours):
    packages = tomllib.loads((folder / "ASSETS.toml").read_text()).values()
    stated = {file["name"]: file["sha256"] for package in packages for file in package["files"]}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "ASSETS.toml" and not is_ours(path.name)
    }
    assert found == stated
