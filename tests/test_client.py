"""The client for Python programs, against the real service."""

import doctest
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import photographs
import pytest
import requests
from blip_stand_in import BlipStandIn
from running import Up
from socket_servers import Server
from werkzeug.serving import make_server

import clustr.client
from clustr.api.http.request_context import EXTENSION
from clustr.api.schemas.accepted_files import AcceptedFileSchema
from clustr.api.schemas.analyses import AnalysisSchema
from clustr.api.schemas.uploads import UploadSchema
from clustr.client import (
    AcceptedFile,
    Analysis,
    ApiError,
    Client,
    NoCaptioner,
    NoResult,
    Upload,
    generate_caption_and_update_db,
    get_image_caption,
    get_image_caption_and_tags,
    get_image_tags,
)

PAGE = (Path(__file__).parent.parent / "docs/client.md").read_text()


@pytest.fixture(scope="module")
def service(service_with: Callable[..., Up], blip: BlipStandIn) -> Up:
    return service_with(BLIP_SERVICE_URL=blip.url, WEB_WORKERS="1")


@pytest.fixture
def client(service: Up) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture
def captioned(client: Client, tmp_path: Path) -> str:
    """The id of an upload that has a caption."""
    upload_id = client.upload(picture(tmp_path))["id"]
    client.wait(upload_id)
    return upload_id


_pictures = iter(range(10_000))


def test_it_comes_with_its_key(app_with, tmp_path, monkeypatch):
    app = app_with(AUTH="keys")
    text = app.extensions[EXTENSION].key_making.create("it", ["uploads:read", "uploads:write"]).text
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.port}"
    try:
        with Client(url) as stranger, pytest.raises(ApiError) as refused:
            stranger.get("692192f4e13f5a0c4d1b7a90")
        assert (refused.value.status, refused.value.code) == (401, "key_required")
        with Client(url, key=text) as client:
            uploaded = client.upload(picture(tmp_path))
        monkeypatch.setenv("CLUSTR_KEY", text)
        with Client(url) as client:
            assert client.get(uploaded["id"])["id"] == uploaded["id"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def picture(folder: Path, name: str = "cat.jpg") -> Path:
    """A picture of its own."""
    path = folder / name
    path.write_bytes(photographs.photograph(width=100 + next(_pictures)))
    return path


@pytest.mark.parametrize(
    ("shape", "schema"),
    [
        (Upload, UploadSchema),
        (Analysis, AnalysisSchema),
        (AcceptedFile, AcceptedFileSchema),
    ],
)
def test_shapes_have_the_fields_of_answers(shape: Any, schema: Any) -> None:
    assert set(shape.__annotations__) == set(schema().fields)


def test_everything_public_is_on_the_page() -> None:
    said = set(re.findall(r"\w+", PAGE))
    types = {"AcceptedFile", "Analysis", "CaptionAndTags", "Dimensions", "Upload"}
    assert not set(clustr.client.__all__) - types - said
    methods = {name for name in vars(Client) if not name.startswith("_")}
    assert methods - {"captioner"} <= said


def test_the_page_of_the_client_is_so(service, blip, tmp_path, monkeypatch) -> None:
    """Run as a reader does, in a folder with a picture."""
    monkeypatch.setattr(blip, "answer", {"caption": "a tabby on a sofa", "tags": ["tabby", "sofa"]})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BASE_URL", service.url)
    (tmp_path / "cat.jpg").write_bytes(photographs.photograph(width=64))
    blocks = re.findall(r"^```pycon\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    text = "\n".join(blocks).replace("http://127.0.0.1:5000", service.url)
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(text, {}, "client.md", None, 0)
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


def test_words_that_are_missing_are_made_and_those_that_are_there_are_answered(
    client, blip, tmp_path
):
    path = picture(tmp_path)
    upload_id = client.upload(path)["id"]
    both = client.caption_and_tags(upload_id)
    assert both["caption"]
    assert both["tags"]
    asked = captions_of(path, blip)
    assert client.caption(upload_id) == both["caption"]
    assert client.tags(upload_id) == both["tags"]
    assert captions_of(path, blip) == asked


def captions_of(picture: Path, blip: BlipStandIn) -> int:
    """How often the captioner was asked for a caption of this picture."""
    content = picture.read_bytes()
    return sum(received.content == content for received in blip.requests)


def test_the_functions_of_the_predecessor(service, captioned, blip, monkeypatch, tmp_path):
    monkeypatch.setenv("BASE_URL", service.url)
    path = tmp_path / "cat.jpg"
    asked = captions_of(path, blip)
    assert asked
    both = get_image_caption_and_tags(captioned)
    assert get_image_caption(captioned) == both["caption"]
    assert get_image_tags(captioned) == both["tags"]
    assert captions_of(path, blip) == asked
    assert generate_caption_and_update_db(captioned, "ignored.jpg") == both
    assert captions_of(path, blip) == asked + 1


def test_a_caption_that_cannot_be_made_says_why(client, blip, tmp_path, monkeypatch):
    monkeypatch.setattr(blip, "answer_status", 422)
    monkeypatch.setattr(blip, "answer", {"detail": "no picture of a cat"})
    upload_id = client.upload(picture(tmp_path))["id"]
    for words in (client.caption, client.tags, client.caption_and_tags):
        with pytest.raises(
            NoResult, match=r"blip has no result, its analysis is failed: "
        ) as raised:
            words(upload_id)
        assert raised.value.analysis["status"] == "failed"


def test_a_service_without_a_captioner_says_so(web, tmp_path):
    with Client(web.url) as client:
        upload_id = client.upload(picture(tmp_path))["id"]
        with pytest.raises(NoCaptioner):
            client.caption(upload_id)


def test_a_file_is_sent_as_a_stream_and_tells_how_far_it_is(client, service, tmp_path):
    path = picture(tmp_path, "Straße »1«.jpg")
    path.write_bytes(path.read_bytes() + bytes(1_000_000))
    progress: list[tuple[int, int]] = []
    uploaded = client.upload(path, on_progress=lambda *each: progress.append(each))
    assert uploaded["original_filename"] == "Straße »1«.jpg"
    size = path.stat().st_size
    assert uploaded["file_size"] == size
    assert progress[-1] == (size, size)
    assert len(progress) > 10
    assert [sent for sent, _ in progress] == sorted({sent for sent, _ in progress})
    with path.open("rb") as opened:
        again = client.upload(opened, "other.jpg")
    assert (again["original_filename"], again["duplicate_of"]) == ("other.jpg", uploaded["id"])


def test_a_file_that_is_refused_says_why(client, tmp_path):
    path = tmp_path / "notes.pdf"
    path.write_bytes(b"%PDF-1.7")
    with pytest.raises(ApiError) as raised:
        client.upload(path)
    error = raised.value
    assert (error.status, error.code) == (415, "unsupported_type")
    assert error.errors[0]["original_filename"] == "notes.pdf"
    assert error.request_id


def test_all_pages_are_walked_through(web, tmp_path):
    with Client(web.url) as client:
        name = f"walked-{next(_pictures)}.jpg"
        ids = [client.upload(picture(tmp_path), name)["id"] for _ in range(5)]
        found = [upload["id"] for upload in client.uploads(limit=2) if upload["id"] in ids]
        assert found == ids[::-1]
        with pytest.raises(ApiError, match="nowhere"):
            next(client.uploads(nowhere=1))


class Between(Server):
    """A proxy in front of a service, which treats the first requests badly.

    Args:
        badly: how many.
        says: what it answers to them, once the service has answered; None to pass that on.
        drops: the header that it drops from them.
    """

    def __init__(self, url: str, badly: int, says: bytes | None = None, drops: bytes = b"nothing"):
        super().__init__(_forward)
        address = urlsplit(url)
        self.service = (address.hostname, address.port)
        self.badly, self.says, self.drops = badly, says, drops


def _forward(server: Any, connection: socket.socket) -> None:
    server.read_request(connection)
    is_bad = len(server.received) <= server.badly
    request = re.sub(rb"(?i)\r\nConnection: [^\r]*", b"", server.received[-1])
    request = request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)  # so that it has an end
    if is_bad:
        request = re.sub(rb"\r\n" + server.drops + rb": [^\r]*", b"", request)
    with socket.create_connection(server.service, timeout=30) as onward:
        onward.sendall(request)
        answer = b"".join(iter(lambda: onward.recv(65536), b""))
    connection.sendall(server.says if is_bad and server.says is not None else answer)


def head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    "says",
    [
        b"",
        head("201 Created", "Content-Length: 100"),
        head("502 Bad Gateway", "Content-Length: 0"),
        head("503 Busy", "Retry-After: 0", "Content-Length: 0"),
    ],
)
def test_an_upload_whose_answer_is_lost_is_sent_again_and_stored_once(web, tmp_path, says):
    path = picture(tmp_path, f"sent-{next(_pictures)}.jpg")
    server = Between(web.url, badly=2, says=says)
    with Client(server.url) as client:
        uploaded = client.upload(path)
    server.close()
    assert len(server.received) == 3
    with Client(web.url) as client:
        named = [one["id"] for one in client.uploads() if one["original_name"] == path.name]
    assert named == [uploaded["id"]]


@pytest.mark.parametrize("status", ["301 Moved Permanently", "308 Permanent Redirect"])
def test_an_address_that_leads_elsewhere_is_named(web, tmp_path, status):
    where = f"{web.url}/api/upload"
    server = Between(web.url, badly=1, says=head(status, f"Location: {where}", "Content-Length: 0"))
    with Client(server.url) as client, pytest.raises(ApiError, match=f"leads to {where}"):
        client.upload(picture(tmp_path))
    server.close()
    assert len(server.received) == 1


def test_an_order_that_a_redirect_makes_a_question_is_refused(service, client, tmp_path):
    upload_id = client.upload(picture(tmp_path))["id"]
    where = f"{service.url}/api/uploads/{upload_id}/analyses/phash"
    moved = head("301 Moved Permanently", f"Location: {where}", "Content-Length: 0")
    server = Between(service.url, badly=1, says=moved)
    with Client(server.url) as misled, pytest.raises(ApiError, match=f"leads to {where}"):
        misled.analyze(upload_id, "phash")
    server.close()


def test_a_file_of_any_name_can_be_sent(web, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    path.write_bytes(photographs.photograph())
    with Client(web.url) as client:
        assert client.upload(path)["original_filename"] == "caf?.jpg"


def test_what_would_be_done_twice_is_not_sent_again(service, captioned):
    server = Between(service.url, badly=1, says=b"")
    with Client(server.url) as client, pytest.raises(requests.ConnectionError):
        client.analyze(captioned, "exif", seconds=0)
    server.close()
    assert len(server.received) == 1


def test_who_finds_no_place_to_wait_asks_again(service, captioned):
    """Without the preference, the service answers as it does while its places are taken."""
    server = Between(service.url, badly=1, drops=b"Prefer")
    with Client(server.url) as client:
        assert client.analyze(captioned, "exif")["status"] == "succeeded"
    server.close()
    assert len(server.received) == 2
