"""A ledger: what was sent and what was answered, to be compared with what is there afterwards.

L1: every upload that was acknowledged can be read, with equal bytes. L2: every one reaches its end.
L3: nothing is visible that nobody sent, and it is whole. (L4, what `clustr fsck` finds, is told by
`WebSide.fsck`.)
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import photographs
import requests
from running import wait_until

PAGE = 100
ALONE = {"Connection": "close"}


class Ledger:
    """Uploads to one service, each request over a connection of its own.

    Attributes:
        sent: the hashes of all files that were sent, whatever came of them.
        acknowledged: the hashes of those that were answered with 201, by the ids of the uploads.
        answers: how many requests were answered with which status; None: with none.
    """

    def __init__(self, url: str):
        self.url = url
        self.sent: set[str] = set()
        self.acknowledged: dict[str, str] = {}
        self.answers: Counter[int | None] = Counter()
        self._counting = threading.Lock()

    def upload(self, *contents: bytes, key: str | None = None) -> list[str] | None:
        """Upload files in one request; the ids, if it was acknowledged."""
        self.sent.update(map(sha256, contents))
        headers = {**ALONE, **({"Idempotency-Key": key} if key else {})}
        files = [("files", ("photograph", content)) for content in contents]
        try:
            answer = requests.post(
                f"{self.url}/api/upload", files=files, headers=headers, timeout=30
            )
        except requests.RequestException:
            self._count(None)
            return None
        self._count(answer.status_code)
        if answer.status_code != 201:
            return None
        ids = [one["id"] for one in answer.json()["data"]]
        self.acknowledged.update(zip(ids, map(sha256, contents), strict=True))
        return ids

    def _count(self, status: int | None) -> None:
        with self._counting:
            self.answers[status] += 1

    def known(self, *contents: bytes) -> list[str]:
        """The ids of those uploads with these bytes that the service has."""
        hashes = [sha256(content) for content in contents]
        answer = self._ask("post", "/api/uploads/exists", json={"sha256": hashes})
        return [upload_id for upload_id in answer["data"].values() if upload_id]

    def listed(self) -> Iterator[dict[str, Any]]:
        """All uploads that the service has."""
        page = self._ask("get", "/api/uploads", params={"limit": PAGE})
        while True:
            yield from page["data"]
            if not page["next_cursor"]:
                return
            cursor = {"limit": PAGE, "cursor": page["next_cursor"]}
            page = self._ask("get", "/api/uploads", params=cursor)

    def check(self, seconds_to_end: float) -> list[str]:
        """Compare it with what is there (L1, L2, L3).

        Args:
            seconds_to_end: how long the analyses may take from now.

        Returns:
            the hash of each upload that is visible.
        """
        visible = {one["id"]: one for one in self.listed()}
        lost = [upload_id for upload_id in self.acknowledged if upload_id not in visible]
        assert not lost, f"acknowledged, but not there: {lost}"
        with requests.Session() as session:
            for upload_id, one in visible.items():
                answer = session.get(f"{self.url}/uploads/{one['filename']}", timeout=30)
                assert answer.ok, (upload_id, answer.status_code)
                found = sha256(answer.content)
                assert found == self.acknowledged.get(upload_id, found), upload_id
                assert found in self.sent, upload_id
        wait_until(self._all_ended, seconds_to_end, "the end of every upload")
        return [one["sha256"] for one in visible.values()]

    def _all_ended(self) -> bool:
        return all(one["status"] == "processed" for one in self.listed())

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = requests.request(method, f"{self.url}{path}", headers=ALONE, timeout=30, **options)
        assert answer.ok, answer.text
        return answer.json()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def pictures(number: int) -> tuple[bytes, bytes]:
    """The files of a request, others for each number; the first takes more than one read."""
    return photographs.unique("bmp", number, 400, 250), photographs.unique("jpg", number)
