"""The import: from the pictures of folders to what came of each."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from clustr.client.errors import ApiError
from clustr.client.importing.errors import QuotaSpent, UnreadableFile
from clustr.client.importing.form import Form, FormFile
from clustr.client.importing.general_words import GeneralWords
from clustr.client.importing.hashing import KnownHashes
from clustr.client.importing.ledger import Ledger, Outcome
from clustr.client.importing.progress import Progress
from clustr.client.importing.pulling import done_by, in_groups
from clustr.client.importing.service import ImportService
from clustr.client.importing.walking import Picture

HASHING_THREADS = 2
HASHED_AHEAD = 64
# One question to the service; it is asked for as many at most that new files begin to be sent soon.
ASKED_FILES = 200
ASKED_BYTES = 64 * 1024 * 1024
# One request with files: many small ones in one, while those that are lost are soon sent again.
SENT_FILES = 16
SENT_BYTES = 8 * 1024 * 1024
# The service takes 1 MiB of words in a request.
SENT_WORDS_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a picture; `code` and `detail` say why it was refused.

    Attributes:
        room_at: when the key may bring it, if that was asked.
    """

    picture: Picture
    outcome: Outcome
    code: str = ""
    detail: str = ""
    room_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture that the service lacks, with what is said of it."""

    picture: Picture
    sha256: str
    words: dict[str, Any]


class Importer:
    """Imports pictures into a service.

    Args:
        limits: what the service accepts, as it says itself.
        connections: how many requests with files are sent at once.
        is_dry_run: whether to send nothing, and only to say what would be.
    """

    def __init__(
        self,
        service: ImportService,
        limits: dict[str, Any],
        words: GeneralWords,
        known_hashes: KnownHashes,
        ledger: Ledger,
        progress: Progress,
        connections: int,
        is_dry_run: bool,
    ):
        self._service = service
        self._max_file_bytes = int(limits["max_file_bytes"])
        self._max_files = min(SENT_FILES, int(limits["max_files_per_request"]))
        self._words = words
        self._known_hashes = known_hashes
        self._ledger = ledger
        self._progress = progress
        self._is_dry_run = is_dry_run
        self._connections = connections
        # Files of that size or larger are not sent: the key may not bring them for now.
        self._no_room_bytes: float = math.inf
        self._hashing = ThreadPoolExecutor(HASHING_THREADS, "hash")
        self._sending = ThreadPoolExecutor(connections, "send")

    def __enter__(self) -> "Importer":
        return self

    def __exit__(self, *_: object) -> None:
        """End; what is being sent is broken off if something went wrong."""
        self._service.stop()
        self._hashing.shutdown(cancel_futures=True)
        self._sending.shutdown(cancel_futures=True)

    def run(self, pictures: Iterable[Picture]) -> None:
        """Import these pictures, to the end.

        Raises:
            ImportStopped: the service cannot be used any more.
        """
        new = self._new_pictures(self._hashed(self._acceptable(pictures)))
        if self._is_dry_run:
            for one in new:
                self._record(Result(one.picture, Outcome.MISSING))
            return
        groups = (
            group
            for same_words in in_groups(new, self._max_files, SENT_WORDS_BYTES, _words_bytes)
            for group in in_groups(same_words, self._max_files, SENT_BYTES, _size_bytes)
        )
        at_once = self._connections + 2  # The next ones are ready when a connection is free.
        for results in done_by(self._sending, self._send, groups, at_once):
            for result in results:
                self._record(result, was_sent=True)

    def _record(self, result: Result, was_sent: bool = False) -> None:
        picture = result.picture
        self._ledger.record(
            result.outcome, picture.path, picture.size_bytes, result.code, result.detail
        )
        if result.room_at:
            self._ledger.note_room(result.room_at)
        self._progress.add_files(1)
        if not was_sent:
            self._progress.add_bytes(picture.size_bytes)

    def _acceptable(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Leave out what is certain to be refused."""
        for picture in pictures:
            if picture.size_bytes <= self._max_file_bytes:
                yield picture
                continue
            detail = f"The file has more than the {self._max_file_bytes} bytes that are accepted."
            self._record(Result(picture, Outcome.REFUSED, "too_large", detail))

    def _hashed(self, pictures: Iterable[Picture]) -> Iterator[tuple[Picture, str]]:
        """Hash files; leave out those that cannot be read."""
        for picture, sha256, problem in done_by(self._hashing, self._hash, pictures, HASHED_AHEAD):
            if problem:
                self._record(Result(picture, Outcome.UNREADABLE, detail=problem))
            else:
                yield picture, sha256

    def _hash(self, picture: Picture) -> tuple[Picture, str, str]:
        self._service.check_stopped()
        try:
            return picture, self._known_hashes.hash_of(picture), ""
        except UnreadableFile as error:
            return picture, "", str(error)

    def _new_pictures(self, hashed: Iterable[tuple[Picture, str]]) -> Iterator[NewPicture]:
        """Leave out what the service has."""
        groups = in_groups(hashed, ASKED_FILES, ASKED_BYTES, lambda pair: pair[0].size_bytes)
        for group in groups:
            present = self._service.existing([sha256 for _, sha256 in group])
            for picture, sha256 in group:
                if sha256 in present:
                    self._record(Result(picture, Outcome.PRESENT))
                else:
                    words = self._words.with_sidecars(picture, self._ledger.note)
                    yield NewPicture(picture, sha256, words)

    def _send(self, group: Sequence[NewPicture]) -> list[Result]:
        """Send pictures in one request, or one by one when it cannot be used as a whole."""
        size_bytes = sum(one.picture.size_bytes for one in group)
        if size_bytes >= self._no_room_bytes:
            return self._send_what_there_is_room_for(group)
        sent_bytes = 0

        def on_sent(count: int) -> None:
            nonlocal sent_bytes
            sent_bytes += count
            self._progress.add_bytes(count)

        def make_form() -> Form:
            on_sent(-sent_bytes)
            files = [FormFile(o.picture.path, o.picture.size_bytes, o.words) for o in group]
            return Form(files, self._service.check_stopped, on_sent)

        try:
            answer = self._service.upload(make_form, _request_key(group), len(group) > 1)
        except QuotaSpent as error:
            on_sent(-sent_bytes)
            return self._send_what_there_is_room_for(group, error)
        except (ApiError, UnreadableFile) as error:
            of_each = error.errors if isinstance(error, ApiError) else None
            if isinstance(of_each, list):
                answer = {"data": [], "errors": of_each}
            elif len(group) > 1:
                on_sent(-sent_bytes)
                return [result for one in group for result in self._send([one])]
            else:
                on_sent(size_bytes - sent_bytes)
                return [_refusal(group[0].picture, error)]
        on_sent(size_bytes - sent_bytes)
        return [*_results(group, answer)]

    def _send_what_there_is_room_for(
        self, group: Sequence[NewPicture], error: QuotaSpent | None = None
    ) -> list[Result]:
        """Send pictures one by one, as far as the quota of the key has room for them.

        Args:
            error: what was said of the group when it was sent; None: it was not.
        """
        if len(group) > 1:
            return [result for one in group for result in self._send([one])]
        picture = group[0].picture
        self._progress.add_bytes(picture.size_bytes)
        if error is None:
            return [Result(picture, Outcome.OVER_QUOTA)]
        self._no_room_bytes = min(self._no_room_bytes, picture.size_bytes)
        room_at = datetime.now() + timedelta(seconds=error.pause_seconds)
        return [Result(picture, Outcome.OVER_QUOTA, detail=str(error), room_at=room_at)]


def _results(group: Sequence[NewPicture], answer: dict[str, Any]) -> Iterator[Result]:
    """What came of the files of a request."""
    for accepted in answer["data"]:
        outcome = Outcome.PRESENT if accepted["reused"] else Outcome.UPLOADED
        yield Result(group[accepted["index"]].picture, outcome)
    for refused in answer["errors"]:
        picture = group[refused["index"]].picture
        yield Result(picture, Outcome.REFUSED, refused["code"], refused["detail"])


def _refusal(picture: Picture, error: ApiError | UnreadableFile) -> Result:
    if isinstance(error, UnreadableFile):
        return Result(picture, Outcome.UNREADABLE, detail=str(error))
    detail = f"{error.detail} {json.dumps(error.errors) if error.errors else ''}".strip()
    return Result(picture, Outcome.REFUSED, error.code or str(error.status), detail)


def _request_key(group: Sequence[NewPicture]) -> str:
    """Name a request by what it sends: who is killed and begins again sends it under this name."""
    sent = [[one.sha256, one.picture.path.name, one.words] for one in group]
    return f"import-{hashlib.sha256(json.dumps(sent).encode()).hexdigest()}"


def _size_bytes(one: NewPicture) -> int:
    return one.picture.size_bytes


def _words_bytes(one: NewPicture) -> int:
    return len(json.dumps(one.words))
