"""`clustr fsck`: each defect is found once and repaired, and nothing that is alive is touched."""

import functools
import hashlib
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import photographs
import pytest
from bson import ObjectId
from running import Servers
from workshop import Workshop

from clustr.components import build_fsck
from clustr.database import now
from clustr.domain.models import State
from clustr.services.fsck import Finding, FindingKind, Fsck, RepairRefused

DEFECTS = ("missing", "orphaned", "corrupt", "undecodable", "stuck", "temporary")


@pytest.fixture(scope="module")
def shared_workshop(tmp_path_factory, servers) -> Iterator[Workshop]:
    """Uploads are looked at by the analyzer `known`, which nobody runs."""
    with opened(tmp_path_factory.mktemp("workshop"), servers) as workshop:
        yield workshop


@contextmanager
def opened(folder: Path, servers: Servers) -> Iterator[Workshop]:
    with Workshop(folder, servers, PLUGINS_ENABLED="known") as workshop:
        workshop.analyzer("known", "return {}")
        yield workshop


class Store:
    """The uploads of a workshop, and what can happen to them."""

    def __init__(self, workshop: Workshop):
        self.workshop = workshop
        self.folder = workshop.settings.upload_folder
        self.uploads = workshop.collection
        self.quarantined = self.uploads.database[f"{self.uploads.name}_quarantine"]

    def add(self, count: int = 1) -> list[str]:
        """Upload small pictures that differ; the ids."""
        numbers = range(self.uploads.estimated_document_count(), 10**6)
        return [self.workshop.upload(photographs.unique(number=n))[0] for n in numbers[:count]]

    def file(self, upload_id: str) -> Path:
        (path,) = self.folder.glob(f"[0-9a-f]*/{upload_id}.*")
        return path

    def key(self, upload_id: str) -> str:
        return f"{upload_id[:4]}/{upload_id}.jpg"

    def set(self, upload_id: str, **values: Any) -> None:
        changes = {name.replace("__", "."): value for name, value in values.items()}
        self.uploads.update_one({"_id": ObjectId(upload_id)}, {"$set": changes})

    def delete_record(self, upload_id: str) -> None:
        self.uploads.delete_one({"_id": ObjectId(upload_id)})

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}

    def records(self) -> list[Any]:
        return list(self.uploads.find().sort("_id"))

    # What can happen to an upload:

    def lose_file(self, upload_id: str) -> None:
        self.file(upload_id).unlink()

    def flip_bit(self, upload_id: str) -> None:
        path = self.file(upload_id)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def become_text(self, upload_id: str) -> None:
        content = photographs.text()
        self.file(upload_id).write_bytes(content)
        self.set(upload_id, size=len(content), sha256=hashlib.sha256(content).hexdigest())

    def begin(self, upload_id: str, lease_ended_ago: timedelta) -> None:
        """A run takes the analysis and never says a word again."""
        self.set(
            upload_id,
            analyses__0__state=State.RUNNING,
            analyses__0__run="lost",
            analyses__0__lease_until=now() - lease_ended_ago,
        )

    def leave_behind(self, name: str, hours: float) -> Path:
        path = self.folder / ".incoming" / name
        path.write_bytes(b"half of it")
        then = time.time() - hours * 3600
        os.utime(path, (then, then))
        return path

    def plant_one_of_each(self) -> dict[str, str | None]:
        """Do each to another upload; which, by the kind of defect."""
        harm: dict[str, Callable[[str], None]] = {
            "missing": self.lose_file,
            "orphaned": self.delete_record,
            "corrupt": self.flip_bit,
            "undecodable": self.become_text,
            "stuck": functools.partial(self.begin, lease_ended_ago=timedelta(minutes=11)),
        }
        victims = dict(zip(harm, self.add(len(harm)), strict=True))
        for kind, upload_id in victims.items():
            harm[kind](upload_id)
        self.leave_behind("left-behind", hours=2)
        return {**victims, "temporary": None}


@pytest.fixture
def store(shared_workshop) -> Store:
    shared_workshop.empty("known")
    made = Store(shared_workshop)
    made.add(4)
    return made


@pytest.fixture
def own_store(tmp_path, servers) -> Iterator[Store]:
    """For tests that do something to the folder or the settings."""
    with opened(tmp_path, servers) as workshop:
        made = Store(workshop)
        made.add(4)
        yield made


def fsck(store: Store, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it without a terminal."""
    return store.workshop.command("fsck", *arguments, **environment)


def fsck_json(store: Store, *arguments: str) -> tuple[int, dict[str, Any]]:
    ran = fsck(store, "--json", *arguments)
    return ran.returncode, json.loads(ran.stdout)


@contextmanager
def check(store: Store, grace_seconds: float = 0, quick: bool = False) -> Iterator[Fsck]:
    """The same in this process."""
    with build_fsck(store.workshop.settings, timedelta(seconds=grace_seconds), quick) as made:
        yield made


def find(store: Store, **options: Any) -> list[Finding]:
    with check(store, **options) as one:
        return list(one.findings())


def kinds(findings: list[dict[str, Any]]) -> list[str]:
    return sorted(finding["kind"] for finding in findings)


# What is found


def test_a_store_as_it_should_be_is_clean(store):
    ran = fsck(store, "--grace", "0")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "Checked 4 uploads and 4 files.\nNothing is wrong.\n"


def test_E5_each_defect_is_found_once_and_repaired_and_then_all_is_clean(store):
    good = {upload["filename"] for upload in store.records()}
    victims = store.plant_one_of_each()
    before = store.files()
    code, found = fsck_json(store, "--grace", "0")
    assert code == 1
    assert found["checked"] == {"uploads": 8, "files": 8}
    assert found["repaired"] == []
    assert kinds(found["findings"]) == sorted(DEFECTS)
    by_kind = {finding["kind"]: finding for finding in found["findings"]}
    assert {kind: finding["id"] for kind, finding in by_kind.items()} == victims
    for kind in ("missing", "orphaned", "corrupt", "undecodable"):
        assert by_kind[kind]["file"] == store.key(victims[kind])
    assert by_kind["temporary"]["file"] == ".incoming/left-behind"
    assert store.files() == before  # a look changes nothing

    code, repaired = fsck_json(store, "--grace", "0", "--repair", "--yes")
    assert code == 0
    assert repaired["findings"] == repaired["repaired"] == found["findings"]
    assert fsck_json(store, "--grace", "0") == (
        0,
        {"checked": {"uploads": 5, "files": 5}, "findings": [], "repaired": []},
    )
    assert {upload["filename"] for upload in store.records()} == {
        *good,
        f"{victims['stuck']}.jpg",
    }
    after = store.files()
    for kind in ("orphaned", "corrupt", "undecodable"):
        content = before[store.key(victims[kind])]
        assert after[f".quarantine/{kind}/{victims[kind]}.jpg"] == content
    assert not [name for name in after if name.startswith(".incoming/")]


def test_records_in_quarantine_are_whole_and_say_why(store):
    victim = store.add()[0]
    whole = store.uploads.find_one({"_id": ObjectId(victim)})
    store.lose_file(victim)
    assert fsck(store, "--repair", "--yes").returncode == 0
    (aside,) = store.quarantined.find()
    assert aside["upload"] == whole
    assert aside["reason"] == "missing: the file is not there"
    assert abs((now() - aside["quarantined_at"]).total_seconds()) < 60


def test_a_stuck_run_is_queued_again(store):
    victim = store.add()[0]
    store.begin(victim, timedelta(minutes=11))
    assert fsck(store, "--repair", "--yes").returncode == 0
    analysis = store.workshop.stored(victim, "known")
    assert analysis["state"] == "queued"
    assert analysis["crashes"] == 1
    assert not {"run", "lease_until"} & analysis.keys()
    assert store.workshop.get(victim).status == "pending"


def test_a_run_whose_lease_has_not_ended_for_long_is_not_stuck(store):
    for upload in store.records():
        store.begin(str(upload["_id"]), timedelta(minutes=9))
    assert find(store) == []


@pytest.mark.parametrize("state", ["queued", "waiting", "deferred", "running"])
def test_an_analysis_that_no_plugin_can_do_is_cancelled(store, state):
    victim, kept = store.add(2)
    store.begin(victim, timedelta(minutes=11))
    store.set(victim, analyses__0__name="gone", analyses__0__state=state)
    store.begin(kept, -timedelta(seconds=20))  # Elsewhere the plugin is loaded, and somebody at it.
    store.set(kept, analyses__0__name="gone")
    assert fsck(store, "--repair", "--yes").returncode == 0
    upload = store.workshop.get(victim)
    assert upload.status == "processed"
    assert upload.analyses[0].state == "cancelled"
    assert upload.analyses[0].error == f"gone is {state}, but no plugin that is loaded brings it"
    assert store.workshop.state_of(kept, "gone") == "running"


def test_what_is_young_may_be_an_upload_that_is_not_done(store):
    store.delete_record(store.add()[0])
    store.leave_behind("half", hours=0.5)
    assert fsck(store).returncode == 0
    assert kinds(fsck_json(store, "--grace", "0")[1]["findings"]) == ["orphaned", "temporary"]


def test_the_age_of_a_file_begins_with_its_rename(store):
    victim = store.add()[0]
    store.delete_record(victim)
    os.utime(store.file(victim), (0, 0))  # What it was written as may be much older.
    assert find(store, grace_seconds=60) == []


def test_quick_reads_no_file_but_sees_its_size(store):
    flipped, cut = store.add(2)
    store.flip_bit(flipped)
    path = store.file(cut)
    path.write_bytes(path.read_bytes()[:-1])
    assert [(f.kind, f.id) for f in find(store, quick=True)] == [(FindingKind.CORRUPT, cut)]
    assert {f.id for f in find(store)} == {flipped, cut}


def test_a_lowered_limit_makes_no_image_undecodable(own_store):
    store = own_store
    store.workshop.environment["MAX_IMAGE_PIXELS"] = "100"
    assert fsck(store).returncode == 0


def test_every_format_that_is_accepted_decodes(store):
    for extension in photographs.EXTENSIONS:
        store.workshop.upload(photographs.photograph(extension))
    store.workshop.upload(photographs.mpo(), photographs.cmyk(), photographs.huge_exif())
    assert find(store) == []


def test_foreign_files_are_named_and_left_alone(store):
    bucket = store.file(store.add()[0]).parent
    name = f"{'0' * 24}.jpg"  # an original's name, in another's folder
    for path in (store.folder / "notes.txt", bucket / "Thumbs.db", bucket / name):
        path.write_bytes(b"mine")
    (store.folder / "lost+found").mkdir()
    (store.folder / "lost+found" / "#1").touch()
    before = store.files()
    code, found = fsck_json(store, "--grace", "0", "--repair", "--yes")
    assert code == 0
    assert kinds(found["findings"]) == ["foreign"] * 4
    assert {finding["file"] for finding in found["findings"]} == {
        "notes.txt",
        "lost+found",
        f"{bucket.name}/Thumbs.db",
        f"{bucket.name}/{name}",
    }
    assert found["repaired"] == []
    assert store.files() == before


def test_what_cannot_be_read_is_left_alone(store):
    victim = store.add()[0]
    path = store.file(victim)
    path.unlink()
    path.mkdir()  # root, too, cannot read that
    code, found = fsck_json(store, "--grace", "0", "--repair", "--yes")
    assert code == 1
    assert kinds(found["findings"]) == ["foreign", "unreadable"]
    assert found["repaired"] == []
    assert path.is_dir()
    assert store.workshop.get(victim)


# What is refused


def unchanged(store: Store, *arguments: str, **environment: str) -> str:
    """Run it, which must be refused; what it said."""
    before = store.files(), store.records()
    ran = fsck(store, *arguments, **environment)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert (store.files(), store.records()) == before
    assert store.quarantined.count_documents({}) == 0
    (said,) = [line for line in ran.stderr.splitlines() if line.startswith("clustr: ")]
    return said


def test_a_store_that_looks_unmounted_is_refused(own_store):
    store = own_store
    marker = store.folder / ".clustr-store"
    marker.rename(store.folder / "elsewhere")
    assert "UPLOAD_FOLDER looks as if it is not mounted" in unchanged(store, "--repair", "--yes")
    store.folder.rename(store.folder.with_name("moved"))
    assert "not mounted" in unchanged(store)
    assert not store.folder.exists()


def test_a_store_that_is_unmounted_after_the_look_is_left_alone(own_store):
    store = own_store
    store.plant_one_of_each()
    with check(store) as one:
        findings = list(one.findings())
        (store.folder / ".clustr-store").unlink()
        before = store.files(), store.records()
        assert len(findings) == len(DEFECTS)
        for finding in findings:
            with pytest.raises(RepairRefused):
                one.repair(finding)
    assert (store.files(), store.records()) == before


def test_too_much_is_refused(store):
    for upload_id in store.add(11):
        store.lose_file(upload_id)
    said = unchanged(store, "--repair", "--yes")
    assert "11 of 15 uploads would go, which is more than 10 %" in said
    assert fsck(store, "--repair", "--yes", "--limit", "74").returncode == 0
    assert len(store.records()) == 4


def test_ten_uploads_are_never_too_much(store):
    for upload_id in store.add(10):
        store.lose_file(upload_id)
    assert fsck(store, "--repair", "--yes").returncode == 0


def test_a_wrong_database_is_refused(store):
    store.add(8)
    said = unchanged(store, "--grace", "0", "--repair", "--yes", MONGODB_DATABASE="another")
    assert "is that of another installation of Clustr" in said


def test_plugins_that_are_not_loaded_here_are_refused(store):
    store.add(8)
    said = unchanged(store, "--repair", "--yes", PLUGINS_ENABLED="")
    assert "12 of 12 uploads would go" in said


def test_nobody_to_ask_is_refused(store):
    store.lose_file(store.add()[0])
    assert "this is no terminal" in unchanged(store, "--repair")


def test_a_database_that_is_away_is_said(store):
    said = unchanged(store, MONGODB_URL="mongodb://127.0.0.1:9")
    assert said == "clustr: MongoDB does not answer at the address of MONGODB_URL"


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, 5), (b"y\n", 0, 4)])
def test_at_a_terminal_it_asks(store, answer, code, left):
    store.lose_file(store.add()[0])
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    ran = subprocess.run(
        [sys.executable, "-m", "clustr", "fsck", "--repair"],
        env={"PATH": os.environ["PATH"], **store.workshop.environment},
        cwd=store.workshop.folder,
        stdin=theirs,
        capture_output=True,
        text=True,
    )
    os.close(ours)
    os.close(theirs)
    assert "Repair 1 missing?" in ran.stderr
    assert ran.returncode == code, ran.stdout
    assert len(store.records()) == left


# What happens meanwhile


def test_what_has_changed_since_the_look_is_left_alone(store):
    content = {str(u["_id"]): store.file(str(u["_id"])).read_bytes() for u in store.records()}
    victims = store.plant_one_of_each()
    orphan = store.file(victims["orphaned"])
    record = {**store.records()[0], "_id": ObjectId(victims["orphaned"]), "filename": orphan.name}
    del record["original_sha256"]  # One upload alone is the original of these bytes.
    with check(store) as one:
        findings = list(one.findings())
        whole = next(iter(content.values()))
        for kind in ("missing", "corrupt", "undecodable"):
            key = store.key(victims[kind])
            (store.folder / key).write_bytes(whole)
            digest = hashlib.sha256(whole).hexdigest()
            store.set(victims[kind], size=len(whole), sha256=digest)
        store.uploads.insert_one({**record, "size": orphan.stat().st_size})
        store.set(victims["stuck"], analyses__0__lease_until=now())
        (store.folder / ".incoming" / "left-behind").unlink()
        before = store.files(), store.records()
        assert len(findings) == len(DEFECTS)
        assert [one.repair(finding) for finding in findings] == [False] * len(findings)
    assert (store.files(), store.records()) == before
    assert store.quarantined.count_documents({}) == 0


def test_what_has_gone_since_the_look_is_left_alone(store):
    victims = store.plant_one_of_each()
    with check(store) as one:
        findings = list(one.findings())
        store.file(victims["orphaned"]).unlink()
        for upload_id in victims.values():
            store.delete_record(upload_id or "0" * 24)
        (store.folder / ".incoming" / "left-behind").unlink()
        assert len(findings) == len(DEFECTS)
        assert [one.repair(finding) for finding in findings] == [False] * len(findings)
    assert store.quarantined.count_documents({}) == 0


def test_a_record_that_is_written_to_at_that_moment_stays(store):
    victim = store.add()[0]
    inspection = store.workshop.web.database.integrity
    seen = inspection.record(victim)
    store.set(victim, caption="by hand", updated_at=now() + timedelta(milliseconds=1))
    assert not inspection.quarantine(seen, "missing")
    assert store.quarantined.count_documents({}) == 0
    assert store.workshop.get(victim).caption == "by hand"


def test_what_was_put_back_can_be_put_aside_again(store):
    victim = store.add()[0]
    path, aside = store.file(victim), store.folder / ".quarantine" / "corrupt"
    store.flip_bit(victim)
    bad = path.read_bytes()
    for times in (1, 2):
        assert fsck(store, "--repair", "--yes").returncode == 0
        assert [each.read_bytes() for each in aside.iterdir()] == [bad] * times
        if times == 1:
            path.write_bytes(bad)
            store.uploads.insert_one(store.quarantined.find_one()["upload"])
    assert store.quarantined.count_documents({}) == 2


def test_F6c_two_repairs_at_once_do_everything_once(store):
    for _ in range(3):
        store.plant_one_of_each()
        (store.folder / ".incoming" / "left-behind").rename(
            store.folder / ".incoming" / f"left-{time.monotonic_ns()}"
        )
    with check(store) as one, check(store) as other, ThreadPoolExecutor(2) as threads:
        findings = list(one.findings())
        assert len(findings) == 3 * len(DEFECTS)
        for finding in findings:
            done = list(threads.map(lambda each, f=finding: each.repair(f), (one, other)))
            assert sum(done) == 1, finding
    assert find(store) == []
    assert store.quarantined.count_documents({}) == 9


def test_C3_a_repair_touches_nothing_that_200_uploads_bring(store):
    """The grace is longer than an upload takes; what is really orphaned goes meanwhile."""
    orphans = store.add(5)
    for upload_id in orphans:
        store.delete_record(upload_id)
    intake = store.workshop.upload
    time.sleep(2.1)
    with ThreadPoolExecutor(4) as threads, check(store, grace_seconds=2) as one:
        contents = [photographs.unique(number=1000 + n) for n in range(200)]
        running = [threads.submit(intake, content) for content in contents]
        rounds = 0
        repaired: list[Finding] = []
        while rounds < 3 or not all(future.done() for future in running):
            repaired += [finding for finding in one.findings() if one.repair(finding)]
            rounds += 1
        uploads = [upload_id for future in running for upload_id in future.result()]
    assert sorted((f.kind, f.id) for f in repaired) == sorted(
        (FindingKind.ORPHANED, upload_id) for upload_id in orphans
    )
    assert len(uploads) == len(set(uploads)) == 200
    for upload_id, content in zip(uploads, contents, strict=True):
        assert store.workshop.get(upload_id)
        assert store.file(upload_id).read_bytes() == content
    assert find(store) == []


# What it costs


# What getrusage(2) says of a process includes what its parent took.
MEASURED = """
import atexit, re
from pathlib import Path
from clustr.__main__ import main
def peak(): return re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
atexit.register(lambda: print(peak()))
main()
"""


def check_measured(store: Store) -> tuple[str, int]:
    """What a quick check says, and how many bytes of memory it takes at most."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, "fsck", "--quick", "--grace", "0"],
        env={"PATH": os.environ["PATH"], **store.workshop.environment},
        cwd=store.workshop.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    *said, kilobytes = ran.stdout.splitlines()
    return said[0], int(kilobytes) * 1024


def test_memory_does_not_grow_with_the_store(own_store):
    store = own_store
    pattern = store.records()[0]
    del pattern["original_sha256"]  # The others have the same bytes.
    original = store.file(str(pattern["_id"]))

    def grow_to(count: int) -> None:
        made = []
        for _ in range(count - store.uploads.count_documents({})):
            key = ObjectId()
            made.append({**pattern, "_id": key, "filename": f"{key}.jpg"})
            path = store.folder / store.key(str(key))
            path.parent.mkdir(exist_ok=True)
            path.hardlink_to(original)
        store.uploads.insert_many(made)

    grow_to(1_000)
    _, few = check_measured(store)
    grow_to(10_000)
    said, many = check_measured(store)
    assert said == "Checked 10000 uploads and 10000 files."
    assert many - few < 2_000_000, (few, many)
