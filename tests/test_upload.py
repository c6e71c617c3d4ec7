"""Uploading: what is accepted, what is refused and why, and what is stored."""

import hashlib
import io
import itertools
import re
from pathlib import Path

import odd_images
import photographs
import pytest
import requests
from calling import (
    BOUNDARY,
    Raw,
    form,
    get,
    named,
    part,
    post,
    post_form,
    upload,
    uploaded,
)
from PIL import Image
from running import wait_until

PROBLEM = "application/problem+json"
ACCEPTED = {
    "id",
    "stored_filename",
    "preview_url",
    "index",
    "original_filename",
    "file_size",
    "content_type",
    "status",
    "duplicate_of",
    "reused",
}

# Small limits, so that what lies on both sides of them is small too.
MAX_UPLOAD_SIZE = 100_000
MAX_REQUEST_SIZE = 1_000_000
MAX_FILES = 5
MAX_PIXELS = 200 * 100


@pytest.fixture(scope="module")
def narrow(web_with):
    return web_with(
        MAX_UPLOAD_SIZE=str(MAX_UPLOAD_SIZE),
        MAX_REQUEST_SIZE=str(MAX_REQUEST_SIZE),
        MAX_FILES_PER_REQUEST=str(MAX_FILES),
        MAX_IMAGE_PIXELS=str(MAX_PIXELS),
    )


def stored_files(service) -> set[Path]:
    """Every file below the folder of uploads; those that are still arriving, too."""
    return {path for path in (service.data / "uploads").rglob("*") if path.is_file()}


def total(service) -> int:
    return get(service, "/api/uploads?limit=1").json()["total"]


def problem(answer: requests.Response, status: int, name: str) -> dict:
    """The problem document, which must be of this status and kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    document = answer.json()
    assert document["type"] == f"urn:clustr:problem:{name}"
    assert document["status"] == status
    return document


def padded(size: int) -> bytes:
    """A JPEG of exactly this many bytes."""
    content = photographs.unique("jpg", size)
    return content + bytes(size - len(content))


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_said_of_files_that_are_accepted(service, count):
    contents = [photographs.unique("png", 1000 * count + number) for number in range(count)]
    parts = [part(content, f"photo {n}.png") for n, content in enumerate(contents)]
    answer = upload(service, *parts)
    assert answer.status_code == 201
    body = answer.json()
    assert body.keys() == {"message", "data", "errors"}
    assert body["message"] == f"Successfully uploaded {count} file{'s' if count > 1 else ''}"
    assert body["errors"] == []
    assert len(body["data"]) == count
    for number, (one, content) in enumerate(zip(body["data"], contents, strict=True)):
        assert one.keys() == ACCEPTED
        assert re.fullmatch(r"[0-9a-f]{24}", one["id"])
        assert one["stored_filename"] == f"{one['id']}.png"
        assert one["preview_url"] == f"{service.url}/uploads/{one['stored_filename']}"
        assert one["original_filename"] == f"photo {number}.png"
        assert one["file_size"] == len(content)
        assert one["content_type"] == "image/png"
        assert one["status"] == "pending"
        assert one["duplicate_of"] is None


def test_what_is_stored_is_what_was_sent(service):
    content = photographs.path("rocket").read_bytes()
    [one] = uploaded(service, content)
    stored = get(service, f"/api/uploads/{one['id']}").json()
    assert requests.get(one["preview_url"], timeout=10).content == content
    assert requests.get(stored["url"], timeout=10).content == content
    assert stored["sha256"] == hashlib.sha256(content).hexdigest()
    assert stored["size"] == len(content)
    assert stored["dimensions"] == {"width": 640, "height": 427}
    assert not stored["file_path"].startswith("/")
    assert (service.data / "uploads" / stored["file_path"]).read_bytes() == content


def test_a_bad_file_never_spoils_the_good_ones(service):
    """A photograph among a text, a truncated image, nothing, and what would fill the memory."""
    before, uploads_before = stored_files(service), total(service)
    photograph = photographs.path("rocket").read_bytes()
    bomb = photographs.png_bomb(60_000, 60_000)
    assert len(bomb) < 1000
    answer = upload(
        service,
        part(photographs.text(), "text.png", "image/png"),
        part(photographs.truncated(photograph, 0.5), "truncated.jpg"),
        part(photograph, "rocket.jpg"),
        part(photographs.empty(), "empty.jpg"),
        part(bomb, "bomb.png", "image/png"),
    )
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["message"] == "Successfully uploaded 1 file"
    assert [one["original_filename"] for one in body["data"]] == ["rocket.jpg"]
    assert [(one["original_filename"], one["code"]) for one in body["errors"]] == [
        ("text.png", "unsupported_type"),
        ("truncated.jpg", "undecodable"),
        ("empty.jpg", "empty"),
        ("bomb.png", "too_many_pixels"),
    ]
    for one in body["errors"]:
        assert one.keys() == {"index", "original_filename", "code", "detail"}
        assert one["detail"]
    [file] = stored_files(service) - before
    assert file.name == body["data"][0]["stored_filename"]
    assert file.read_bytes() == photograph
    assert list((service.data / "uploads" / ".incoming").iterdir()) == []
    assert total(service) == uploads_before + 1


REFUSED = {
    "unsupported_type": (415, photographs.text()),
    "too_large": (413, padded(MAX_UPLOAD_SIZE + 1)),
    "too_many_pixels": (413, photographs.png_bomb()),
    "undecodable": (422, photographs.truncated(photographs.photograph("jpg"), 0.5)),
    "empty": (422, photographs.empty()),
}


@pytest.mark.parametrize("code", REFUSED)
def test_when_nothing_is_accepted_the_first_file_decides(narrow, code):
    status, content = REFUSED[code]
    others = [name for name in REFUSED if name != code]
    before, uploads_before = stored_files(narrow), total(narrow)
    answer = upload(
        narrow,
        part(content, "first.jpg"),
        *(part(REFUSED[other][1], f"{other}.jpg") for other in others),
    )
    document = problem(answer, status, code)
    assert [(one["original_filename"], one["code"]) for one in document["errors"]] == [
        ("first.jpg", code),
        *((f"{other}.jpg", other) for other in others),
    ]
    assert document["detail"] == document["errors"][0]["detail"]
    assert stored_files(narrow) == before
    assert total(narrow) == uploads_before


FORM = f"multipart/form-data; boundary={BOUNDARY}"
TEXT_FIELD = (b'Content-Disposition: form-data; name="files"', b"a text")
OTHER_FIELD = (
    b'Content-Disposition: form-data; name="file"; filename="a.jpg"',
    photographs.photograph(),
)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", None),
        (b"", FORM),
        (form(), FORM),
        (form(OTHER_FIELD), FORM),
        (form(TEXT_FIELD), FORM),
        (form((named(b"a.jpg"), photographs.photograph())), "multipart/form-data"),
        (form((named(b"a.jpg"), photographs.photograph()))[:-20], FORM),
        (photographs.photograph(), "text/plain"),
        (b'{"files": []}', "application/json"),
        (b"files=a", "application/x-www-form-urlencoded"),
    ],
    ids=[
        "nothing at all",
        "no body",
        "no parts",
        "a field of another name",
        "a text field",
        "no boundary",
        "no end",
        "another type",
        "json",
        "urlencoded",
    ],
)
def test_A13_no_files(service, body, content_type):
    before = stored_files(service)
    document = problem(post(service, body, content_type), 422, "no_files")
    assert [one["code"] for one in document["errors"]] == ["no_files"]
    assert "files" in document["detail"]
    assert stored_files(service) == before


@pytest.mark.parametrize("field", ["files[]", "files[0]", "files[12]"])
def test_parts_may_be_named_as_those_of_a_list(web, field):
    """As axios and PHP name them."""
    parts = [part(photographs.one_pixel(), name, field=field) for name in ("a.png", "b.png")]
    answer = upload(web, *parts)
    assert answer.status_code == 201, answer.text
    assert [one["original_filename"] for one in answer.json()["data"]] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("content_type", "disposition", "name"),
    [
        ("image/jpeg", None, "unnamed"),
        ("image/png", "attachment", "unnamed"),  # and it is a JPEG: the bytes decide
        ("application/octet-stream", 'attachment; filename="cat.jpg"', "cat.jpg"),
        ("IMAGE/JPEG; x=y", "inline; filename=cat.jpg", "cat.jpg"),
        ("image/jpeg", "attachment; filename*=UTF-8''k%C3%A4tzchen.jpg", "kätzchen.jpg"),
        ("image/jpeg", 'attachment; filename="kätzchen.jpg"'.encode(), "kätzchen.jpg"),
        ("image/jpeg", 'attachment; filename="../../cat.jpg"', "cat.jpg"),
        ("image/jpeg", 'attachment; filename="', "unnamed"),
    ],
)
def test_a_body_may_be_one_image(web, content_type, disposition, name):
    content = photographs.photograph()
    headers = {"Content-Type": content_type, "Content-Disposition": disposition}
    answer = requests.post(f"{web.url}/api/upload", content, headers=headers, timeout=30)
    assert answer.status_code == 201, answer.text
    [one] = answer.json()["data"]
    assert (one["original_filename"], one["content_type"]) == (name, "image/jpeg")
    assert requests.get(one["preview_url"], timeout=30).content == content


def test_a_body_in_chunks_may_be_one_image(service):
    content = photographs.photograph()
    chunks = (content[i : i + 1000] for i in range(0, len(content), 1000))
    assert post(service, chunks, "image/jpeg").status_code == 201


@pytest.mark.parametrize(
    ("content", "status", "name"),
    [
        (b"", 422, "empty"),
        (photographs.text(), 415, "unsupported_type"),
        (padded(MAX_UPLOAD_SIZE + 1), 413, "too_large"),
        (padded(MAX_REQUEST_SIZE + 1), 413, "request_entity_too_large"),
    ],
    ids=["empty", "text", "large", "too large to be read"],
)
def test_a_body_that_is_no_image_is_refused_as_any_file(narrow, content, status, name):
    before = stored_files(narrow)
    problem(post(narrow, content, "image/png"), status, name)
    assert stored_files(narrow) == before


def test_a_body_that_is_cut_off_is_not_stored(narrow):
    content, before = photographs.one_pixel(), stored_files(narrow)
    head = declared(len(content) + 1).replace(FORM.encode(), b"image/png")
    with Raw(narrow, head + content, "POST", ends=True) as answer:
        assert answer.status == 422
        assert b"cut off" in answer.body
    assert stored_files(narrow) == before


def test_other_fields_beside_the_files_are_no_harm(service):
    answer = post_form(
        service,
        (b'Content-Disposition: form-data; name="album"', b"holiday"),
        OTHER_FIELD,
        TEXT_FIELD,
        (named(b"cat.jpg"), photographs.photograph()),
    )
    assert answer.status_code == 201, answer.text
    assert [one["original_filename"] for one in answer.json()["data"]] == ["cat.jpg"]
    assert answer.json()["errors"] == []


@pytest.mark.parametrize(
    "field",
    [
        b'Content-Disposition: form-data; name="files"; filename=""',
        b'Content-Disposition: form-data; name="files"; filename=""\r\n'
        b"Content-Type: application/octet-stream",
    ],
)
def test_what_a_browser_sends_when_no_file_is_chosen(service, field):
    document = problem(post_form(service, (field, b"")), 422, "empty")
    assert [one["original_filename"] for one in document["errors"]] == ["unnamed"]


def test_B2_a_file_may_have_just_the_bytes_that_are_allowed(narrow):
    before = stored_files(narrow)
    answer = upload(
        narrow,
        part(padded(MAX_UPLOAD_SIZE - 1), "below.jpg"),
        part(padded(MAX_UPLOAD_SIZE + 1), "above.jpg"),
        part(padded(MAX_UPLOAD_SIZE), "at.jpg"),
        part(bytes(3 * MAX_UPLOAD_SIZE), "far above.jpg"),
    )
    assert answer.status_code == 201, answer.text
    body = answer.json()
    accepted = {one["original_filename"]: one["file_size"] for one in body["data"]}
    assert accepted == {"below.jpg": MAX_UPLOAD_SIZE - 1, "at.jpg": MAX_UPLOAD_SIZE}
    refused = [(one["original_filename"], one["code"]) for one in body["errors"]]
    assert refused == [("above.jpg", "too_large"), ("far above.jpg", "too_large")]
    assert len(stored_files(narrow) - before) == 2


def test_a_file_of_fifty_mebibytes_is_the_largest_by_default(web):
    limit = 50 * 1024 * 1024
    answer = upload(web, part(padded(limit + 1), "above.jpg"), part(padded(limit), "at.jpg"))
    assert answer.status_code == 201, answer.text
    assert [one["original_filename"] for one in answer.json()["data"]] == ["at.jpg"]
    assert [one["code"] for one in answer.json()["errors"]] == ["too_large"]


def test_A3_an_image_may_have_just_the_pixels_that_are_allowed(narrow):
    def blank(width: int, height: int) -> bytes:
        return photographs.encode(Image.new("RGB", (width, height)), "png")

    answer = upload(
        narrow,
        part(blank(200, 100), "at.png"),
        part(blank(201, 100), "above.png"),
        part(blank(199, 100), "below.png"),
    )
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert [one["original_filename"] for one in body["data"]] == ["at.png", "below.png"]
    assert [(one["original_filename"], one["code"]) for one in body["errors"]] == [
        ("above.png", "too_many_pixels")
    ]


def test_B3_as_many_files_as_are_allowed(narrow):
    contents = [photographs.unique("jpg", number) for number in range(MAX_FILES)]
    assert len(uploaded(narrow, *contents)) == MAX_FILES


@pytest.mark.parametrize("count", [MAX_FILES + 1, 500])
def test_B3_too_many_files(narrow, count):
    before = stored_files(narrow)
    answer = upload(narrow, *[part(photographs.one_pixel())] * count)
    document = problem(answer, 413, "request_entity_too_large")
    assert f"{MAX_FILES} files" in document["detail"]
    assert stored_files(narrow) == before


def test_B3_a_large_field_that_is_no_file(narrow):
    field = (b'Content-Disposition: form-data; name="note"', bytes(MAX_REQUEST_SIZE // 2))
    answer = post_form(narrow, field, (named(b"cat.jpg"), photographs.one_pixel()))
    document = problem(answer, 413, "request_entity_too_large")
    assert "`note`" in document["detail"]
    assert "65536 bytes" in document["detail"]


@pytest.mark.parametrize("content", [photographs.one_pixel(), padded(200_000)])
def test_A13_an_image_under_another_name_is_told_the_right_one(narrow, content):
    disposition = b'Content-Disposition: form-data; name="image"; filename="cat.jpg"'
    before = stored_files(narrow)
    document = problem(post_form(narrow, (disposition, content)), 422, "no_files")
    assert "in a part named files" in document["detail"]
    assert "got only image" in document["detail"]
    assert stored_files(narrow) == before


def test_B3_a_large_image_under_another_name_beside_others_is_named(narrow):
    disposition = b'Content-Disposition: form-data; name="image"; filename="cat.jpg"'
    good = (named(b"cat.jpg"), photographs.one_pixel())
    before = stored_files(narrow)
    answer = post_form(narrow, good, (disposition, padded(200_000)))
    document = problem(answer, 413, "request_entity_too_large")
    assert "`image`" in document["detail"]
    assert stored_files(narrow) == before


def declared(length: int) -> bytes:
    return (
        "POST /api/upload HTTP/1.1\r\n"
        "Host: localhost\r\n"
        f"Content-Type: {FORM}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("length", [MAX_REQUEST_SIZE + 1, 10 * 1024**3])
def test_B2_a_request_that_declares_too_much_is_refused_at_once(narrow, length):
    """None of the body is sent, so the answer cannot have waited for it."""
    with Raw(narrow, declared(length), "POST") as answer:
        assert answer.status == 413
        assert answer.headers["Content-Type"] == PROBLEM
        assert str(MAX_REQUEST_SIZE).encode() in answer.body


def test_B2_a_request_of_unknown_length_is_read_up_to_the_limit(narrow):
    before = stored_files(narrow)
    almost_hopeless = bytes(2 * MAX_UPLOAD_SIZE)
    body = form(*[(named(b"a.jpg"), almost_hopeless)] * MAX_FILES)
    assert len(body) > MAX_REQUEST_SIZE
    head = (
        "POST /api/upload HTTP/1.1\r\n"
        "Host: localhost\r\n"
        f"Content-Type: {FORM}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()
    # There is more to come, says the chunk; the limit must be noticed before it does.
    sent = head + f"{2 * len(body):x}\r\n".encode() + body
    with Raw(narrow, sent, "POST") as answer:
        assert answer.status == 413
        assert answer.headers["Content-Type"] == PROBLEM
        assert answer.is_last()
    assert stored_files(narrow) == before


def test_a_request_of_unknown_length_is_accepted(service):
    body = form((named(b"cat.jpg"), photographs.photograph()))
    chunks = (body[i : i + 1000] for i in range(0, len(body), 1000))
    assert post(service, chunks, FORM).status_code == 201


NAMES = ("photo.jpg", "photo.PNG", "photo.webp", "photo.gif", "photo.txt", "photo")
TYPES = (
    "image/jpeg",
    "image/png",
    "image/svg+xml",
    "text/html",
    "application/octet-stream",
    "no type",
)


@pytest.mark.parametrize("extension", photographs.EXTENSIONS)
def test_A1_the_bytes_decide_whatever_name_and_type_say(web, extension):
    content = photographs.photograph(extension)
    parts = [part(content, *said) for said in itertools.product(NAMES, TYPES)]
    answer = upload(web, *parts)
    assert answer.status_code == 201, answer.text
    assert len(answer.json()["data"]) == len(parts)
    for one in answer.json()["data"]:
        assert one["stored_filename"] == f"{one['id']}.{extension}"
        assert one["content_type"] == photographs.CONTENT_TYPES[extension]
        served = requests.head(one["preview_url"], timeout=10)
        assert served.headers["Content-Type"] == photographs.CONTENT_TYPES[extension]


@pytest.mark.parametrize("number", range(6))
def test_A1_what_is_no_accepted_format_is_refused(service, number):
    content = [
        photographs.encode_as("TGA"),
        photographs.encode_as("PPM"),
        photographs.encode_as("ICO"),
        photographs.encode_as("PDF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    ][number]
    problem(upload(service, part(content, "photo.jpg")), 415, "unsupported_type")


@pytest.mark.parametrize(
    ("content", "extension", "size"),
    [
        (odd_images.HEIC_WITH_EXIF, "heic", (48, 32)),
        (photographs.encode_as("AVIF"), "avif", (64, 43)),
        (photographs.encode_as("GIF"), "gif", (64, 43)),
    ],
    ids=["heic", "avif", "gif"],
)
def test_what_phones_send_is_accepted_by_default(service, content, extension, size):
    [one] = uploaded(service, content)
    assert one["stored_filename"] == f"{one['id']}.{extension}"
    assert one["content_type"] == f"image/{extension}"
    assert requests.get(one["preview_url"], timeout=10).content == content
    small = get(service, f"/api/uploads/{one['id']}/thumbnail")
    assert Image.open(io.BytesIO(small.content)).size == size
    path = f"/api/uploads/{one['id']}"
    wait_until(lambda: get(service, path).json()["status"] == "processed", 60)
    found = get(service, path).json()
    assert found["dimensions"] == {"width": size[0], "height": size[1]}
    taken_at = "2024-07-01T08:00:00.250000Z" if extension == "heic" else None
    assert found["taken_at"] == taken_at


def test_A10_dimensions_are_as_displayed(web):
    contents = [
        photographs.oriented(orientation, extension)
        for extension in ("jpg", "png", "webp", "tif")
        for orientation in range(1, 9)
    ]
    width, height = photographs.picture().size
    assert width != height
    for one in uploaded(web, *contents):
        found = get(web, f"/api/uploads/{one['id']}").json()["dimensions"]
        assert found == {"width": width, "height": height}


def test_A1_a_jpeg_with_two_pictures_inside_is_a_jpeg(service):
    [one] = uploaded(service, photographs.mpo())
    assert one["stored_filename"].endswith(".jpg")
    assert one["content_type"] == "image/jpeg"
    assert requests.get(one["preview_url"], timeout=10).content == photographs.mpo()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("..\\..\\windows\\win.png", "win.png"),
        ("C:\\photos\\cat.png", "cat.png"),
        ("/etc/cron.d/", "unnamed"),
        ("a\x00b\x07c\x7f.png", "abc.png"),
        ("cat\u202egnp.exe", "catgnp.exe"),
        ("\u2066cat\u2069.png", "cat.png"),
        (" cat.png ", "cat.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("👩‍👧 猫 \u00e9.png", "👩‍👧 猫 \u00e9.png"),
        (".htaccess", ".htaccess"),
        ("-rf", "-rf"),
        ("a=b; c&d<e>'f.png", "a=b; c&d<e>'f.png"),
        ("x" * 5000 + ".png", "x" * 255),
        ("", "unnamed"),
        ("\u202e", "unnamed"),
    ],
    ids=lambda name: ascii(name[:30]),
)
def test_A12_a_name_is_kept_as_harmless_text(web, sent, kept):
    quoted = sent.replace("\\", r"\\").encode()  # as RFC 9110 writes text in quotes
    answer = post_form(web, (named(quoted), photographs.photograph()))
    assert answer.status_code == 201, answer.text
    [one] = answer.json()["data"]
    assert one["original_filename"] == kept
    stored = get(web, f"/api/uploads/{one['id']}").json()
    assert stored["original_name"] == kept
    assert stored["filename"] == f"{one['id']}.jpg"


def test_A12_names_of_refused_files_are_harmless_too(service):
    answer = upload(service, part(b"", "../../\u202epasswd"))
    assert [one["original_filename"] for one in answer.json()["errors"]] == ["passwd"]


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Disposition: form-data; name=\"files\"; filename*=UTF-8''%e7%8c%ab.png",
        b"Content-Disposition: form-data; name=\"files\"; filename*=UTF-8''%ff.png",
        named(b"\xff.jpg"),
        named(b"cat\r\n .jpg"),
        named(b"%0d%0aX-Header: value.jpg"),
    ],
    ids=["encoded", "wrongly encoded", "no UTF-8", "folded", "a header inside"],
)
def test_A12_an_unusual_name_never_spoils_the_files_beside_it(service, headers):
    photograph = photographs.photograph()
    answer = post_form(service, (headers, photograph), (named(b"good.jpg"), photograph))
    assert answer.status_code == 201, answer.text
    names = [one["original_filename"] for one in answer.json()["data"]]
    assert len(names) == 2
    assert names[1] == "good.jpg"


def test_a_file_that_was_there_before_is_named(service):
    """A hint only: each upload has a file of its own."""
    content, other = photographs.unique("jpg", 71_001), photographs.unique("jpg", 71_002)
    first, second, different = uploaded(service, content, content, other)
    assert first["duplicate_of"] is None
    assert second["duplicate_of"] == first["id"]
    assert different["duplicate_of"] is None
    [third] = uploaded(service, content)
    assert third["duplicate_of"] == first["id"]
    assert get(service, f"/api/uploads/{third['id']}").json()["duplicate_of"] == first["id"]
    assert len({one["stored_filename"] for one in (first, second, third)}) == 3
    for one in (first, second, third):
        assert requests.get(one["preview_url"], timeout=10).content == content
