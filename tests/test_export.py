"""`clustr export`, against the real service, and what `clustr import` reads of it again."""

import json
import re
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import places
import pytest
import requests
from importing import Import, Proxy, another_picture, counts
from running import wait_until
from socket_servers import answering, server, silent
from web_side import WebSide
from workshop import Program

from clustr.client import Client
from clustr.client.exporting import Exporter, Outcome, words_of
from clustr.client.importing.words import Words
from clustr.client.importing.xmp import is_own, read_xmp, write_xmp
from clustr.domain.access import Scope

WORDS = ("caption", "tags", "taken_at", "taken_at_local")


@pytest.fixture(scope="module")
def web(web_with: Callable[..., WebSide]) -> WebSide:
    return web_with(AUTH="keys", FILES_METADATA="strip")


class Export:
    """A folder, and exports into it of what has the tag of the test.

    Attributes:
        tag: that every upload of the test has.
    """

    def __init__(self, web: WebSide, place: Path):
        self.web = web
        self.tag = place.name
        self.folder = place / "exported"
        self.key = self.make_key("all", Scope.FILES_READ)

    def make_key(self, name: str, *more: Scope) -> str:
        scopes = (Scope.UPLOADS_READ, Scope.UPLOADS_WRITE, *more)
        key: str = self.web.workshop.web.key_making.create(f"{self.tag}-{name}", scopes).text
        return key

    def add(self, name: str, content: bytes | None = None, **words: Any) -> str:
        """Upload a file with words; the id."""
        said = {**words, "tags": {"add": [self.tag, *words.get("tags", [])]}}
        answer = requests.post(
            f"{self.web.url}/api/upload",
            headers={"X-API-Key": self.key},
            data={"metadata": json.dumps([said])},
            files={"files": (name, content or another_picture())},
            timeout=60,
        )
        assert answer.status_code == 201, answer.text
        upload_id: str = answer.json()["data"][0]["id"]
        return upload_id

    def arguments(self, *more: str, url: str | None = None) -> list[str]:
        tag = f"tag={self.tag}"
        return ["export", str(self.folder), "--url", url or self.web.url, "--filter", tag, *more]

    def run(self, *more: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
        arguments = self.arguments(*more, url=url)
        return self.web.workshop.command(*arguments, CLUSTR_KEY=self.key)

    def start(self, url: str) -> Program:
        """Begin to export."""
        command = ["-m", "clustr", *self.arguments(url=url)]
        return self.web.workshop.run(*command, CLUSTR_KEY=self.key)

    def client(self) -> Client:
        return Client(self.web.url, key=self.key)

    def files(self) -> set[str]:
        """All files that are there, but for sidecars."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(p.relative_to(self.folder)) for p in found if p.suffix != ".xmp"}


class CutOff(Proxy):
    """A proxy that cuts originals off in their middle.

    Args:
        is_cut: whether to do so with an original, by its number from 1.
        then: called before the connection is closed.
    """

    def __init__(self, url: str, is_cut: Callable[[int], bool], then: Callable[[], object]):
        self._is_cut = is_cut
        self._then = then
        self._originals = 0
        super().__init__(url, lambda _: None)

    def reply(self, connection: socket.socket, begin: bytes, answer: bytes) -> None:
        if b"/file HTTP/" in begin:
            with self._counting:
                number = self._originals = self._originals + 1
            if self._is_cut(number):
                connection.sendall(answer[: len(answer) // 2])
                self._then()
                return
        connection.sendall(answer)


def large_picture() -> bytes:
    """A picture that comes in several pieces."""
    return another_picture() + bytes(1_000_000)


@pytest.fixture
def exported(web: WebSide, tmp_path: Path) -> Export:
    return Export(web, tmp_path)


def test_an_import_of_an_export_loses_no_word(exported, web, tmp_path):
    said = {
        "caption": 'Say "<b>&amp;</b>": Düsseldorf ]]> 🙂',
        "tags": ["São Paulo", "a & b", "<x>"],
        "taken_at": "2024-07-01T00:30:00+02:00",
    }
    exported.add("photo.jpg", **said)
    exported.add("no offset.jpg", taken_at="2023-01-02T03:04:05.678Z")
    exported.add("nothing known.jpg")
    ran = exported.run()
    assert (ran.returncode, ran.stderr, counts(ran)) == (0, "", {"written": 3})
    with exported.client() as client:
        before = {one["sha256"]: one for one in client.uploads(tag=exported.tag)}
        for one in before.values():
            web.workshop.web.removal.remove(one["id"])
        pictures = Import(web, tmp_path, exported.key)
        exported.folder.rename(pictures.folder)
        assert counts(pictures.run()) == {"uploaded": 3}
        after = {one["sha256"]: one for one in client.uploads(tag=exported.tag)}
    assert [*before] and before.keys() == after.keys()
    for sha, one in before.items():
        assert one["id"] != after[sha]["id"]
        assert {name: one[name] for name in WORDS} == {name: after[sha][name] for name in WORDS}
    another = tmp_path / "another"
    another.touch()
    for name in ("2024/07/photo.jpg", "2024/07/photo.jpg.xmp", "2023/01/no offset.jpg"):
        assert (pictures.folder / name).stat().st_mode == another.stat().st_mode


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_after_its_end_it_goes_on_and_nothing_is_half_or_twice(exported, number):
    originals = {f"{n}.jpg": large_picture() for n in range(8)}
    for name, content in originals.items():
        exported.add(name, content, taken_at="2024-07-05T12:00:00Z")
    month, waiting = exported.folder / "2024/07", threading.Event()

    def named() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in month.glob("[!.]*.jpg")}

    def half_written() -> list[Path]:
        return [path for path in month.glob(".clustr-export-*") if path.stat().st_size]

    with closing(CutOff(exported.web.url, lambda count: count > 3, waiting.wait)) as between:
        program = exported.start(between.url)
        wait_until(lambda: len(named()) == 3 and half_written(), 60, "three and a half")
        program.signal(number)
        waiting.set()
        program.process.wait(60)
    assert bool(half_written()) == (number == signal.SIGKILL)
    there = named()
    missing = len(originals) - len(there)
    # After Ctrl-C what was on its way may have come before that was noticed.
    assert missing == 5 or (number == signal.SIGINT and 0 < missing < 5)
    assert there.items() <= originals.items()
    assert counts(exported.run()) == {"there already": len(there), "written": missing}
    assert named() == originals
    assert {path.name for path in month.glob("*.xmp")} == {f"{name}.xmp" for name in originals}


def test_an_original_that_is_cut_off_is_fetched_again(exported):
    content = large_picture()
    exported.add("photo.jpg", content, taken_at="2024-07-05T12:00:00Z")
    with closing(CutOff(exported.web.url, lambda count: count == 1, lambda: None)) as between:
        ran = exported.run(url=between.url)
    assert (ran.returncode, counts(ran)) == (0, {"written": 1})
    assert (exported.folder / "2024/07/photo.jpg").read_bytes() == content
    assert exported.files() == {"2024/07/photo.jpg"}


def test_names_are_safe_and_each_is_there_once(exported):
    july = {"taken_at": "2024-07-05T12:00:00Z"}
    first, second = (exported.add("photo.jpg", **july) for _ in range(2))
    same = another_picture()
    for name in ("PHOTO.jpg", "con.jpg", "a:b?.jpg", ".hidden.jpg", "no ending", "x.xmp"):
        exported.add(name, **july)
    for _ in range(2):
        exported.add("same.jpg", same, **july)
    exported.add(f"{'ü' * 200}.jpg", **july)
    assert exported.run().returncode == 0
    files = exported.files()
    assert len(files) == 11
    names = {Path(file).name for file in files}
    assert {"_con.jpg", "a_b_.jpg", "hidden.jpg", "no ending.jpg", "x.xmp.jpg"} <= names
    assert len({name.lower() for name in names}) == 11
    assert {str(Path(file).parent) for file in files} == {"2024/07"}
    assert {f"photo-{first}.jpg", f"photo-{second}.jpg"} & names
    assert counts(exported.run()) == {"there already": 11}
    assert exported.files() == files


def test_only_what_is_missing_is_fetched_and_nothing_of_others_is_changed(exported):
    dates = {"taken_at": "2024-07-05T12:00:00Z"}
    ids = {name: exported.add(name, **dates) for name in ("a.jpg", "b.jpg", "c.jpg")}
    month = exported.folder / "2024/07"
    assert counts(exported.run("--dry-run")) == {"would be written": 3}
    assert not exported.folder.exists()
    exported.run()
    (month / "a.jpg").unlink()
    (month / "b.jpg").write_bytes(b"somebody's own")
    (month / "c.jpg.xmp").write_text("<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='darktable'/>")
    before = (month / "c.jpg.xmp").read_bytes()
    ran = exported.run()
    told = {"written": 2, "there already": 1, "sidecars of other programs, kept": 1}
    assert (ran.returncode, counts(ran)) == (0, told)
    assert exported.files() == {f"2024/07/{n}.jpg" for n in ("a", "b", f"b-{ids['b.jpg']}", "c")}
    assert (month / "b.jpg").read_bytes() == b"somebody's own"
    assert (month / "c.jpg.xmp").read_bytes() == before
    requests.patch(
        f"{exported.web.url}/api/uploads/{ids['a.jpg']}",
        headers={"X-API-Key": exported.key},
        json={"caption": "Said since"},
        timeout=60,
    ).raise_for_status()
    exported.run()
    assert read_xmp((month / "a.jpg.xmp").read_bytes()).caption == "Said since"
    (month / f"b-{ids['b.jpg']}.jpg").write_bytes(b"another of theirs")
    ran = exported.run()
    assert (ran.returncode, counts(ran)["not written"]) == (1, 1)
    assert "b.jpg): other files have its names" in ran.stderr


def test_what_vanishes_on_the_way_is_told_and_no_error(exported, web):
    class Removing:
        """Removes all that is left when the first one is done."""

        def __enter__(self) -> "Removing":
            return self

        def __exit__(self, *_: object) -> None: ...

        def expect(self, files: int, size_bytes: int) -> None: ...

        def add_files(self, count: int) -> None:
            for upload_id in ids[:-1]:
                web.workshop.web.removal.remove(upload_id)
            ids.clear()

        def add_bytes(self, count: int) -> None: ...

    told: list[tuple[Outcome, str]] = []
    ids = [exported.add(f"{n}.jpg", taken_at=f"2024-07-0{n}T12:00:00Z") for n in range(1, 4)]
    vanished = {f"{upload_id} ({n}.jpg)" for n, upload_id in enumerate(ids[:-1], 1)}
    note = lambda outcome, upload, _why: told.append((outcome, upload))  # noqa: E731
    with Exporter(
        exported.client, exported.folder, Removing(), note, connections=1, is_dry_run=False
    ) as exporter:
        exporter.run({"tag": exported.tag})
    assert exporter.counts == {Outcome.WRITTEN: 1, Outcome.VANISHED: 2}
    assert {*told} == {(Outcome.VANISHED, one) for one in vanished}


def test_what_is_no_original_is_not_written(exported, web):
    """A copy without metadata, and a file that the store has lost."""
    content = places.jpeg()
    exported.add("place.jpg", content, taken_at="2024-07-05T12:00:00Z")
    lost = exported.add("lost.jpg", taken_at="2024-07-06T12:00:00Z")
    (file,) = web.workshop.settings.upload_folder.rglob(f"{lost}.jpg")
    file.unlink()
    ran = exported.run()
    assert (ran.returncode, counts(ran)) == (1, {"written": 1, "not written": 1})
    assert "lost.jpg" in ran.stderr
    place = exported.folder / "2024/07/place.jpg"
    assert sha256(place.read_bytes()).digest() == sha256(content).digest()
    place.unlink()
    exported.key = exported.make_key("few")
    ran = exported.run()
    assert (ran.returncode, counts(ran)) == (1, {"not written": 2})
    assert "a key with the scope files:read" in ran.stderr
    assert not exported.files()


@pytest.mark.parametrize(
    ("arguments", "key", "said"),
    [
        (["--url", "nothing://here"], "", "nothing://here"),
        ([], "wrong", "401"),
        (["--filter", "tag"], "", "write NAME=VALUE once for each"),
        (["--filter", "sort=name"], "", "write NAME=VALUE once for each"),
        (["--filter", "no_such=1"], "", "no_such"),
    ],
)
def test_what_cannot_be_used_is_named(exported, arguments, key, said):
    exported.key = key or exported.key
    ran = exported.run(*arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("body", [b"[]", b"{}", b"<html>"])
def test_what_is_no_clustr_is_refused(exported, body):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with server(answering(answer)) as other:
        ran = exported.run("--url", other.url)
    assert ran.returncode == 2
    assert ran.stderr.startswith("clustr: ")
    assert "Traceback" not in ran.stderr


def test_ctrl_c_ends_it_in_order(exported):
    with server(silent) as waiting:
        arguments = ["-m", "clustr", "export", str(exported.folder), "--url", waiting.url]
        program = exported.web.workshop.run(*arguments)
        wait_until(lambda: waiting.accepted, 60, "a request")
        program.signal(signal.SIGINT)
        assert program.process.wait(60) == 130
    assert "Traceback" not in program.output()


def test_a_key_is_sent_to_no_service_of_somebody_else(exported, tmp_path):
    environment = {"XDG_STATE_HOME": str(tmp_path / "state"), "CLUSTR_KEY": exported.key}
    ran = exported.web.workshop.command("export", str(exported.folder), **environment)
    assert ran.returncode == 2
    assert "say with --url where the service is" in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        Words(),
        Words("One", ("a", "b"), "2024-07-01T00:30:00+02:00"),
        Words("<!DOCTYPE html> & ]]>", ("<", "&"), "2024-07-01T00:30:00.250000+00:00"),
    ],
)
def test_a_sidecar_says_what_was_written(words):
    assert read_xmp(write_xmp(words)) == words


def test_writing_a_sidecar_changes_nothing_that_other_threads_see(monkeypatch):
    monkeypatch.delattr(ElementTree, "register_namespace")  # It changes what is of the process.
    assert is_own(write_xmp(Words("One", ("a", "b"))))


def test_characters_that_no_xml_has_are_left_out():
    assert read_xmp(write_xmp(Words("a\ufffeb", ("\uffffc",)))) == Words("ab", ("c",))


@pytest.mark.parametrize(
    ("taken_at", "local", "said"),
    [
        (None, None, ""),
        ("2024-06-30T22:30:00Z", "2024-07-01T00:30:00", "2024-07-01T00:30:00+02:00"),
        ("2024-06-30T22:30:00Z", "2024-06-30T12:30:00", "2024-06-30T12:30:00-10:00"),
        ("2024-06-30T22:30:00Z", "2024-06-30T22:30:07", "2024-06-30T22:30:00+00:00"),
        ("2024-06-30T22:30:00Z", "2024-07-03T22:30:00", "2024-06-30T22:30:00+00:00"),
    ],
)
def test_the_time_has_the_offset_of_its_place(taken_at, local, said):
    upload: Mapping[str, Any] = {
        "taken_at": taken_at,
        "taken_at_local": local,
        "caption": None,
        "tags": [],
    }
    assert words_of(upload).taken_at == said


def test_the_page_of_the_export_is_so(exported):
    """Each command of the page prints what is below it, and writes the files that it shows."""
    page = (Path(__file__).parent.parent / "docs/export.md").read_text()
    exported.add("forum.jpg", tags=["Italy"], taken_at="2024-07-01T00:30:00+02:00")
    exported.add("cat.jpg", taken_at="2023-12-24T18:00:00Z")
    commands = re.findall(r"^\$ clustr (.*)\n((?:[^$`].*\n)*)", page, re.MULTILINE)
    assert len(commands) == 3
    for command, printed in commands:
        _, _, *arguments = shlex.split(command)
        ran = exported.run(*arguments)
        assert ran.stdout.split() == printed.split(), command
    for file in re.findall(r"^Pictures/(\S+)$", page, re.MULTILINE):
        assert (exported.folder / file).exists(), file
