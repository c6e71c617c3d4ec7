"""`clustr fsck`: each defect is found once and repaired, and nothing that is alive is touched."""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import photographs
import pytest
from bson import ObjectId
from fork_server import run_program
from fsck_store import DEFECTS, Store, check, find, fsck, fsck_json, kinds
from running import wait_until

from clustr.database import now
from clustr.services.fsck import Finding, FindingKind


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
    for _ in range(2):
        store.plant_one_of_each()
        (store.folder / ".incoming" / "left-behind").rename(
            store.folder / ".incoming" / f"left-{time.monotonic_ns()}"
        )
    with check(store) as one, check(store) as other, ThreadPoolExecutor(2) as threads:
        findings = list(one.findings())
        assert len(findings) == 2 * len(DEFECTS)
        for finding in findings:
            done = list(threads.map(lambda each, f=finding: each.repair(f), (one, other)))
            assert sum(done) == 1, finding
    assert find(store) == []
    assert store.quarantined.count_documents({}) == 6


def test_C3_a_repair_touches_nothing_that_200_uploads_bring(store):
    """The grace is longer than an upload takes; what is really orphaned goes meanwhile."""
    orphans = store.add(5)
    for upload_id in orphans:
        store.delete_record(upload_id)
    intake = store.workshop.upload
    repaired: list[Finding] = []
    with ThreadPoolExecutor(4) as threads, check(store, grace_seconds=5) as one:
        contents = [photographs.unique(number=1000 + n) for n in range(200)]
        running = [threads.submit(intake, content) for content in contents]

        def repair() -> bool:
            repaired.extend(finding for finding in one.findings() if one.repair(finding))
            return len(repaired) >= len(orphans) and all(future.done() for future in running)

        wait_until(repair, 120, "the repair of what is orphaned")
        uploads = [upload_id for future in running for upload_id in future.result()]
    assert sorted((f.kind, f.id) for f in repaired) == sorted(
        (FindingKind.ORPHANED, upload_id) for upload_id in orphans
    )
    assert len(uploads) == len(set(uploads)) == 200
    for upload_id, content in zip(uploads, contents, strict=True):
        assert store.workshop.get(upload_id)
        assert store.file(upload_id).read_bytes() == content
    assert find(store) == []


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
    arguments = ["-c", MEASURED, "fsck", "--quick", "--grace", "0"]
    environment = {"PATH": os.environ["PATH"], **store.workshop.environment}
    ran = run_program(arguments, environment, store.workshop.folder)
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
