"""Thumbnails: small copies of originals, made when they are first asked for and then kept."""

import io
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import BinaryIO

from clustr import logs
from clustr.database import DatabaseView
from clustr.domain.errors import RefusedFile, StorageFull
from clustr.imaging.formats import CONTENT_TYPES
from clustr.imaging.thumbnails import MIN_RATIO, WRITERS, make_thumbnails, reduce_thumbnail
from clustr.storage import ID, LocalStorage, reading

log = logs.logger(__name__)

# How they are made. Raise it when they become others: it is part of their addresses, which are
# cached for ever, and of their file names.
VERSION = 2

SIZES = (50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
DEFAULT_SIZE = 300

# The slowest, a WebP of 50 megapixels, takes some seconds to make.
WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One that can be answered.

    Attributes:
        content: open for reading.
        tag: tells it from every other.
        key: where it lies below the folder of uploads; None when it could not be kept.
    """

    content: BinaryIO
    tag: str
    key: str | None


@dataclass(frozen=True, slots=True)
class ThumbnailRequest:
    """A thumbnail that is to be made.

    Attributes:
        filename: of the original.
        keys: where all thumbnails of that lie, by size and extension.
        size, extension: of this one.
        trashed: whether the original is in the trash.
    """

    filename: str
    keys: Mapping[tuple[int, str], str]
    size: int
    extension: str
    trashed: bool = False

    def log_fields(self) -> dict[str, str | int]:
        """The fields of its log lines."""
        return {"filename": self.filename, "size": self.size, "format": self.extension}


def name_of(size: int, extension: str) -> str:
    """The name of a thumbnail, among those of its upload."""
    return f"{size}-v{VERSION}.{extension}"


def snap_size(size: int) -> int:
    """The size in `SIZES` that is served for a requested one: the same or the next larger one.

    Args:
        size: pixels of the longer side, at most the largest of `SIZES`.
    """
    return next(made for made in SIZES if made >= size)


class Thumbnails:
    """Makes thumbnails and finds those that are made."""

    def __init__(self, database: DatabaseView, storage: LocalStorage):
        self._database = database
        self._storage = storage

    def get(self, upload_id: str, size: int, extension: str) -> Thumbnail:
        """A thumbnail of an upload.

        While its original is in its place the database is not asked, but for those who see only
        some of the uploads.

        Args:
            size: pixels of its longer side at most, one of `SIZES`.
            extension: its format, one that can be written.

        Raises:
            NotFound: there is no such upload, or its original is not there.
            Empty, TooManyPixels, Undecodable, UnsupportedType: the original cannot be decoded.
            BeingMade: somebody else makes it and takes too long.
            DatabaseUnavailable, StorageUnavailable: what it is made of cannot be read.
        """
        if self._database.owner is not None or not ID.fullmatch(upload_id):
            self._database.uploads.get(upload_id)  # This says what is wrong with it.
        keys = self._keys(upload_id)
        key, tag = keys[size, extension], f"{upload_id}-{name_of(size, extension)}"
        content = self._storage.thumbnails.open(key)
        if content is not None:
            return Thumbnail(content, tag, key)
        request = ThumbnailRequest(self._find_filename(upload_id), keys, size, extension)
        return self._make_and_keep(request, tag)

    def get_trashed(self, upload_id: str, size: int, extension: str) -> Thumbnail:
        """A thumbnail of an upload of the trash; the database is asked whether it is there.

        It lies beside those of uploads under a name of its own, so that nobody is served it as one
        of an upload, and is removed with them.

        Args:
            size, extension: as for `get`.

        Raises:
            InvalidInput: this is no id.
            NotFound: it is not in the trash, or its original is not there.
            Empty, TooManyPixels, Undecodable, UnsupportedType: the original cannot be decoded.
            BeingMade: somebody else makes it and takes too long.
            DatabaseUnavailable, StorageUnavailable: what it is made of cannot be read.
        """
        filename = self._database.trash.get(upload_id).upload.filename
        keys = self._keys(upload_id, "trashed-")
        key, tag = keys[size, extension], f"{upload_id}-{name_of(size, extension)}"
        content = self._storage.thumbnails.open(key)
        if content is not None:
            return Thumbnail(content, tag, key)
        return self._make_and_keep(
            ThumbnailRequest(filename, keys, size, extension, trashed=True), tag
        )

    def _keys(self, upload_id: str, prefix: str = "") -> dict[tuple[int, str], str]:
        """Where all thumbnails of an upload lie, by size and extension."""
        return {
            (size, extension): self._storage.thumbnails.key(
                upload_id, f"{prefix}{name_of(size, extension)}"
            )
            for extension in WRITERS
            for size in SIZES
        }

    def _make_and_keep(self, request: ThumbnailRequest, tag: str) -> Thumbnail:
        """A thumbnail that was not there a moment ago, made and kept where that can be."""
        key = request.keys[request.size, request.extension]
        try:
            with self._storage.thumbnails.making(
                key, request.keys.values(), WAIT_SECONDS
            ) as wanted:
                content = self._storage.thumbnails.open(key)  # Another may have made it meanwhile.
                if content is not None:
                    return Thumbnail(content, tag, key)
                made, is_kept = self._make_wanted(request, wanted)
                return Thumbnail(io.BytesIO(made), tag, key if is_kept else None)
        except StorageFull:  # The store is full or can only be read: then it is made each time.
            [(_, made)] = self._make(request, lambda: [(request.size, request.extension)])
            return Thumbnail(io.BytesIO(made), tag, None)

    def _make_wanted(
        self, request: ThumbnailRequest, wanted: Callable[[], Collection[str]]
    ) -> tuple[bytes, bool]:
        """Make what is requested, and all else that others wait for; whether that could be kept.

        Args:
            wanted: says where those are to lie that are waited for.
        """
        by_key = {key: each for each, key in request.keys.items()}
        mine: bytes | None = None
        is_kept = False
        for each, made in self._make(request, lambda: [by_key[key] for key in wanted()]):
            kept = self._keep(request.keys[each], request.filename, made, request.trashed)
            if each == (request.size, request.extension):
                mine, is_kept = made, kept
        assert mine is not None  # It is always among those that are wanted.
        return mine, is_kept

    def _find_filename(self, upload_id: str) -> str:
        """The file name of an original, by the names that it can have."""
        for extension in CONTENT_TYPES:
            filename = f"{upload_id}.{extension}"
            if self._storage.has(filename):
                return filename
        return self._database.uploads.get(upload_id).filename  # This says what is wrong, too.

    def _make(
        self, request: ThumbnailRequest, wanted: Callable[[], Collection[tuple[int, str]]]
    ) -> Iterator[tuple[tuple[int, str], bytes]]:
        """Make thumbnails by one decode: this one of a larger, or all of the original."""
        made = self._make_smaller(request)
        if made is not None:
            log.info("thumbnail_made", **request.log_fields(), source="thumbnail")
            yield (request.size, request.extension), made
            return
        open_original = self._storage.open_trashed if request.trashed else self._storage.open
        decode = token_hex(4)
        with open_original(request.filename) as file, reading(), _logging_refusal(request):
            for (size, extension), made in make_thumbnails(file, wanted):
                one = replace(request, size=size, extension=extension)
                log.info("thumbnail_made", **one.log_fields(), source="original", decode=decode)
                yield (size, extension), made

    def _make_smaller(self, request: ThumbnailRequest) -> bytes | None:
        """Make a thumbnail of the smallest that is kept in its format and large enough."""
        for size in SIZES:
            if size >= MIN_RATIO * request.size:
                larger = self._storage.thumbnails.open(request.keys[size, request.extension])
                if larger is None:
                    continue
                try:
                    with larger as file, reading():
                        made = reduce_thumbnail(file, request.size, request.extension)
                except RefusedFile as error:
                    log.warning(
                        "thumbnail_broken", **request.log_fields(), larger=size, error=str(error)
                    )
                    continue
                if made is not None:
                    return made
        return None

    def _keep(self, key: str, filename: str, made: bytes, trashed: bool) -> bool:
        try:
            return self._storage.thumbnails.store(key, filename, [made], trashed)
        except StorageFull:
            return False


@contextmanager
def _logging_refusal(request: ThumbnailRequest) -> Iterator[None]:
    """Log why an original cannot be decoded: it could when it was accepted."""
    try:
        yield
    except RefusedFile as error:
        log.warning(
            "original_refused", **request.log_fields(), error=repr(error.__cause__ or error)
        )
        raise
