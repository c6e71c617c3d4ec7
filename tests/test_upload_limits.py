"""Uploads that are refused, with limits so small that both sides of them are cheap to try."""

import photographs
import pytest
from calling import (
    FORM,
    PROBLEM,
    Raw,
    form,
    named,
    part,
    post,
    post_form,
    problem,
    stored_files,
    total,
    upload,
    uploaded,
)
from PIL import Image

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


def padded(size: int) -> bytes:
    """A JPEG of exactly this many bytes."""
    content = photographs.unique("jpg", size)
    return content + bytes(size - len(content))


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


def test_B2_a_file_may_have_just_the_bytes_that_are_allowed(narrow):
    before = stored_files(narrow)
    answer = upload(
        narrow,
        part(bytes(3 * MAX_UPLOAD_SIZE), "far above.jpg"),
        part(padded(MAX_UPLOAD_SIZE - 1), "below.jpg"),
        part(padded(MAX_UPLOAD_SIZE + 1), "above.jpg"),
        part(padded(MAX_UPLOAD_SIZE), "at.jpg"),
    )
    assert answer.status_code == 201, answer.text
    body = answer.json()
    accepted = {one["original_filename"]: one["file_size"] for one in body["data"]}
    assert accepted == {"below.jpg": MAX_UPLOAD_SIZE - 1, "at.jpg": MAX_UPLOAD_SIZE}
    refused = [(one["original_filename"], one["code"]) for one in body["errors"]]
    assert refused == [("far above.jpg", "too_large"), ("above.jpg", "too_large")]
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
