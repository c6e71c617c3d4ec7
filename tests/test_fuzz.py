"""Requests and files that a machine thinks up, and what must hold whatever they are.

In `make test` there are few of them and always the same. `make fuzz` sets FUZZ: so many times as
many, and others each time, and the examples and the boundaries of all values that the OpenAPI
document describes; what fails says from which seed it came.
"""

import hashlib
import itertools
import os
import random
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import odd_images
import photographs
import pytest
import requests
from calling import BOUNDARY, form, get, named, part, post, upload
from fuzzing import FUZZ
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from running import descendants, moment, wait_until

SEED = random.randrange(2**32) if FUZZ else 1
REFUSALS = (413, 415, 422)


def tries(count: int) -> int:
    """How many of what takes long are tried: so many for each unit of FUZZ, few in `make test`."""
    return count * FUZZ if FUZZ else count // 3


@pytest.fixture
def unharmed(web):
    """The processes are the same afterwards, and none has logged a fault."""
    before, said = {each.pid for each in descendants(web.pid)}, len(web.output())
    yield web
    assert {each.pid for each in descendants(web.pid)} == before
    assert "Traceback" not in web.output()[said:]


def test_B8_schemathesis_finds_no_fault(web_with, blip, tmp_path):
    """Requests that fit the document and requests that do not, and chains of them by its links.

    The service is its own, for schemathesis makes requests of what earlier responses had.
    """
    everything = {"DEBUG_ENDPOINTS": "true", "PLUGINS_DISABLED": ""}
    service = web_with(**everything, BLIP_SERVICE_URL=blip.url)
    service.workshop.worker()
    folder = Path(__file__).parent
    config = tmp_path / "schemathesis.toml"
    of_each_operation = f"[phases.fuzzing.generation]\nmax-examples = {30 * FUZZ or 2}\n"
    config.write_text((folder / "schemathesis.toml").read_text() + "\n" + of_each_operation)
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={config}",
            "run",
            f"{service.url}/openapi.json",
            f"--phases={'examples,coverage,' if FUZZ else ''}fuzzing,stateful",
            f"--max-examples={30 * FUZZ or 4}",
            f"--seed={SEED}" if FUZZ else "--generation-deterministic",
            "--continue-on-failure",
            *([] if FUZZ else ["--warnings=off"]),  # A few tries may find nothing that is there.
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=600 * (FUZZ or 1),
    )
    print(ran.stdout, ran.stderr)
    failures = re.search(r"= FAILURES =.*?(?=\n=+ [A-Z ]+ =)", ran.stdout, re.DOTALL)
    assert ran.returncode == 0, failures and failures[0]
    assert "No issues found" in ran.stdout, ran.stdout[-2000:]
    followed = re.search(r"API Links:\s+(\d+) covered", ran.stdout)
    assert followed, ran.stdout[-2000:]
    assert int(followed[1]) >= 6
    # Once what it has uploaded is analyzed.
    wait_until(
        lambda: get(service, "/api/health").json()["status"] == "healthy", 180, "good health"
    )


def test_A2_whatever_becomes_of_an_image_it_gets_an_answer(unharmed):
    contents = odd_images.mutated(SEED)
    accepted = 0
    batches = tries(15)
    for number in range(batches):
        batch = list(itertools.islice(contents, 20))
        answer = upload(unharmed, *map(part, batch))
        where = f"batch {number} of seed {SEED}: {answer.text}"
        assert answer.status_code in (201, *REFUSALS), where
        data = answer.json().get("data", [])
        assert len(data) + len(answer.json()["errors"]) == len(batch), where
        accepted += len(data)
        hashes = {hashlib.sha256(content).hexdigest() for content in batch}
        for one in data[:3]:
            served = requests.get(one["preview_url"], timeout=60).content
            assert hashlib.sha256(served).hexdigest() in hashes, where
    assert accepted > batches  # or nothing but refusals would have been tried


def test_B8_whatever_becomes_of_a_form_it_gets_an_answer(unharmed):
    chance = random.Random(SEED)
    pieces = [b"\r\n", b"--", BOUNDARY.encode(), b'"', b";", b"\0", b"filename*=UTF-8''%", b"\xff"]
    for number in range(tries(100)):
        field = (b'Content-Disposition: form-data; name="note"', b"text")
        file = (named(b"a.png"), photographs.one_pixel())
        body = bytearray(form(*chance.choices([field, file], k=chance.randint(0, 3))))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(body))
            body[at : at + chance.randrange(3)] = chance.choice(pieces) * chance.randint(1, 3)
        answer = post(unharmed, bytes(body), f"multipart/form-data; boundary={BOUNDARY}")
        assert answer.status_code in (201, *REFUSALS), (SEED, number, bytes(body), answer.text)


class File(NamedTuple):
    """A file of a request: a picture by its number, or one that is none and must be refused."""

    number: int
    refused_as: str | None = None

    def content(self, salt: int) -> bytes:
        if self.refused_as:
            return b"" if self.refused_as == "empty" else photographs.text()
        return photographs.unique("png", salt + self.number)


FILES = st.lists(
    st.builds(
        File, st.integers(0, 5), st.sampled_from([None, None, None, "empty", "unsupported_type"])
    ),
    min_size=1,
    max_size=4,
)


class Request(NamedTuple):
    """A request that was answered, and the ids that were new then, by place in the answer."""

    files: tuple[File, ...]
    key: str | None
    reuse: bool
    stored: dict[int, str]


class Uploads(RuleBasedStateMachine):
    """Calls the service, and keeps beside it what it should know by then.

    The service goes on from one run to the next; the pictures and keys of each run are its own.
    """

    service = None
    runs = itertools.count(1)

    def __init__(self):
        super().__init__()
        self.run = next(self.runs)
        self.salt = (SEED % 2**20 + self.run) * 1000
        self.before = get(self.service, "/api/uploads?limit=1").json()["total"]
        self.contents: dict[str, bytes] = {}  # by id, oldest first
        # The ids of the same bytes. Which of them is named as the first is no promise: within a
        # second, ids do not tell which of two was earlier.
        self.same: defaultdict[bytes, list[str]] = defaultdict(list)
        self.requests: list[Request] = []

    def send(self, files, key, reuse) -> requests.Response:
        parts = [part(file.content(self.salt), f"{file.number}.png") for file in files]
        options = {"params": {"duplicates": "reuse" if reuse else "keep"}}
        return upload(
            self.service, *parts, **options, headers={"Idempotency-Key": key} if key else {}
        )

    @rule(files=FILES, keyed=st.booleans(), reuse=st.booleans())
    def upload(self, files, keyed, reuse):
        key = f"{SEED}-{self.run}-{len(self.requests)}" if keyed else None
        answer = self.send(files, key, reuse)
        refused = [file.refused_as for file in files if file.refused_as]
        good = [file.content(self.salt) for file in files if not file.refused_as]
        assert [one["code"] for one in answer.json()["errors"]] == refused
        if not good:
            assert answer.status_code == (422 if refused[0] == "empty" else 415)
            return
        assert answer.status_code == 201
        data = answer.json()["data"]
        stored = {}
        for place, (one, content) in enumerate(zip(data, good, strict=True)):
            if reuse and self.same[content]:
                assert one["id"] in self.same[content]
                continue
            assert one["id"] not in self.contents
            assert one["duplicate_of"] in (self.same[content] or [None])
            stored[place] = one["id"]
            self.contents[one["id"]] = content
            self.same[content].append(one["id"])
        self.requests.append(Request(tuple(files), key, reuse, stored))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def send_again(self, data):
        """What has a key is answered as before; what has none is another upload."""
        request = data.draw(st.sampled_from(self.requests))
        if request.key is None:
            return self.upload(list(request.files), False, request.reuse)
        answer = self.send(request.files, request.key, request.reuse)
        assert answer.status_code == 201
        data = answer.json()["data"]
        assert {place: data[place]["id"] for place in request.stored} == request.stored
        assert {one["id"] for one in data} <= self.contents.keys()
        return None

    @precondition(lambda self: any(each.key and each.stored for each in self.requests))
    @rule(data=st.data(), files=FILES)
    def take_a_key_twice(self, data, files):
        keyed = [each for each in self.requests if each.key and each.stored]
        request = data.draw(st.sampled_from(keyed))
        others = [*files, File(99)]  # which no other request has
        answer = self.send(others, request.key, request.reuse)
        assert answer.status_code == 422
        assert answer.json()["errors"].keys() == {"Idempotency-Key"}

    @precondition(lambda self: self.contents)
    @rule(data=st.data())
    def read(self, data):
        upload_id = data.draw(st.sampled_from(list(self.contents)))
        content = self.contents[upload_id]
        found = get(self.service, f"/api/uploads/{upload_id}").json()
        assert found["sha256"] == hashlib.sha256(content).hexdigest()
        assert found["size"] == len(content)
        assert found["status"] == "processed"
        assert requests.get(found["url"], timeout=60).content == content

    @rule(numbers=st.lists(st.integers(0, 6), min_size=1, max_size=4))
    def ask_what_exists(self, numbers):
        contents = {
            hashlib.sha256(content).hexdigest(): content
            for content in (File(number).content(self.salt) for number in numbers)
        }
        address = f"{self.service.url}/api/uploads/exists"
        answer = requests.post(address, json={"sha256": list(contents)}, timeout=60)
        found = answer.json()["data"]
        assert found.keys() == contents.keys()
        for name, content in contents.items():
            assert found[name] in (self.same[content] or [None])

    @rule(limit=st.integers(1, 7))
    def walk(self, limit):
        found, cursor = [], ""
        while len(found) < len(self.contents):
            page = get(self.service, f"/api/uploads?limit={limit}{cursor}").json()
            assert page["total"] == self.before + len(self.contents)
            assert page["data"]
            found += [(moment(one["upload_time"]), one["id"]) for one in page["data"]]
            cursor = f"&cursor={page['next_cursor']}"
        assert found == sorted(found, reverse=True)
        newest = found[: len(self.contents)]
        assert {upload_id for _, upload_id in newest} == self.contents.keys()

    @rule(number=st.integers(0, 2**96 - 1))
    def ask_for_what_is_not_there(self, number):
        unknown = f"{number:024x}"
        assert get(self.service, f"/api/uploads/{unknown}").status_code == 404
        assert get(self.service, f"/uploads/{unknown}.png").status_code == 404
        assert get(self.service, f"/api/uploads/{unknown}0").status_code == 404


def test_uploads_are_as_a_simple_model_has_them(unharmed):
    Uploads.service = unharmed
    run_state_machine_as_test(
        Uploads,
        settings=settings(
            max_examples=tries(20),
            stateful_step_count=12,
            derandomize=not FUZZ,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
