"""Bodies of uploads: how files may be sent and named, and what of a name is kept."""

import photographs
import pytest
import requests
from calling import (
    FORM,
    form,
    get,
    named,
    part,
    post,
    post_form,
    problem,
    stored_files,
    upload,
)

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
        (
            "image/jpeg",
            "attachment; filename=\"_.jpg\"; filename*=UTF-8''k%C3%A4tzchen.jpg",
            "kätzchen.jpg",
        ),
        (
            "image/jpeg",
            "attachment; filename=\"a; filename*=UTF-8''b.jpg\"",
            "a; filename*=UTF-8''b.jpg",
        ),
        ("image/jpeg", 'attachment; filename="kätzchen.jpg"'.encode(), "kätzchen.jpg"),
        ("image/jpeg", 'attachment; filename="../../cat.jpg"', "cat.jpg"),
        ("image/jpeg", 'attachment; filename="', "unnamed"),
    ],
)
def test_a_body_may_be_one_image(web, content_type, disposition, name):
    content = photographs.photograph()
    headers = {"Content-Type": content_type, "Content-Disposition": disposition}
    answer = requests.post(f"{web.url}/api/upload", content, headers=headers, timeout=60)
    assert answer.status_code == 201, answer.text
    [one] = answer.json()["data"]
    assert (one["original_filename"], one["content_type"]) == (name, "image/jpeg")
    assert requests.get(one["preview_url"], timeout=60).content == content


def test_a_body_in_chunks_may_be_one_image(service):
    content = photographs.photograph()
    chunks = (content[i : i + 1000] for i in range(0, len(content), 1000))
    assert post(service, chunks, "image/jpeg").status_code == 201


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


def test_a_request_of_unknown_length_is_accepted(service):
    body = form((named(b"cat.jpg"), photographs.photograph()))
    chunks = (body[i : i + 1000] for i in range(0, len(body), 1000))
    assert post(service, chunks, FORM).status_code == 201


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


def test_A12_a_name_in_two_spellings_is_the_one_with_all_letters(web):
    """.NET sends both of them, without quotation marks around the name of the part."""
    header = (
        b'Content-Disposition: form-data; name=files; filename="=?utf-8?B?w6QuanBn?="; '
        b"filename*=utf-8''%C3%A4.jpg"
    )
    answer = post_form(web, (header, photographs.photograph()))
    assert answer.status_code == 201, answer.text
    assert [one["original_filename"] for one in answer.json()["data"]] == ["ä.jpg"]


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
