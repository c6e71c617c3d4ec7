"""`clustr captioner` with a tiny model that is made here: `make test-captioner`.

CAPTIONER_PYTHON is a Python that has the extra `clustr[captioner]`.
"""

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import photographs
import pytest
import requests
from running import Servers, wait_until
from workshop import Workshop

from clustr.supervisor import servers as programs

PYTHON = os.environ["CAPTIONER_PYTHON"]
ENVIRONMENT = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "HOME": "/nonexistent"}
# Reading torch takes half a minute where nothing of it is in memory.
START_SECONDS = 180


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    script = Path(__file__).with_name("tiny_blip.py")
    subprocess.run([PYTHON, script, folder], env=ENVIRONMENT, check=True, timeout=START_SECONDS)
    return folder


@pytest.fixture(scope="module")
def process(model: Path) -> Iterator[subprocess.Popen[str]]:
    command = [PYTHON, "-m", "clustr", "captioner", "--port", "0", "--threads", "1"]
    with subprocess.Popen(
        command,
        env={**ENVIRONMENT, "CAPTIONER_MODEL": str(model)},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as started:
        yield started
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 0


@pytest.fixture(scope="module")
def url(process: subprocess.Popen[str]) -> str:
    """Its address, which it prints once it serves."""
    assert process.stdout
    for line in process.stdout:
        if "serves on" in line:
            return line.partition("serves on ")[2].partition(";")[0]
    raise AssertionError("It ended before it served.")


def post(url: str, content: bytes, part: str = "image") -> requests.Response:
    return requests.post(f"{url}/caption", files={part: ("cat.jpg", content)}, timeout=60)


def test_it_answers_as_the_predecessors_did(url):
    answer = post(url, photographs.photograph())
    assert answer.status_code == 200
    found = answer.json()
    assert found.keys() == {"filename", "caption", "tags", "processing_time"}
    assert found["filename"] == "cat.jpg"
    assert found["caption"]
    assert found["tags"]
    assert set(found["tags"]) <= set(found["caption"].split()) - {"a", "on", "the"}
    assert 0 < found["processing_time"] < 60
    health = requests.get(f"{url}/health", timeout=10).json()
    assert health["status"] == "healthy"
    assert url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("content", "part", "status"),
    [
        (photographs.text(), "image", 422),
        (photographs.truncated(photographs.photograph(), 0.5), "image", 422),
        (photographs.photograph("tif"), "image", 422),
        (photographs.png_bomb(), "image", 422),
        (photographs.photograph(), "picture", 400),
        (bytes(40_000_000), "image", 413),
    ],
)
def test_what_it_cannot_read_is_refused_in_words(url, content, part, status):
    answer = post(url, content, part)
    assert answer.status_code == status
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "content",
    [
        photographs.photograph("png"),
        photographs.photograph("webp"),
        photographs.photograph("jpg", "camera"),
        photographs.palette(),
        photographs.transparent(),
        photographs.oriented(6),
        photographs.one_pixel(),
        photographs.cmyk(),
    ],
)
def test_images_of_all_kinds(url, content):
    assert post(url, content).status_code == 200


def test_images_that_come_together_are_all_captioned(url):
    contents = [photographs.photograph(width=40 + number) for number in range(40)]
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda content: post(url, content), contents))
    assert {answer.status_code for answer in answers} == {200}


def test_an_upload_is_captioned_by_it(url, tmp_path, servers: Servers):
    settings = {"PLUGINS_DISABLED": "", "PLUGINS_ENABLED": "blip", "BLIP_SERVICE_URL": url}
    with Workshop(tmp_path, servers, **settings) as workshop:
        [upload] = workshop.upload()
        workshop.worker()
        wait_until(lambda: workshop.get(upload).caption, 60, "a caption")
        assert workshop.state_of(upload, "blip") == "succeeded"


def test_clustr_up_can_run_it_beside_the_rest(model, tmp_path, servers: Servers):
    port = programs.free_port()
    environment = {
        **ENVIRONMENT,
        "CAPTIONER_MODEL": str(model),
        "MONGODB_URL": servers.mongodb_url,
        "MONGODB_DATABASE": f"captioner-{uuid.uuid4().hex}",
        "REDIS_URL": servers.redis_url,
        "DATA_FOLDER": str(tmp_path / "data"),
        "PORT": str(port),
        "WEB_WORKERS": "1",
        "PLUGINS_ENABLED": "blip",
    }
    command = [PYTHON, "-m", "clustr", "up", "--captioner", "--workers", "1"]
    with (tmp_path / "output").open("w") as output:
        up = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    printed = tmp_path / "output"
    try:
        wait_until(lambda: "Things to try" in printed.read_text(), START_SECONDS, "the greeting")
        assert "No captioner is configured" not in printed.read_text()
        photograph = {"files": ("cat.jpg", photographs.photograph())}
        answer = requests.post(f"{url}/api/upload", files=photograph, timeout=30)
        [upload] = answer.json()["data"]
        path = f"{url}/api/uploads/{upload['id']}"
        wait_until(
            lambda: requests.get(path, timeout=30).json()["caption"], START_SECONDS, "a caption"
        )
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 0


def test_weights_that_are_not_there_are_said_in_one_sentence(tmp_path):
    ended = subprocess.run(
        [PYTHON, "-m", "clustr", "captioner", "--model", str(tmp_path)],
        env=ENVIRONMENT,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert ended.returncode == 2
    assert f"clustr: CAPTIONER_MODEL={tmp_path} cannot be read: " in ended.stderr.splitlines()[-1]
