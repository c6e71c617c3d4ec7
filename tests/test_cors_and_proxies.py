"""Which pages of other origins may read answers, and what is believed of a proxy."""

import photographs
import pytest
import requests
from calling import get, part, upload, uploaded

from clustr.domain.errors import StartUpError

CONTENT = photographs.photograph("png", "coffee")


@pytest.fixture(scope="module")
def original(service) -> dict:
    """An upload, as it was answered."""
    [one] = uploaded(service, CONTENT)
    return one


@pytest.fixture(scope="module")
def behind_proxy(web_with):
    """A web side behind one proxy, for the pages of two origins, with a path of its own."""
    return web_with(
        AUTH="off",
        PROXY_HOPS="1",
        CORS_ORIGINS="https://one.example, https://two.example:8443",
        ALLOWED_HOSTS="photos.example",
        UPLOAD_URL_PATH="/media/originals",
    )


def origins(answer: requests.Response) -> dict[str, str]:
    """The headers by which a browser decides whether a page may read the answer."""
    prefix = "Access-Control-"
    return {
        name.removeprefix(prefix): value
        for name, value in answer.headers.items()
        if name.startswith(prefix)
    }


EXPOSED = {
    *("X-Request-ID", "ETag", "Location", "Link", "Retry-After", "Preference-Applied"),
    *("Content-Disposition", "Content-Range", "Accept-Ranges"),
    *("RateLimit", "RateLimit-Policy", "WWW-Authenticate"),
}


@pytest.mark.parametrize("address", ["/api/uploads", "/uploads/{id}.png", "/api/uploads/x"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:5173",
        "http://LOCALHOST:3000",
        "http://127.0.0.1",
        "https://localhost:8443",
        "http://[::1]:5173",
    ],
)
def test_G9_pages_on_loopback_may_read_without_credentials(service, original, address, origin):
    allowed = origins(get(service, address.format(id=original["id"]), headers={"Origin": origin}))
    assert allowed["Allow-Origin"] == origin
    assert "Allow-Credentials" not in allowed
    assert set(allowed["Expose-Headers"].split(", ")) == EXPOSED


def test_G9_pages_on_loopback_may_upload(service):
    asked = {
        "Origin": "http://localhost:5173",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-request-id",
    }
    answer = requests.options(f"{service.url}/api/upload", headers=asked, timeout=60)
    assert answer.status_code == 200
    allowed = origins(answer)
    assert allowed["Allow-Origin"] == "http://localhost:5173"
    assert "POST" in allowed["Allow-Methods"]
    assert allowed["Allow-Headers"] == "x-request-id"
    assert "Allow-Credentials" not in allowed


@pytest.mark.parametrize(
    "origin",
    [
        "https://page.example",
        "null",
        "http://localhost.evil.example",
        "http://evil.example:80@localhost",
        "http://127.0.0.1.evil.example:5173",
        "http://127.0.0.2:5173",
        "file://localhost",
        "http://localhost:5173, http://evil.example",
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_G9_no_other_page_may_read_by_default(service, origin, method):
    asked = {"Origin": origin, "Access-Control-Request-Method": "DELETE"}
    answer = requests.request(method, f"{service.url}/api/uploads", headers=asked, timeout=60)
    assert answer.status_code == 200
    assert origins(answer) == {}
    assert "Origin" in answer.headers["Vary"].split(", ")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "images.example"])
def test_G9_no_page_may_read_by_default_what_is_served_elsewhere(app_with, host):
    client = app_with(HOST=host, AUTH="off").test_client()
    answer = client.get("/api/uploads", headers={"Origin": "http://localhost:5173"})
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_G9_every_origin_may_call_when_that_is_said(app_with):
    client = app_with(CORS_ORIGINS="*").test_client()
    for headers in ({}, {"Origin": "https://page.example"}, {"Origin": "null"}):
        answer = client.get("/api/uploads", headers=headers)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert set(answer.headers["Access-Control-Expose-Headers"].split(", ")) == EXPOSED
        assert "Origin" not in answer.headers.get("Vary", "")


@pytest.mark.parametrize("origin", ["https://one.example", "https://two.example:8443"])
def test_G9_a_named_origin_may_read_with_credentials(behind_proxy, origin):
    answer = get(behind_proxy, "/api/uploads", headers={"Origin": origin})
    assert origins(answer)["Allow-Origin"] == origin
    assert origins(answer)["Allow-Credentials"] == "true"
    assert "Origin" in answer.headers["Vary"].split(", ")


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "https://page.example",
        "http://one.example",
        "https://one.example:444",
        "https://one.example.evil.example",
        "https://oneXexample",
        "https://sub.one.example",
        "https://two.example",
        "https://one.example, https://two.example:8443",
    ],
)
def test_G9_another_origin_may_not(behind_proxy, origin):
    """`Vary` is there all the same: a cache must not give this answer to a named origin."""
    headers = {"Origin": origin} if origin else {}
    answer = get(behind_proxy, "/api/uploads", headers=headers)
    assert answer.status_code == 200
    assert origins(answer) == {}
    assert "Origin" in answer.headers["Vary"].split(", ")


@pytest.mark.parametrize("named", ["https://a.example", "http://[a:b]:80", "a.b+c://a", ""])
def test_G9_an_origin_is_no_pattern(app_with, named):
    """The brackets of an address and the dots and plus signs stand for themselves."""
    client = app_with(CORS_ORIGINS=named).test_client()
    for origin in (
        *("https://aXexample", "https://a.example.evil.example", "https://evil.https://a.example"),
        *("http://a:80", "http://b:80", "http://::80", "http://[a:b]:80.evil.example"),
        *("aXb+c://a", "a.bbc://a", "a.b+c://aa"),
    ):
        answer = client.get("/api/uploads", headers={"Origin": origin})
        assert answer.status_code == 200
        assert "Access-Control-Allow-Origin" not in answer.headers
    if named:
        answer = client.get("/api/uploads", headers={"Origin": named})
        assert answer.headers["Access-Control-Allow-Origin"] == named


@pytest.mark.parametrize("named", ["https://*.example", "https://[a-z]+.example"])
def test_G9_a_pattern_is_no_origin(app_with, named):
    with pytest.raises(StartUpError, match="CORS_ORIGINS"):
        app_with(CORS_ORIGINS=named)


def test_G9_a_star_among_origins_allows_no_credentials(app_with):
    client = app_with(CORS_ORIGINS="https://one.example,*").test_client()
    for origin in ("https://one.example", "https://page.example"):
        answer = client.get("/api/uploads", headers={"Origin": origin})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers


FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "photos.example",
    "X-Forwarded-Prefix": "/clustr",
    "X-Forwarded-For": "203.0.113.9",
}


def urls(service, headers: dict[str, str]) -> set[str]:
    """The addresses that are given for an original: on upload, alone and in a listing."""
    answer = upload(service, part(CONTENT), headers=headers).json()["data"][0]
    name = answer["stored_filename"]
    one = get(service, f"/api/uploads/{answer['id']}", headers=headers).json()
    listed = get(service, "/api/uploads?limit=1", headers=headers).json()["data"][0]
    addresses = {answer["preview_url"], one["url"], listed["url"]}
    assert all(address.endswith(f"/{name}") for address in addresses)
    return {address.removesuffix(f"/{name}") for address in addresses}


def test_G13_what_a_proxy_says_is_not_believed_without_one(service):
    assert urls(service, FORWARDED) == {f"{service.url}/uploads"}


def test_addresses_follow_the_host_that_was_called(behind_proxy):
    expected = {"http://photos.example:81/media/originals"}
    assert urls(behind_proxy, {"Host": "photos.example:81"}) == expected


def test_G13_what_one_proxy_says_is_believed_behind_one(behind_proxy):
    expected = {"https://photos.example/clustr/media/originals"}
    assert urls(behind_proxy, FORWARDED) == expected
    # What a client claims stands before what the proxy adds.
    claimed = {name: f"evil.example, {value}" for name, value in FORWARDED.items()}
    assert urls(behind_proxy, claimed) == expected


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"PROXY_HOPS": "1", "ALLOWED_HOSTS": "photos.example"}, FORWARDED),
        ({"BASE_URL": "https://photos.example/clustr/"}, {}),
    ],
)
def test_locations_are_below_the_path_of_the_front(app_with, settings, headers):
    client = app_with(AUTH="off", **settings).test_client()
    files = {"files": (photographs.path("rocket").open("rb"), "rocket.jpg")}
    assert client.post("/api/upload", data=files, headers=headers).status_code == 201
    order = {"analyzer": "dimensions", "select": "all"}
    answer = client.post("/api/analyses", json=order, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/clustr/api/jobs/{answer.json['id']}"
    order = {"filter": {"sha256": "0" * 64}, "action": "delete"}
    answer = client.post("/api/uploads/bulk", json=order, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/clustr/api/jobs/{answer.json['id']}"


def test_originals_are_served_at_the_path_that_is_set(behind_proxy):
    [one] = uploaded(behind_proxy, CONTENT)
    assert one["preview_url"] == f"{behind_proxy.url}/media/originals/{one['stored_filename']}"
    answer = requests.get(one["preview_url"], timeout=60)
    assert answer.content == CONTENT
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-site"
    assert get(behind_proxy, f"/uploads/{one['stored_filename']}").status_code == 404
    paths = get(behind_proxy, "/openapi.json").json()["paths"]
    assert "/media/originals/{stored_filename}" in paths


@pytest.mark.parametrize("base", ["https://photos.example", "https://photos.example/clustr/"])
def test_addresses_follow_the_setting(app_with, base):
    client = app_with(AUTH="off", BASE_URL=base, PROXY_HOPS="1").test_client()
    answer = client.post(
        "/api/upload",
        data={"files": (photographs.path("rocket").open("rb"), "rocket.jpg")},
        headers=FORWARDED,
    )
    [one] = answer.json["data"]
    assert one["preview_url"] == f"{base.rstrip('/')}/uploads/{one['stored_filename']}"
    assert client.get(f"/api/uploads/{one['id']}").json["url"] == one["preview_url"]
