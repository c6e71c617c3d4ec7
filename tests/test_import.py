"""`clustr import`, against the real service, over a proxy where something is lost."""

import io
import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import photographs
import pytest
import requests
from importing import Import, Proxy, another_picture, counts, head, page
from rich.console import Console
from running import wait_until
from socket_servers import server, silent, with_tls
from web_side import WebSide

from clustr.client.importing import progress
from clustr.client.importing.importer import SENT_FILES
from clustr.client.importing.watching import STILL_SECONDS
from clustr.domain.access import Scope

MAX_FILE_BYTES = 100_000
PHOTOGRAPHS = int(os.environ.get("PHOTOGRAPHS", "300"))


@pytest.fixture(scope="module")
def web(web_with: Callable[..., WebSide]) -> WebSide:
    return web_with(AUTH="keys", MAX_UPLOAD_SIZE=str(MAX_FILE_BYTES))


@pytest.fixture(scope="module")
def make_key(web: WebSide) -> Callable[..., str]:
    return lambda name, *scopes: web.workshop.web.key_making.create(name, scopes).text


@pytest.fixture(scope="module")
def key(make_key: Callable[..., str]) -> str:
    return make_key("importer", Scope.UPLOADS_READ, Scope.UPLOADS_WRITE)


@pytest.fixture
def pictures(web: WebSide, key: str, tmp_path: Path) -> Import:
    return Import(web, tmp_path, key)


@pytest.fixture
def proxy(web: WebSide) -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []

    def make(treat: Callable[[int], bytes | None], *path: str) -> Proxy:
        made.append(Proxy(web.url, treat, *path))
        return made[-1]

    yield make
    for one in made:
        one.close()


def keep(waiting: threading.Event) -> bytes:
    """Keep an answer back, and never give it."""
    waiting.wait(60)
    return b""


def test_what_is_there_is_not_stored_twice(pictures):
    pictures.add_many(20)
    twice = pictures.add("in a folder/copy.png")
    pictures.add("in a folder/and another/»twice«.png", twice.read_bytes())
    ran = pictures.run()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert counts(ran) == {"uploaded": 21, "there already": 1}
    again = pictures.run()
    assert counts(again) == {"there already": 22}
    assert len(pictures.uploads()) == 21
    assert not pictures.has_report()


def test_nothing_is_twice_and_no_word_lost_when_it_is_killed(pictures, proxy, tmp_path):
    """Twice: with uploads on the way that are stored, and whose answers never come.

    `make imports` does so with 3,000 photographs.
    """
    captions = pictures.add_photographs(PHOTOGRAPHS)
    answered, tag = PHOTOGRAPHS // SENT_FILES // 4, tmp_path.name
    stored = [0]
    for _ in range(2):
        waiting = threading.Event()
        between = proxy(lambda number, event=waiting: None if number <= answered else keep(event))
        program = pictures.start("--tag", tag, url=between.url)
        enough = stored[-1] + SENT_FILES * (answered + 1)
        wait_until(lambda enough=enough: pictures.count(tag) >= enough, 120, "uploads")
        program.signal(signal.SIGKILL)
        program.process.wait(60)
        waiting.set()
        stored.append(pictures.count(tag))
    assert stored[-1] < PHOTOGRAPHS
    ran = pictures.run("--tag", tag)
    assert ran.returncode == 0, ran.stderr
    print(f"Killed when {stored[1:]} of {PHOTOGRAPHS:,} files were stored; then:\n{ran.stdout}")
    found = pictures.uploads()
    assert len(found) == pictures.count(tag) == PHOTOGRAPHS
    assert {one["original_name"]: one["caption"] for one in found} == captions
    assert all(one["tags"] == [tag] for one in found)
    assert counts(pictures.run()) == {"there already": PHOTOGRAPHS}


def test_after_ctrl_c_it_says_what_was_done(pictures, proxy):
    connections, answered = 4, 3
    at_once = connections + 2
    pictures.add_many((at_once + 1) * SENT_FILES)
    waiting = threading.Event()
    between = proxy(lambda number: None if number <= answered else keep(waiting))
    program = pictures.start("--connections", str(connections), url=between.url)
    # The first request beyond those at once is made once one before it has ended and is counted.
    wait_until(lambda: between.requests > at_once, 60, "the last request")
    program.signal(signal.SIGINT)
    waiting.set()
    assert program.process.wait(60) == 130
    (count,) = re.findall("^ *([0-9]+) .*uploaded *$", program.output(), re.MULTILINE)
    assert int(count) in {SENT_FILES * number for number in range(1, answered + 1)}
    assert "Traceback" not in program.output()


@pytest.mark.parametrize(
    "instead",
    [
        b"",
        b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n",
        head("503 Too busy", "Retry-After: 0"),
        head("429 Too many requests", "Retry-After: 0"),
        head("502 Bad gateway"),
    ],
)
def test_what_a_network_loses_is_sent_again_and_stored_once(pictures, proxy, instead):
    pictures.add_many(40)
    between = proxy(lambda number: instead if number <= 2 else None)
    ran = pictures.run(url=between.url)
    assert ran.returncode == 0, ran.stderr
    assert counts(ran) == {"uploaded": 40}
    assert between.requests == 5
    assert len(pictures.uploads()) == 40


@pytest.mark.parametrize("path", ["/api/limits", "/api/uploads/exists"])
def test_a_question_at_which_the_service_fails_is_asked_again(pictures, proxy, path):
    pictures.add_many(2)
    failed = head("500 Internal server error")
    ran = pictures.run(url=proxy(lambda number: failed if number == 1 else None, path).url)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert counts(ran) == {"uploaded": 2}


def test_an_import_ends_when_the_service_does_not_say_what_it_has(pictures, proxy):
    pictures.add("one.jpg")
    pictures.add(".hidden.jpg")
    refusing = proxy(lambda number: page("400 Bad request", "No"), "/api/uploads/exists")
    ran = pictures.run(url=refusing.url)
    assert ran.returncode == 2
    assert counts(ran) == {"hidden, left out": 1}
    assert "400 Bad request: No; what is there is there" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert refusing.requests == 1


def test_it_goes_on_when_the_service_was_away(web, pictures, proxy):
    def restart(number: int) -> bytes | None:
        if number == 2:
            web.gunicorn.stop()
            web.start()
            return b""
        return None

    pictures.add_many(60)
    ran = pictures.run("--connections", "1", url=proxy(restart).url)
    assert counts(ran) == {"uploaded": 60}, ran.stderr
    assert len(pictures.uploads()) == 60


def test_a_request_that_is_refused_as_a_whole_is_sent_file_by_file(pictures, proxy):
    pictures.add_many(3)
    between = proxy(lambda number: head("413 Too large") if number == 1 else None)
    assert counts(pictures.run(url=between.url)) == {"there already": 3}
    refusing = proxy(lambda number: head("413 Too large"))
    pictures.add("large.jpg")
    assert counts(pictures.run(url=refusing.url)) == {"there already": 3, "refused: 413": 1}


def test_what_the_key_may_bring_no_more_is_left_for_later(pictures, web):
    pictures.add_many(4)
    for name in ("large.jpg", "larger.jpg"):
        pictures.add(name, another_picture() + bytes(30_000 + len(name)))
    scopes = (Scope.UPLOADS_READ, Scope.UPLOADS_WRITE)
    key = web.workshop.web.key_making.create("thrifty", scopes, bytes_per_day=80_000).text
    headers = {"X-API-Key": key, "Content-Type": "image/jpeg"}
    address = f"{web.url}/api/upload"
    spent = requests.post(address, another_picture() + bytes(50_000), headers=headers, timeout=60)
    assert spent.status_code == 201

    def is_counted() -> bool:
        left = requests.post(address, b"", headers=headers, timeout=60).headers["RateLimit"]
        return int(left.partition(";r=")[2].partition(";")[0]) < 30_000

    wait_until(is_counted, 60, "the count")
    ran = pictures.run(CLUSTR_KEY=key)
    assert ran.returncode == 1, ran.stderr
    assert counts(ran)["uploaded"] == 4
    assert counts(ran)["not sent, for the key may bring no more for now"] == 2
    assert re.search(r"From 20\d\d-\S+ \d\d:\d\d on the key may bring more", ran.stdout)
    assert {*pictures.report()} == {"large.jpg", "larger.jpg"}


def test_what_a_key_may_bring_on_no_day_is_refused(pictures, web):
    pictures.add("small.jpg")
    pictures.add("large.jpg", another_picture() + bytes(50_000))
    scopes = (Scope.UPLOADS_READ, Scope.UPLOADS_WRITE)
    key = web.workshop.web.key_making.create("frugal", scopes, bytes_per_day=40_000).text
    ran = pictures.run(CLUSTR_KEY=key)
    assert counts(ran)["refused: larger_than_quota"] == 1
    assert [*pictures.report()] == ["large.jpg"]


def test_of_the_page_of_a_proxy_only_the_title_is_shown(pictures, proxy):
    pictures.add("one.jpg")
    forbidding = proxy(lambda number: page("403 Forbidden", "Go &amp; away"))
    ran = pictures.run(url=forbidding.url)
    assert ran.returncode == 2
    assert "403 Forbidden: Go & away\n" in ran.stderr
    assert "goes on from here" not in ran.stderr  # It would be refused again.


def test_a_certificate_that_is_not_trusted_is_named(pictures, certificate):
    with server(with_tls(silent, certificate)) as secured:
        ran = pictures.run(url=secured.url.replace("http:", "https:"))
    assert ran.returncode == 2
    assert "is not trusted (self-signed certificate)" in ran.stderr
    assert "REQUESTS_CA_BUNDLE" in ran.stderr


def test_a_key_is_sent_to_no_service_of_somebody_else(web, pictures, key, tmp_path):
    port = str(urlsplit(web.url).port)
    environment = {"XDG_STATE_HOME": str(tmp_path / "state"), "PORT": port}
    folder = str(pictures.folder)
    ran = web.workshop.command("import", folder, CLUSTR_KEY=key, **environment)
    assert ran.returncode == 2
    assert f"say with --url where the service is (http://127.0.0.1:{port}?)" in ran.stderr


def test_a_file_that_changes_on_the_way_is_listed_and_the_others_are_sent(pictures, proxy):
    pictures.add_many(40)
    changed = []

    def change(number: int) -> None:
        if number == 1:
            stored = {one["original_name"] for one in pictures.uploads()}
            changed.append(next(p for p in pictures.folder.iterdir() if p.name not in stored))
            changed[0].write_bytes(another_picture() + bytes(10_000))

    ran = pictures.run("--connections", "1", url=proxy(change).url)
    assert ran.returncode == 1
    assert counts(ran) == {"uploaded": 39, "cannot be read": 1}
    assert "import it once more" in pictures.report()[changed[0].name][1]
    assert counts(pictures.run()) == {"there already": 39, "uploaded": 1}


def test_refused_files_are_listed_with_the_reason(pictures):
    pictures.add("good.jpg")
    pictures.add("text.png", photographs.text())
    pictures.add("half.jpg", photographs.truncated(another_picture(), 0.5))
    pictures.add("empty.webp", b"")
    pictures.add("large.bmp", bytes(MAX_FILE_BYTES + 1))
    pictures.add("raw.nef", b"II*\0" + bytes(100))
    pictures.add("notes.txt", "no picture")
    pictures.add("a picture", another_picture())
    ran = pictures.run()
    assert ran.returncode == 1
    refusals = pictures.report()
    raw_code = refusals.pop("raw.nef")[0]
    assert {name: code for name, (code, _) in refusals.items()} == {
        "text.png": "unsupported_type",
        "half.jpg": "undecodable",
        "empty.webp": "empty",
        "large.bmp": "too_large",
    }
    assert all(detail.endswith(".") for _, detail in refusals.values())
    found = counts(ran)
    assert found.pop("other files, left out") == 1
    assert found.pop("uploaded") == 2
    assert sum(found.values()) == 5
    assert f"refused: {raw_code}" in found
    assert "Which and why: " in ran.stdout


def test_links_and_what_is_hidden_are_left_out(pictures, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(another_picture())
    pictures.add("inside.jpg")
    for name, target in (("out", outside), ("out.jpg", outside / "secret.jpg")):
        (pictures.folder / name).symlink_to(target)
    (pictures.folder / "round").symlink_to(pictures.folder)
    pictures.add(".hidden/one.jpg")
    pictures.add("@eaDir/one.jpg")
    ran = pictures.run()
    assert ran.returncode == 0
    assert counts(ran) == {
        "uploaded": 1,
        "links that lead out of the folder, not followed": 2,
        "hidden, left out": 1,
        "system folders, left out": 1,
    }


def test_a_dry_run_sends_nothing(pictures):
    pictures.add("one.jpg")
    pictures.run()
    pictures.add("two.jpg")
    ran = pictures.run("--dry-run")
    assert counts(ran) == {"would be uploaded": 1, "there already": 1}
    assert [one["original_name"] for one in pictures.uploads()] == ["one.jpg"]


def test_words_are_those_of_new_pictures_alone(pictures, web):
    pictures.add("2024/Rome/forum.jpg")
    pictures.run("--tag", "holiday", "--tags-from-folders")
    assert pictures.upload("2024/Rome/forum.jpg")["tags"] == ["holiday", "2024", "Rome"]
    web.workshop.collection.update_one(
        {"original_name": "forum.jpg"}, {"$set": {"caption": "a person's words"}}
    )
    before = pictures.upload("2024/Rome/forum.jpg")
    assert counts(pictures.run("--tag", "other")) == {"there already": 1}
    assert pictures.upload("2024/Rome/forum.jpg") == before


def test_files_that_were_hashed_are_not_read_again(pictures):
    """A file that cannot be what it was shows it: only its hash, which is remembered, fits."""
    path = pictures.add("known.jpg")
    long_ago = (1_700_000_000, 1_700_000_000)
    content = path.read_bytes()

    def replace(new: bytes) -> None:
        path.write_bytes(new)
        os.utime(path, long_ago)

    replace(content)
    pictures.run()
    replace(bytes(len(content)))
    assert counts(pictures.run()) == {"there already": 1}


def grow(pictures: Import, number: int) -> bool:
    """Have a file grow until another, which stands still, is sent; whether it never stood still."""
    still = pictures.add(f"still-{number}.jpg").name
    growing = pictures.add(f"growing-{number}.jpg")
    written_at = [time.monotonic()]

    def is_other_sent() -> bool:
        with growing.open("ab") as file:
            file.write(b"more")
        written_at.append(time.monotonic())
        return still in {one["original_name"] for one in pictures.uploads()}

    wait_until(is_other_sent, 60, "the file that stands still")
    return max(b - a for a, b in pairwise(written_at)) < STILL_SECONDS


def test_a_watch_waits_for_a_file_that_grows(pictures):
    program = pictures.start("--watch", "--tag", "seen")
    # A busy machine may keep the file from growing for so long that it may be sent.
    tries = next(number for number in range(1, 10) if grow(pictures, number))
    pictures.add("later.jpg")
    files = 2 * tries + 1
    wait_until(lambda: len(pictures.uploads()) == files, 60, "the files that came and grew later")
    program.signal(signal.SIGINT)
    assert program.process.wait(60) == 130
    assert re.search(r"\d .* uploaded", program.output())  # The last answers may not be there yet.
    assert all(one["tags"] == ["seen"] for one in pictures.uploads())
    name = {"original_name": f"growing-{tries}.jpg"}
    assert pictures.web.workshop.collection.count_documents(name) == 1


@pytest.mark.parametrize(
    ("scopes", "said"),
    [
        (None, "the service asks for a key"),
        ([Scope.UPLOADS_READ], "lacks the scope uploads:write"),
        ([Scope.UPLOADS_WRITE], "lacks the scope uploads:read"),
        ([Scope.ADMIN], "lacks what an import needs"),
    ],
)
def test_without_the_right_key_it_says_what_to_do(pictures, make_key, scopes, said):
    pictures.add("one.jpg")
    key = make_key(f"key-{len(scopes)}-{scopes[0][-3]}", *scopes) if scopes else ""
    ran = pictures.run(CLUSTR_KEY=key)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "give one with the scopes uploads:read and uploads:write as CLUSTR_KEY" in ran.stderr


@pytest.mark.parametrize("is_terminal", [True, False])
def test_it_shows_how_far_it_is(is_terminal, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=120)
    with progress.make_progress(console) as shown:
        shown.expect(1500, 3_000_000)
        shown.add_bytes(2_000_000)
        shown.add_bytes(-500_000)
        shown.add_files(1200)
    assert "1,200 of 1,500" in output.getvalue()
    assert "1.5 MB of 3.0 MB" in output.getvalue()
    assert "/s" in output.getvalue()
    assert ("files" in output.getvalue()) and ("━" in output.getvalue()) == is_terminal


def test_a_service_that_is_not_there_is_named(pictures):
    pictures.add("one.jpg")
    ran = pictures.run(url="http://127.0.0.1:9")
    assert ran.returncode == 2
    assert "no service answers at http://127.0.0.1:9" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_page_of_the_import_is_so(web, key, tmp_path):
    """Each command of the page is run in a folder with pictures, and prints what is below it."""
    page = (Path(__file__).parent.parent / "docs/import.md").read_text()
    example = Import(web, tmp_path, key)
    for name in ("2024/Italy/forum.jpg", "2024/Italy/sea.jpg", "cat.png"):
        example.add(name)
    example.add("2024/broken.jpg", photographs.truncated(another_picture(), 0.5))
    example.add(".trash/old.jpg")
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^\$ clustr (.*)\n((?:[^$].*\n)*)", "".join(blocks), re.MULTILINE)
    assert len(commands) >= 3
    environment = {"CLUSTR_KEY": key, "XDG_CACHE_HOME": str(tmp_path)}
    for command, printed in commands:
        arguments = [a.replace("Pictures", str(example.folder)) for a in shlex.split(command)]
        ran = web.workshop.command(*arguments, "--url", web.url, **environment)
        assert plain(ran.stdout) == plain(printed), command


def plain(text: str) -> list[str]:
    """The lines of an output, without sizes and times."""
    without = re.sub(r"\d+(\.\d+)? ([kM]?B|bytes)\b", "", re.sub(r"\d{8}-\d{6}", "", text))
    return [" ".join(line.split()) for line in without.splitlines()]
