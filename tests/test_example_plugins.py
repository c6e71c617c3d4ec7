"""The examples of the documentation, each installed from its own folder and run."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import photographs
import PIL.Image
import PIL.ImageFilter
import pytest
from fork_server import run_program
from plugin_projects import lay_down
from running import Servers, wait_until
from test_plugins_new import passes_its_tests
from workshop import Workshop

EXAMPLES = Path(__file__).parent.parent / "docs/plugins/examples"
QUICK = [photographs.photograph(width=100 + n) for n in range(7)]


def install(name: str, folder: Path) -> tuple[Path, Path]:
    """Copy an example and install it from there; the folders of the copy and of its code."""
    project = folder / name
    shutil.copytree(EXAMPLES / name, project)
    return project, lay_down(project, name)


@pytest.mark.parametrize("name", ["sharpness", "objects"])
def test_an_example_passes_its_own_tests(name, tmp_path):
    project, source = install(name, tmp_path)
    passes_its_tests(project, str(source))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(source)}
    service = {"CLUSTR_PLUGIN__OBJECTS__SERVICE_URL": "http://127.0.0.1:9"}
    checked = run_program(
        ["-m", "clustr", "plugins", "check", name], environment | service, project
    )
    assert checked.returncode == 0, checked.stdout
    assert f"{name}: fine" in checked.stdout


@pytest.fixture
def installed(
    servers: Servers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Workshop]:
    """An installation with the example of this name."""
    _, source = install(request.param, tmp_path)
    monkeypatch.syspath_prepend(str(source))
    with Workshop(tmp_path, servers, PYTHONPATH=str(source)) as workshop:
        yield workshop


def found(workshop: Workshop, **query: Any) -> set[str]:
    answer = workshop.app.test_client().get("/api/uploads", query_string=query)
    assert answer.status_code == 200, answer.text
    return {upload["id"] for upload in answer.get_json()["data"]}


@pytest.mark.parametrize("installed", ["sharpness"], indirect=True)
def test_sharp_uploads_are_found_by_a_filter_with_a_name(installed):
    sharp = PIL.Image.effect_noise((200, 200), 90)
    blurred = sharp.filter(PIL.ImageFilter.GaussianBlur(4))
    sharp_id, blurred_id = installed.upload(
        *(photographs.encode(each.convert("RGB"), "png") for each in (sharp, blurred))
    )
    assert installed.horse("sharpness", "run").process.wait(60) == 0
    score = installed.analysis(sharp_id, "sharpness").result["score"]
    assert score > 0.1 > installed.analysis(blurred_id, "sharpness").result["score"]
    assert found(installed, min_sharpness=0.1) == {sharp_id}
    assert found(installed, max_sharpness=0.1) == {blurred_id}
    assert found(installed, min_sharpness=0, max_sharpness=9) == {sharp_id, blurred_id}


class Detector(ThreadingHTTPServer):
    """A service of object detection that hangs at one image until it is let go."""

    def __init__(self, hangs_at: bytes):
        super().__init__(("127.0.0.1", 0), DetectorHandler)
        self.hangs_at = hangs_at
        self.hanging = threading.Event()
        self.released = threading.Event()
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()


class DetectorHandler(BaseHTTPRequestHandler):
    server: Detector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        with server.lock:
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        if server.hangs_at in body:
            server.hanging.set()
            server.released.wait(60)
            objects = [("dog", 0.98)]
        else:
            server.hanging.wait(60)
            objects = [("car", 0.967), ("dog", 0.74)]
        found = [{"label": label, "score": s, "box": [0, 0, 1, 1]} for label, s in objects]
        with server.lock:
            server.under_way -= 1
        self._answer({"objects": found})

    def do_GET(self) -> None:
        self._answer({"status": "healthy"})

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write nothing to the output of the tests."""


@pytest.fixture
def detector() -> Iterator[Detector]:
    with Detector(hangs_at=photographs.photograph("jpg", "rocket")[2000:2100]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.mark.parametrize("installed", ["objects"], indirect=True)
def test_one_call_of_eight_hangs_and_a_dog_is_found_surely(installed, detector):
    address = f"http://127.0.0.1:{detector.server_port}"
    installed.environment["CLUSTR_PLUGIN__OBJECTS__SERVICE_URL"] = address
    slow, *others = installed.upload(photographs.photograph("jpg", "rocket"), *QUICK)
    installed.worker("--queues", "http")
    for upload_id in others:
        assert installed.end_of(upload_id, "objects").state == "succeeded"
    assert installed.state_of(slow, "objects") == "running"
    assert detector.most_under_way > 1
    assert found(installed, objects="dog") == {*others}
    assert found(installed, objects="dog,score>=0.9") == set()
    detector.released.set()
    wait_until(lambda: installed.state_of(slow, "objects") == "succeeded", 60, "the last answer")
    assert found(installed, objects="dog,score>=0.9") == {slow}
    assert found(installed, objects=["dog", "car"]) == {*others}
