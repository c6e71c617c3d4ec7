"""A store with uploads, what can happen to them, and `clustr fsck` on it."""

import functools
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import photographs
from bson import ObjectId
from running import Servers
from workshop import Workshop

from clustr.components import build_fsck
from clustr.database import now
from clustr.domain.models import State
from clustr.services.fsck import Finding, Fsck

DEFECTS = ("missing", "orphaned", "corrupt", "undecodable", "stuck", "temporary")


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


@contextmanager
def opened(folder: Path, servers: Servers) -> Iterator[Workshop]:
    with Workshop(folder, servers, PLUGINS_ENABLED="known") as workshop:
        workshop.analyzer("known", "return {}")
        yield workshop
