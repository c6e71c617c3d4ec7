"""`clustr import --from-predecessor`, from a database and a folder in the predecessor's form."""

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import photographs
import pytest
from pymongo import MongoClient
from running import wait_until
from workshop import Workshop, analyzer

from clustr.components import build_take_over
from clustr.services.predecessor import Kind, Result

UPLOADED_AT = datetime(2023, 8, 1, 12, 30, 15, tzinfo=UTC)
# What can be asked of one upload: method, what follows its id, and the body.
CALLS = [
    ("GET", "", None),
    ("GET", "?wait_for=blip", None),
    ("GET", "/file?download=1", None),
    ("GET", "/thumbnail?size=160", None),
    ("GET", "/analyses", None),
    ("GET", "/analyses/blip", None),
    ("GET", "/analyses/blip/traceback", None),
    ("POST", "/analyses/blip?if=missing", None),
    ("GET", "/shares", None),
    ("POST", "/share", {"days": 1}),
    ("PATCH", "", {"caption": "A person's words"}),
    ("DELETE", "", None),
]


class Old:
    """The predecessor: its database, and the folder with its files.

    Attributes:
        url: of its database.
    """

    def __init__(self, workshop: Workshop, place: Path):
        self.workshop = workshop
        self.folder = place / "uploads"
        self.folder.mkdir()
        address = urlsplit(workshop.environment["MONGODB_URL"])
        self.url = address._replace(path=f"/predecessor{uuid.uuid4().hex}").geturl()
        self._client: MongoClient[dict[str, Any]] = MongoClient(self.url)
        self._uploads = self._client.get_default_database()["uploads"]
        self._added = 0

    def add(self, content: bytes | None = None, **fields: Any) -> dict[str, Any]:
        """Add an upload; the fields of its document."""
        old_id = str(uuid.uuid4())
        document = {
            "id": old_id,
            "original_name": "vacation.jpg",
            "filename": f"{old_id}.jpg",
            "file_path": f"/srv/backend/uploads/{old_id}.jpg",
            "url": f"http://127.0.0.1:5000/uploads/{old_id}.jpg",
            "upload_time": UPLOADED_AT + timedelta(days=self._added),
            "size": 1024000,
            "dimensions": {"width": 64, "height": 48},
            "status": "processed",
            "caption": "Beach vacation",
            "tags": ["Beach", "sea"],
            "faces": [],
            "face_cluster_ids": [],
        } | fields
        self._added += 1
        content = photographs.unique(number=self._added) if content is None else content
        if Path(document["filename"]).name == document["filename"] and content:
            (self.folder / document["filename"]).write_bytes(content)
        self._uploads.insert_one(dict(document))
        return document

    def rename_collection(self, name: str) -> None:
        self._uploads.rename(name)

    def take_over(self) -> list[Result]:
        with build_take_over(self.workshop.settings, self.url, "uploads") as take_over:
            return [*take_over.run(self.folder)]

    def close(self) -> None:
        self._client.drop_database(self._uploads.database.name)
        self._client.close()


@pytest.fixture
def old(workshop: Workshop, tmp_path: Path) -> Iterator[Old]:
    made = Old(workshop, tmp_path)
    yield made
    made.close()


@pytest.fixture
def captioner(workshop: Workshop) -> None:
    """Analyzers: the captioner, and one that needs what it says."""
    fields = {"caption": "caption", "tags": "tags"}
    says = "return {'caption': 'new', 'tags': []}"
    workshop.write("captions", analyzer("blip", says, version=2, fields=fields))
    workshop.analyzer("reader", "return {}", requires=("blip",))


def successor(old: Old, document: dict[str, Any]) -> dict[str, Any]:
    """What the old address of an upload leads to."""
    path = f"/api/uploads/{document['id']}"
    answer = old.workshop.app.test_client().get(path, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.get_json()
    return body


@pytest.mark.usefixtures("captioner")
def test_times_stay_and_words_are_those_of_the_captioner(old):
    document = old.add()
    assert [result.kind for result in old.take_over()] == [Kind.TAKEN]
    upload = successor(old, document)
    assert datetime.fromisoformat(upload["upload_time"]) == UPLOADED_AT
    assert (upload["caption"], upload["tags"]) == ("Beach vacation", ["beach", "sea"])
    assert upload["original_name"] == "vacation.jpg"
    blip = upload["analyses"]["blip"]
    assert (blip["status"], blip["stale"]) == ("succeeded", True)
    assert blip["result"] == {"caption": "Beach vacation", "tags": ["beach", "sea"]}
    assert blip["provenance"]["plugin"] == "predecessor"
    assert blip["provenance"]["model"] == {"name": "captioner of the predecessor"}
    assert upload["analyses"]["reader"]["status"] == "queued"
    [stored] = old.workshop.collection.find()
    assert "human" not in stored


@pytest.mark.usefixtures("captioner")
def test_a_new_caption_replaces_the_old_one_for_it_is_no_persons(old):
    document = old.add()
    old.take_over()
    upload = successor(old, document)
    client = old.workshop.app.test_client()
    assert client.get("/api/uploads?q=beach").get_json()["total"] == 1
    assert client.post(f"/api/uploads/{upload['id']}/analyses/blip").status_code == 202
    assert old.workshop.horse("blip", "run").process.wait(60) == 0
    again = old.workshop.get(upload["id"])
    assert (again.caption, again.tags) == ("new", ())


@pytest.mark.usefixtures("captioner")
@pytest.mark.parametrize("status", ["pending", "error", "processed"])
def test_what_has_no_words_is_left_to_the_captioner(old, status):
    document = old.add(status=status, caption=None, tags=[])
    old.take_over()
    upload = successor(old, document)
    assert (upload["caption"], upload["status"]) == (None, "pending")
    assert upload["analyses"]["blip"]["status"] == "queued"


def test_words_are_kept_where_there_is_no_captioner(old):
    document = old.add(upload_time="2023-08-01", status="completed")
    old.take_over()
    upload = successor(old, document)
    assert datetime.fromisoformat(upload["upload_time"]) == datetime(2023, 8, 1, tzinfo=UTC)
    assert (upload["status"], upload["caption"]) == ("processed", "Beach vacation")


def test_old_addresses_lead_to_the_new_ones(old):
    document = old.add()
    old.take_over()
    [stored] = old.workshop.collection.find()
    client = old.workshop.app.test_client()
    moved = client.get(f"/api/uploads/{document['id']}")
    assert (moved.status_code, moved.headers["Location"]) == (308, f"/api/uploads/{stored['_id']}")
    moved = client.get(f"/uploads/{document['filename']}?metadata=keep")
    assert moved.status_code == 308
    assert moved.headers["Location"] == f"/uploads/{stored['filename']}?metadata=keep"
    content = (old.folder / document["filename"]).read_bytes()
    with client.get(moved.headers["Location"]) as answer:
        assert answer.data == content
    client.delete(f"/api/uploads/{stored['_id']}")
    for path in (f"/api/uploads/{document['id']}", f"/uploads/{document['filename']}"):
        assert client.get(path).status_code == 404
    assert [result.kind for result in old.take_over()] == [Kind.PRESENT]


@pytest.mark.usefixtures("captioner")
def test_whoever_knows_the_old_id_alone_can_do_all_with_it(old):
    """The new address asks for the same, and 308 has clients keep method and body."""
    document = old.add()
    old.take_over()
    [stored] = old.workshop.collection.find()
    client = old.workshop.app.test_client()
    for method, path, body in CALLS:
        asked = f"/api/uploads/{document['id']}{path}"
        answer = client.open(asked, method=method, json=body)
        moved = (answer.status_code, answer.headers.get("Location"))
        assert moved == (308, f"/api/uploads/{stored['_id']}{path}"), (method, path)
        answer = client.open(answer.headers["Location"], method=method, json=body)
        assert answer.status_code < 300, (method, path, answer.text)
        answer.close()
    assert old.workshop.collection.find_one() is None
    unknown = client.delete(f"/api/uploads/{uuid.uuid4()}")
    assert (unknown.status_code, unknown.get_json()["title"]) == (404, "Not found")


def test_only_files_below_the_folder_are_read(old, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(photographs.photograph())
    (old.folder / "link.jpg").symlink_to(secret)
    (old.folder / "elsewhere").symlink_to(tmp_path)
    os.mkfifo(old.folder / "pipe.jpg")
    for name in ("../secret.jpg", str(secret), "elsewhere/secret.jpg", "link.jpg", "pipe.jpg"):
        old.add(b"", filename=name, file_path=name)
    old.add(b"", file_path="/srv/uploads/../../secret.jpg")
    old.add(b"", filename="a\0b")
    results = old.take_over()
    assert {result.kind for result in results} == {Kind.NOT_TAKEN}
    assert len(results) == 7
    assert old.workshop.collection.count_documents({}) == 0


def test_a_file_is_found_by_the_end_of_its_path(old):
    (old.folder / "images").mkdir()
    (old.folder / "images" / "cat.jpg").write_bytes(photographs.photograph())
    document = old.add(b"", filename="cat.jpg", file_path="/uploads/images/cat.jpg")
    assert [result.kind for result in old.take_over()] == [Kind.TAKEN]
    assert successor(old, document)["caption"] == "Beach vacation"


def test_what_cannot_be_taken_is_listed_with_its_reason(old):
    reasons = {
        old.add(b"no image")["id"]: "unsupported_type",
        old.add(b"")["id"]: "There is no file",
        old.add(upload_time="yesterday")["id"]: "upload_time",
        old.add(upload_time=None)["id"]: "upload_time",
        old.add(tags=[1])["id"]: "tags",
        old.add(caption=5)["id"]: "caption",
        old.add(faces=[{"box": [1, 2, 3, 4]}])["id"]: "faces",
    }
    old.add(id="../other")
    results = [result for result in old.take_over() if result.kind is not Kind.TAKEN]
    listed = {result.name: result.reason for result in results}
    assert len(listed) == len(reasons) + 1
    for key, reason in listed.items():
        assert reasons.get(key, "id") in reason
    assert old.workshop.collection.count_documents({}) == 1


def test_after_a_kill_it_goes_on_and_takes_nothing_twice(old):
    documents = [old.add() for _ in range(12)]
    arguments = ("-m", "clustr", "import", "--from-predecessor", old.url, str(old.folder))
    program = old.workshop.run(*arguments)
    uploads = old.workshop.collection
    wait_until(lambda: uploads.count_documents({}) >= 3, 60, "the first uploads")
    program.end()
    old_ids = uploads.database["old_ids"]
    assert old_ids.find_one_and_delete({})  # It may be killed before it notes this.
    ran = old.workshop.command(*arguments[2:])
    assert ran.returncode == 0, ran.stderr
    assert uploads.count_documents({}) == old_ids.count_documents({}) == 12
    assert {d["_id"] for d in old_ids.find()} == {document["id"] for document in documents}
    again = old.workshop.command(*arguments[2:])
    assert again.stdout.split() == ["12", "there", "already"]
    assert uploads.count_documents({}) == 12


def test_two_uploads_of_the_same_picture_stay_two(old):
    [newer] = old.workshop.upload(photographs.photograph())
    document = old.add(photographs.photograph())
    old.take_over()
    assert successor(old, document)["duplicate_of"] is None
    assert old.workshop.get(newer).duplicate_of == successor(old, document)["id"]


def test_the_command_lists_what_it_cannot_take(old):
    document = old.add(b"no image")
    report = old.folder.parent / "report.csv"
    arguments = ("import", "--from-predecessor", old.url, str(old.folder))
    # A key that other imports need is in the environment of many.
    ran = old.workshop.command(*arguments, "--report", str(report), CLUSTR_KEY="clustr_key")
    assert ran.returncode == 1, ran.stderr
    assert document["id"] in report.read_text()


def test_the_command_takes_the_collection_that_is_named(old):
    old.add()
    old.rename_collection("pictures")
    arguments = ("import", "--from-predecessor", old.url, str(old.folder))
    ran = old.workshop.command(*arguments)
    assert ran.returncode == 2
    assert "the collection uploads of the database predecessor" in ran.stderr
    ran = old.workshop.command(*arguments, "--uploads-collection", "pictures")
    assert ran.returncode == 0, ran.stderr
    assert old.workshop.collection.count_documents({}) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--connections", "8", "--key", "k"], "--key, --connections cannot be given with --from"),
        (["--dry-run"], "--dry-run cannot be given with --from-predecessor"),
        (["--tag", "old"], "but --uploads-collection and --report can"),
        (["."], "takes one FOLDER"),
        (["--uploads-collection", "$"], "'$' is no name of a collection"),
    ],
)
def test_what_would_have_no_effect_is_refused(old, arguments, said):
    command = ("import", "--from-predecessor", old.url, str(old.folder))
    ran = old.workshop.command(*command, *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_collection_is_refused_without_the_predecessor(old):
    ran = old.workshop.command("import", str(old.folder), "--uploads-collection", "pictures")
    assert ran.returncode == 2
    assert ran.stderr == "clustr: --uploads-collection says nothing without --from-predecessor\n"
