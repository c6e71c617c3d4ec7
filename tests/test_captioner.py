"""The server of `clustr captioner` without its model, which `make test-captioner` tests."""

import errno
import io
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import photographs
import PIL.Image
import pytest
import requests
from flask import Flask, Request
from running import wait_until
from werkzeug.test import TestResponse

from clustr.analysis.limits import MemoryLimit
from clustr.captioner.batches import BATCH_SIZE, MAX_WAITING, Batches, Busy
from clustr.captioner.model import Model
from clustr.captioner.server import Server, create_app
from clustr.captioner.tags import tags_of
from clustr.domain.errors import StartUpError

IMAGE = PIL.Image.new("RGB", (8, 8))


class SlowModel:
    """One that answers when it is told to, and remembers what came together."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun = threading.Event()
        self.released = threading.Event()

    def caption(self, images: list[PIL.Image.Image]) -> list[str]:
        self.sizes.append(len(images))
        self.begun.set()
        assert self.released.wait(30)
        return [f"a picture of {image.width} by {image.height}" for image in images]


def test_images_that_come_together_are_captioned_together_and_no_more_wait_than_may():
    model = SlowModel()
    batches = Batches(model.caption)
    with ThreadPoolExecutor(MAX_WAITING + 1) as threads:
        first = threads.submit(batches.caption, IMAGE)
        assert model.begun.wait(30)
        others = [threads.submit(batches.caption, IMAGE) for _ in range(MAX_WAITING)]
        wait_until(batches.is_full, 60, "as many as may wait")
        with pytest.raises(Busy):
            batches.caption(IMAGE)
        model.released.set()
        assert {one.result(30) for one in [first, *others]} == {"a picture of 8 by 8"}
    assert model.sizes == [1] + [BATCH_SIZE] * (MAX_WAITING // BATCH_SIZE)


def test_a_model_that_fails_fails_for_those_alone_whom_it_captioned():
    said = iter([ValueError("out of memory"), ["a cat"]])

    def caption(_images: list[PIL.Image.Image]) -> list[str]:
        answer = next(said)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    batches = Batches(caption)
    with pytest.raises(ValueError, match="out of memory"):
        batches.caption(IMAGE)
    assert batches.caption(IMAGE) == "a cat"


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)  # put back afterwards
    model = SlowModel()
    model.released.set()
    server = Server("127.0.0.1", 0, create_app(Batches(model.caption), "slow"))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_its_answers(url):
    assert requests.get(f"{url}/health", timeout=10).json() == {
        "status": "healthy",
        "model": "slow",
    }
    files = {"image": ("cat.jpg", photographs.oriented(6))}
    answer = requests.post(f"{url}/caption", files=files, timeout=10).json()
    assert answer.pop("processing_time") >= 0
    assert answer == {
        "filename": "cat.jpg",
        "caption": "a picture of 160 by 106",
        "tags": ["picture", "160", "106"],
    }
    for content, part, status in (
        (photographs.text(), "image", 422),
        (photographs.png_bomb(), "image", 422),
        (photographs.photograph(), "picture", 400),
    ):
        refused = requests.post(f"{url}/caption", files={part: content}, timeout=10)
        assert refused.status_code == status
        assert refused.json()["detail"]


class UnreadableFile(io.BytesIO):
    """A file on a disk that is broken."""

    def read(self, _size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


class OnABrokenDisk(Request):
    """A request whose files are written to a broken disk."""

    def _get_file_stream(self, *_: object, **__: object) -> UnreadableFile:
        return UnreadableFile()


def out_of_memory(_images: object) -> list[str]:
    raise MemoryError("the model has no room")


def broken_model(_images: object) -> list[str]:
    raise ValueError("the model is broken")


@pytest.fixture
def app_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Flask]:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)  # put back afterwards
    return lambda caption=lambda images: ["a cat"] * len(images): create_app(
        Batches(caption), "any"
    )


def posted(app: Flask, content: bytes) -> TestResponse:
    return app.test_client().post("/caption", data={"image": (io.BytesIO(content), "cat.jpg")})


def test_an_image_that_cannot_be_read_is_refused_and_the_log_says_why(app_of, caplog):
    broken = photographs.truncated(photographs.photograph(), 0.5)
    assert posted(app_of(), broken).status_code == 422
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "'cat.jpg' cannot be read: OSError: image file is truncated" in record.getMessage()


def test_without_memory_it_asks_for_the_image_again_and_the_log_says_why(app_of, caplog):
    app = app_of()
    file = io.BytesIO()
    PIL.Image.new("L", (8000, 5000)).save(file, "PNG")
    with MemoryLimit(32):
        answer = posted(app, file.getvalue())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "memory" in answer.json["detail"]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info[0] is MemoryError
    assert posted(app, photographs.photograph()).json["caption"] == "a cat"


def test_a_model_without_memory_asks_for_the_image_again(app_of, caplog):
    answer = posted(app_of(out_of_memory), photographs.photograph())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "the model has no room" in caplog.text


@pytest.mark.parametrize(
    ("caption", "request_class", "reason"),
    [
        (lambda images: ["a cat"] * len(images), OnABrokenDisk, "Input/output error"),
        (broken_model, Request, "the model is broken"),
    ],
)
def test_a_fault_of_its_own_is_500_and_the_log_says_why(
    app_of, caplog, caption, request_class, reason
):
    app = app_of(caption)
    app.request_class = request_class
    answer = posted(app, photographs.photograph())
    assert answer.status_code == 500
    assert answer.json["detail"]
    assert reason not in answer.text
    assert reason in caplog.text


def test_tags_are_the_words_that_mean_something_in_order():
    assert tags_of("two dogs on a beach with a red ball and a dog's toy") == [
        "two",
        "dogs",
        "beach",
        "red",
        "ball",
        "dog's",
        "toy",
    ]
    assert tags_of("A cat, the Cat!") == ["cat"]
    assert tags_of("") == []


@pytest.mark.skipif(find_spec("torch") is not None, reason="its packages are installed")
def test_without_its_packages_it_says_what_to_install():
    with pytest.raises(StartUpError, match=r"is not installed: pip install 'clustr\[captioner\]'"):
        Model("a-model", 1)
