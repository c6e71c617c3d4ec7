"""Originals as they are served."""

import datetime
import hashlib
import re
import shutil
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

import photographs
import pytest
import requests
from calling import PROBLEM, get, get_raw, part, upload, uploaded
from running import wait_until
from slow_clients import nginx

from clustr.domain.errors import StartUpError

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
    answer = requests.get(one["preview_url"], timeout=60)
    assert answer.headers["Content-Type"] == photographs.CONTENT_TYPES[extension]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == CLOSED
    assert answer.content == content


def test_head_is_an_answer_without_a_body(service, path):
    whole = get(service, path)
    head = requests.head(service.url + path, timeout=60)
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
    answer = requests.head(service.url + path, headers={"Range": "bytes=0-9"}, timeout=60)
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
    tag = requests.get(other["preview_url"], timeout=60).headers["ETag"]
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
    head = requests.head(service.url + path, timeout=60)
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
    limit = {"RATE_LIMIT": "100000/min"}
    web = web_with(AUTH="off", PROXY_HOPS="1", ACCEL_REDIRECT="/clustr-files", **limit)
    with nginx(program, tmp_path_factory.mktemp("nginx"), web.url, web.folder) as url:
        yield web, url


KINDS_OF_FILES = ("/uploads/{id}.png", "/api/uploads/{id}/file", "/api/uploads/{id}/thumbnail")


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_nginx_sends_files_with_what_was_said_of_them(accelerated, service, kind):
    """Once through nginx and once without, where nothing is limited: the answers are the same."""
    ours, url = accelerated
    [one], [other] = uploaded(ours, CONTENT), uploaded(service, CONTENT)
    path = kind.format(id=one["id"])
    get(ours, path)  # A thumbnail that is made is answered by the one who made it.
    behind = requests.get(ours.url + path, timeout=60)
    assert behind.content == b""
    assert behind.headers["X-Accel-Redirect"].startswith("/clustr-files/")
    for method in ("GET", "HEAD"):
        sent = requests.request(method, url + path, timeout=60)
        plain = requests.request(method, service.url + kind.format(id=other["id"]), timeout=60)
        assert (sent.status_code, sent.content) == (200, plain.content)
        assert "X-Accel-Redirect" not in sent.headers
        assert re.fullmatch(r"[0-9a-f]{32}", sent.headers["X-Request-ID"])
        assert sent.headers["RateLimit-Policy"] == behind.headers["RateLimit-Policy"]
        assert sent.headers["RateLimit"].startswith('"requests";r=')
        own = {"Server", "Date", "Connection", "X-Request-ID", "Last-Modified", "ETag"}
        own |= {"RateLimit", "RateLimit-Policy"}
        expected = {name: value for name, value in plain.headers.items() if name not in own}
        assert {name: value for name, value in sent.headers.items() if name not in own} == expected
        assert sent.headers["ETag"] == behind.headers["ETag"]
        assert sent.headers.get("Last-Modified") == behind.headers.get("Last-Modified")
    known = requests.get(url + path, headers={"If-None-Match": sent.headers["ETag"]}, timeout=60)
    assert (known.status_code, known.content) == (304, b"")
    some = requests.get(url + path, headers={"Range": "bytes=5-9"}, timeout=60)
    whole = requests.get(url + path, timeout=60).content
    assert (some.status_code, some.content) == (206, whole[5:10])
    beyond = requests.get(url + path, headers={"Range": "bytes=99999999-"}, timeout=60)
    assert (beyond.status_code, beyond.headers["Content-Type"]) == (416, PROBLEM)


def test_what_is_not_there_is_said_by_us_behind_nginx_too(accelerated):
    _, url = accelerated
    for kind in KINDS_OF_FILES:
        answer = requests.get(url + kind.format(id=UNKNOWN_ID), timeout=60)
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, PROBLEM)


def test_what_nginx_cannot_send_is_neither_kept_nor_logged_with_its_address(accelerated, tmp_path):
    ours, _ = accelerated
    [one] = uploaded(ours, CONTENT)
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    key = get(ours, f"/api/uploads/{one['id']}").json()["file_path"]
    with nginx(program, tmp_path, ours.url, elsewhere) as url:
        missing = requests.get(f"{url}/uploads/{one['id']}.png", timeout=60)
        (elsewhere / key).parent.mkdir(parents=True)
        (elsewhere / key).symlink_to(ours.folder / key)  # which nginx does not follow
        refused = requests.get(f"{url}/uploads/{one['id']}.png", timeout=60)
    for answer, status in ((missing, 404), (refused, 500)):
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROBLEM)
        assert answer.json()["status"] == status
        assert "no-store" in answer.headers["Cache-Control"].split(", ")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert one["id"] not in (tmp_path / "error.log").read_text()


def test_a_request_has_one_id_in_all_logs_and_in_its_answer(accelerated, tmp_path):
    ours, _ = accelerated
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    told = []
    with nginx(program, tmp_path, ours.url) as url:
        for sent in ({}, {"X-Request-ID": "a-client.1"}, {"X-Request-ID": 'no"id'}):
            answer = requests.get(f"{url}/api/nothing", headers=sent, timeout=60)
            told.append(answer.headers["X-Request-ID"])
            assert answer.json()["request_id"] == told[-1]
        too_large = requests.Request("POST", f"{url}/api/upload").prepare()
        too_large.headers.update({"Content-Length": "1100000000", "X-Request-ID": "too-large"})
        with requests.Session() as session:
            refused = session.send(too_large, timeout=60)
    assert told[1] == "a-client.1"
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in (told[0], told[2]))
    assert refused.json()["request_id"] == refused.headers["X-Request-ID"] == "too-large"
    logged = [line.split()[-1] for line in (tmp_path / "access.log").read_text().splitlines()]
    assert logged == [*told, "too-large"]

    def is_logged() -> bool:
        return {*told} <= {line.get("request_id") for line in ours.gunicorn.lines()}

    wait_until(is_logged, 60, "our log lines, which follow the answers")


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
