"""Originals as they are served, and the headers that every answer has."""

import datetime
import hashlib
import re
import shutil
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

import photographs
import pytest
import requests
from calling import get, get_raw, part, upload, uploaded
from slow_clients import nginx

from clustr.domain.errors import StartUpError

PROBLEM = "application/problem+json"
UNKNOWN_ID = "0123456789abcdef01234567"
CONTENT = photographs.photograph("png", "coffee")
SIZE = len(CONTENT)
CLOSED = "default-src 'none'; sandbox"


@pytest.fixture(scope="module")
def original(service) -> dict:
    """An upload, as it was answered."""
    [one] = uploaded(service, CONTENT)
    return one


@pytest.fixture(scope="module")
def path(original) -> str:
    return urlsplit(original["preview_url"]).path


@pytest.fixture(scope="module")
def behind_proxy(web_with):
    """A web side behind one proxy, for the pages of two origins, with a path of its own."""
    return web_with(
        PROXY_HOPS="1",
        CORS_ORIGINS="https://one.example, https://two.example:8443",
        ALLOWED_HOSTS="photos.example",
        UPLOAD_URL_PATH="/media/originals",
    )


def test_an_original_is_served_as_it_came(service, original, path):
    answer = get(service, path)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    headers = answer.headers
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Length"] == str(SIZE)
    assert headers["Accept-Ranges"] == "bytes"
    assert re.fullmatch(r'"[^"]+"', headers["ETag"])
    caching = {each.strip() for each in headers["Cache-Control"].split(",")}
    assert caching == {"public", "max-age=31536000", "immutable"}
    modified = parsedate_to_datetime(headers["Last-Modified"])
    age = datetime.datetime.now(datetime.UTC) - modified
    assert datetime.timedelta() <= age < datetime.timedelta(minutes=10)
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"


@pytest.mark.parametrize("extension", photographs.EXTENSIONS)
def test_the_type_is_the_true_one(service, extension):
    content = photographs.photograph(extension)
    [one] = upload(service, part(content, "page.html", "text/html")).json()["data"]
    answer = requests.get(one["preview_url"], timeout=10)
    assert answer.headers["Content-Type"] == photographs.CONTENT_TYPES[extension]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == CLOSED
    assert answer.content == content


def test_head_is_an_answer_without_a_body(service, path):
    whole = get(service, path)
    head = requests.head(service.url + path, timeout=10)
    assert head.status_code == 200
    assert head.content == b""
    same = ("Content-Type", "Content-Length", "ETag", "Last-Modified", "Cache-Control")
    assert {name: head.headers[name] for name in same} == {
        name: whole.headers[name] for name in same
    }


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-99", 10, 99),
        ("bytes=100-", 100, SIZE - 1),
        ("bytes=-7", SIZE - 7, SIZE - 1),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        (f"bytes=5-{SIZE * 10}", 5, SIZE - 1),
    ],
)
def test_a_range_is_a_part(service, path, asked, first, last):
    answer = get(service, path, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == CONTENT[first : last + 1]
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["Content-Length"] == str(last + 1 - first)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["ETag"] == get(service, path).headers["ETag"]


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"])
def test_a_range_that_is_not_there(service, path, asked):
    answer = get(service, path, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["Content-Type"] == PROBLEM
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.json()["status"] == 416


@pytest.mark.parametrize(
    "asked",
    [
        *("items=0-1", "bits=0-9", "=0-1", "none", "bytes"),
        *("bytes=0-9,20-29", "bytes=20-29, 0-9", f"bytes=0-9,{SIZE}-", f"bytes={SIZE}-,-5"),
        "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 400, 2)),
    ],
)
def test_what_is_not_one_range_is_answered_with_the_whole(service, path, asked):
    answer = get(service, path, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert "Content-Range" not in answer.headers


def test_of_several_ranges_one_has_to_be_there(service, path):
    answer = get(service, path, headers={"Range": f"bytes={SIZE}-,{SIZE + 9}-{SIZE + 10}"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


def test_ranges_are_for_GET_alone(service, path):
    answer = requests.head(service.url + path, headers={"Range": "bytes=0-9"}, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["Content-Length"] == str(SIZE)


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("photo.png", "photo.png"),
        ("photo.PNG", "photo.PNG"),
        ("photo.jpg", "photo.jpg.png"),
        ("x.html", "x.html.png"),
        ("x.hta", "x.hta.png"),
        ("x.exe", "x.exe.png"),
        ("x.png.lnk", "x.png.lnk.png"),
        ("x.exe. .", "x.exe.png"),
        (".htaccess", "htaccess.png"),
        ("..", "unnamed.png"),
        (".png", "png.png"),
        ("...png", "png.png"),
        ("no extension", "no extension.png"),
        ("CON", "_CON.png"),
        ("nul.png", "_nul.png"),
        ("com1.tar.png", "_com1.tar.png"),
        ("lpt\u00b9 .png", "_lpt\u00b9 .png"),
        ("console.png", "console.png"),
        ("a:b.png", "a_b.png"),
        ("ä" * 250, "ä" * 125 + ".png"),
    ],
)
def test_a_file_is_saved_under_no_name_that_runs(service, name, saved):
    [one] = upload(service, part(CONTENT, name)).json()["data"]
    for kind, query in (("inline", ""), ("attachment", "?download=1")):
        answer = get(service, f"/api/uploads/{one['id']}/file{query}")
        said = answer.headers["Content-Disposition"]
        encoded = re.search(r"filename\*=UTF-8''(\S+)", said)
        plain = re.search(r'filename="([^"]*)"', said)[1]
        assert said.startswith(kind)
        assert (unquote(encoded[1]) if encoded else plain) == saved
        assert plain.endswith(saved[-4:]) and not plain.startswith(".")


def test_a_range_of_an_older_original_is_the_whole(service, path):
    asked = {"Range": "bytes=0-9", "If-Range": '"another"'}
    answer = get(service, path, headers=asked)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    asked["If-Range"] = answer.headers["ETag"]
    assert get(service, path, headers=asked).content == CONTENT[:10]


@pytest.mark.parametrize("header", ["If-None-Match", "If-Modified-Since"])
def test_what_the_client_has_is_not_sent_again(service, path, header):
    whole = get(service, path)
    known = whole.headers["ETag" if header == "If-None-Match" else "Last-Modified"]
    answer = get(service, path, headers={header: known})
    assert answer.status_code == 304
    assert answer.content == b""
    assert answer.headers["ETag"] == whole.headers["ETag"]
    assert answer.headers["Cache-Control"] == whole.headers["Cache-Control"]
    other = {"If-None-Match": '"another"', "If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}
    assert get(service, path, headers={header: other[header]}).status_code == 200


def test_two_uploads_of_the_same_bytes_have_their_own_tags(service, path):
    [other] = uploaded(service, CONTENT)
    tag = requests.get(other["preview_url"], timeout=10).headers["ETag"]
    assert tag != get(service, path).headers["ETag"]


@pytest.mark.parametrize(
    "name",
    [
        f"{UNKNOWN_ID}.png",
        UNKNOWN_ID,
        "{id}",
        "{id}.jpg",
        "{id}.PNG",
        "{id}.png.html",
        "{id}.png%00",
        "{id}.png%0A",
        "../{key}",
        "{key}",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "..%252f..%252fetc%252fpasswd",
        "../../../../../../etc/passwd",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "....//....//etc/passwd",
        "..%5c..%5cetc%5cpasswd",
        "%c0%ae%c0%ae%c0%afetc%c0%afpasswd",
        "%e2%80%ae.png",
        ".incoming",
        ".",
        "..",
        "",
    ],
)
def test_G5_nothing_else_is_served(service, original, name):
    """A query is added that no client tidies up, and the path is sent as it is."""
    stored = get(service, f"/api/uploads/{original['id']}").json()["file_path"]
    with get_raw(service, "/uploads/" + name.format(id=original["id"], key=stored)) as answer:
        assert answer.status == 404, answer.body
        assert answer.headers["Content-Type"] == PROBLEM
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert b"root:" not in answer.body


@pytest.mark.parametrize("name", ["{id}.png/", ".incoming/"])
def test_G5_a_slash_too_much_leads_to_the_same_without_it(service, original, name):
    name = name.format(id=original["id"])
    with get_raw(service, f"/uploads/{name}") as answer:
        assert (answer.status, answer.headers["Location"]) == (308, f"../{name[:-1]}")


def test_an_original_is_served_under_its_own_name(service, original):
    path = f"/api/uploads/{original['id']}/file"
    answer = get(service, path)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    headers = answer.headers
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Disposition"] == 'inline; filename="photograph.jpg.png"'
    assert headers["ETag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert headers["Cache-Control"] == "public, max-age=300"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    saved = get(service, f"{path}?download=1")
    assert saved.content == CONTENT
    assert saved.headers["Content-Disposition"] == 'attachment; filename="photograph.jpg.png"'
    head = requests.head(service.url + path, timeout=10)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(SIZE)
    part_of_it = get(service, path, headers={"Range": "bytes=10-99"})
    assert (part_of_it.status_code, part_of_it.content) == (206, CONTENT[10:100])
    assert part_of_it.headers["Content-Range"] == f"bytes 10-99/{SIZE}"
    known = get(service, path, headers={"If-None-Match": headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")
    beyond = get(service, path, headers={"Range": f"bytes={SIZE}-"})
    assert (beyond.status_code, beyond.headers["Content-Type"]) == (416, PROBLEM)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Blå Älva.png", "Bl_ _lva.png"),
        ("写真.png", "__.png"),
        ("100%41.png", "100_41.png"),
        ("a'b(d).png", None),
        ("x;y=z, w.png", None),
        ("😀.png", "_.png"),
    ],
)
def test_a_name_is_whole_for_those_who_read_it(service, name, plain):
    [one] = upload(service, part(CONTENT, name)).json()["data"]
    assert one["original_filename"] == name
    said = get(service, f"/api/uploads/{one['id']}/file").headers["Content-Disposition"]
    if plain is None:
        assert said == f'inline; filename="{name}"'
        return
    found = re.fullmatch(r"inline; filename=\"([^\"]*)\"; filename\*=UTF-8''(\S+)", said)
    assert found[1] == plain
    assert unquote(found[2], errors="strict") == name
    assert re.fullmatch(r"([A-Za-z0-9!#$&+.^_`|~-]|%[0-9A-F]{2})+", found[2])


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        (f"/api/uploads/{UNKNOWN_ID}/file", 404, None),
        ("/api/uploads/x/file", 404, None),
        ("/api/uploads/{id}/file?download=2", 422, "download"),
        ("/api/uploads/{id}/file?donwload=1", 422, "donwload"),
    ],
)
def test_what_is_no_original_is_said(service, original, path, status, field):
    answer = get(service, path.format(id=original["id"]))
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROBLEM)
    assert list(answer.json().get("errors", {})) == ([field] if field else [])


@pytest.fixture(scope="module")
def accelerated(web_with, tmp_path_factory):
    """A web side whose files are sent by nginx in front of it, and the address of that."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    web = web_with(PROXY_HOPS="1", ACCEL_REDIRECT="/clustr-files")
    with nginx(program, tmp_path_factory.mktemp("nginx"), web.url, web.folder) as url:
        yield web, url


KINDS_OF_FILES = ("/uploads/{id}.png", "/api/uploads/{id}/file", "/api/uploads/{id}/thumbnail")


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_nginx_sends_files_with_what_was_said_of_them(accelerated, service, kind):
    """Once through nginx and once without: the answers are the same."""
    ours, url = accelerated
    [one], [other] = uploaded(ours, CONTENT), uploaded(service, CONTENT)
    path = kind.format(id=one["id"])
    get(ours, path)  # A thumbnail that is made is answered by the one who made it.
    behind = requests.get(ours.url + path, timeout=10)
    assert behind.content == b""
    assert behind.headers["X-Accel-Redirect"].startswith("/clustr-files/")
    for method in ("GET", "HEAD"):
        sent = requests.request(method, url + path, timeout=10)
        plain = requests.request(method, service.url + kind.format(id=other["id"]), timeout=10)
        assert (sent.status_code, sent.content) == (200, plain.content)
        assert "X-Accel-Redirect" not in sent.headers
        assert re.fullmatch(r"[0-9a-f]{32}", sent.headers["X-Request-ID"])
        own = {"Server", "Date", "Connection", "X-Request-ID", "Last-Modified", "ETag"}
        expected = {name: value for name, value in plain.headers.items() if name not in own}
        assert {name: value for name, value in sent.headers.items() if name not in own} == expected
        assert sent.headers["ETag"] == behind.headers["ETag"]
        assert sent.headers.get("Last-Modified") == behind.headers.get("Last-Modified")
    known = requests.get(url + path, headers={"If-None-Match": sent.headers["ETag"]}, timeout=10)
    assert (known.status_code, known.content) == (304, b"")
    some = requests.get(url + path, headers={"Range": "bytes=5-9"}, timeout=10)
    whole = requests.get(url + path, timeout=10).content
    assert (some.status_code, some.content) == (206, whole[5:10])
    beyond = requests.get(url + path, headers={"Range": "bytes=99999999-"}, timeout=10)
    assert (beyond.status_code, beyond.headers["Content-Type"]) == (416, PROBLEM)


def test_what_is_not_there_is_said_by_us_behind_nginx_too(accelerated):
    _, url = accelerated
    for kind in KINDS_OF_FILES:
        answer = requests.get(url + kind.format(id=UNKNOWN_ID), timeout=10)
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, PROBLEM)


def test_G5_nobody_gets_at_the_store_through_nginx(accelerated):
    ours, url = accelerated
    [one] = uploaded(ours, CONTENT)
    key = get(ours, f"/api/uploads/{one['id']}").json()["file_path"]
    for path in (
        f"/clustr-files/{key}",
        "/clustr-files/.clustr-store",
        f"/x/../clustr-files/{key}",
    ):
        answer = requests.get(url + path, headers={"X-Accel-Redirect": f"/clustr-files/{key}"})
        assert answer.status_code == 404
        assert CONTENT not in answer.content


@pytest.mark.parametrize("path", ["clustr-files", "/", "/a b", "/files/", "/x\r\ny: z"])
def test_a_place_for_nginx_is_a_path(app_with, path):
    with pytest.raises(StartUpError, match="ACCEL_REDIRECT"):
        app_with(ACCEL_REDIRECT=path)


CALLS = {
    "online": ("GET", "/", 200),
    "health": ("GET", "/api/health", 200),
    "one service": ("GET", "/api/health/database", 200),
    "live": ("GET", "/api/health/live", 200),
    "ready": ("GET", "/api/health/ready", 200),
    "unknown service": ("GET", "/api/health/nothing", 404),
    "listing": ("GET", "/api/uploads", 200),
    "wrong listing": ("GET", "/api/uploads?limit=0", 422),
    "upload": ("GET", "/api/uploads/{id}", 200),
    "unknown upload": ("GET", f"/api/uploads/{UNKNOWN_ID}", 404),
    "no id": ("GET", "/api/uploads/x", 404),
    "debug": ("GET", "/api/debug/dimensions?id={id}", 200),
    "plugins": ("GET", "/api/plugins", 200),
    "plugin": ("GET", "/api/plugins/dimensions", 200),
    "unknown plugin": ("GET", "/api/plugins/nothing", 404),
    "document": ("GET", "/openapi.json", 200),
    "no such path": ("GET", "/no/such/path", 404),
    "file": ("GET", "/uploads/{id}.png", 200),
    "original": ("GET", "/api/uploads/{id}/file", 200),
    "unknown original": ("GET", f"/api/uploads/{UNKNOWN_ID}/file", 404),
    "thumbnail": ("GET", "/api/uploads/{id}/thumbnail", 200),
    "unknown thumbnail": ("GET", f"/api/uploads/{UNKNOWN_ID}/thumbnail", 404),
    "wrong thumbnail": ("GET", "/api/uploads/{id}/thumbnail?size=9", 422),
    "unknown file": ("GET", f"/uploads/{UNKNOWN_ID}.png", 404),
    "head": ("HEAD", "/api/uploads", 200),
    "options": ("OPTIONS", "/api/uploads", 200),
    "empty upload": ("POST", "/api/upload", 422),
    "wrong method": ("DELETE", "/api/upload", 405),
    "unknown method": ("BREW", "/api/uploads", 405),
}


@pytest.mark.parametrize("call", CALLS)
def test_G1_headers_of_every_answer(service, original, call):
    method, address, status = CALLS[call]
    url = service.url + address.format(id=original["id"])
    answer = requests.request(method, url, timeout=10)
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == CLOSED
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert "Origin" in answer.headers["Vary"].split(", ")
    if status >= 400 and method != "HEAD":
        assert answer.headers["Content-Type"] == PROBLEM
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_G1_headers_of_the_pages(service, page):
    answer = get(service, page)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-ID"]
    assert "sandbox" not in answer.headers["Content-Security-Policy"]


def test_a_request_id_is_taken_over(service):
    for sent in ("a", "Trace-1.2_3", "x" * 64):
        answer = get(service, "/api/uploads/x", headers={"X-Request-ID": sent})
        assert answer.headers["X-Request-ID"] == sent
        assert answer.json()["request_id"] == sent


@pytest.mark.parametrize(
    "sent", ["", "x" * 65, "a b", "a;b", '"><script>', "a\tb", "\xe9", "../..", "{}", "a,b"]
)
def test_G11_a_hostile_request_id_is_not(service, sent):
    with get_raw(service, "/api/uploads/x", f"X-Request-ID: {sent}") as answer:
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])


def test_request_ids_differ(service):
    ids = {get(service, "/api/health/live").headers["X-Request-ID"] for _ in range(20)}
    assert len(ids) == 20


def origins(answer: requests.Response) -> dict[str, str]:
    """The headers by which a browser decides whether a page may read the answer."""
    prefix = "Access-Control-"
    return {
        name.removeprefix(prefix): value
        for name, value in answer.headers.items()
        if name.startswith(prefix)
    }


EXPOSED = {
    *("X-Request-ID", "ETag", "Location", "Link", "Retry-After"),
    *("Content-Disposition", "Content-Range", "Accept-Ranges"),
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
    answer = requests.options(f"{service.url}/api/upload", headers=asked, timeout=10)
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
    answer = requests.request(method, f"{service.url}/api/uploads", headers=asked, timeout=10)
    assert answer.status_code == 200
    assert origins(answer) == {}
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "images.example"])
def test_G9_no_page_may_read_by_default_what_is_served_elsewhere(app_with, host):
    client = app_with(HOST=host).test_client()
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
        assert "Vary" not in answer.headers


@pytest.mark.parametrize("origin", ["https://one.example", "https://two.example:8443"])
def test_G9_a_named_origin_may_read_with_credentials(behind_proxy, origin):
    answer = get(behind_proxy, "/api/uploads", headers={"Origin": origin})
    assert origins(answer)["Allow-Origin"] == origin
    assert origins(answer)["Allow-Credentials"] == "true"
    assert answer.headers["Vary"] == "Origin"


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
    assert answer.headers["Vary"] == "Origin"


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
    client = app_with(**settings).test_client()
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
    answer = requests.get(one["preview_url"], timeout=10)
    assert answer.content == CONTENT
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-site"
    assert get(behind_proxy, f"/uploads/{one['stored_filename']}").status_code == 404
    paths = get(behind_proxy, "/openapi.json").json()["paths"]
    assert "/media/originals/{stored_filename}" in paths


@pytest.mark.parametrize("base", ["https://photos.example", "https://photos.example/clustr/"])
def test_addresses_follow_the_setting(app_with, base):
    client = app_with(BASE_URL=base, PROXY_HOPS="1").test_client()
    answer = client.post(
        "/api/upload",
        data={"files": (photographs.path("rocket").open("rb"), "rocket.jpg")},
        headers=FORWARDED,
    )
    [one] = answer.json["data"]
    assert one["preview_url"] == f"{base.rstrip('/')}/uploads/{one['stored_filename']}"
    assert client.get(f"/api/uploads/{one['id']}").json["url"] == one["preview_url"]
