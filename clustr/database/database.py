"""All that is asked of MongoDB, by concern."""

from threading import Event
from typing import Any

from clustr.database import (
    analyses,
    bulk_selection,
    counters,
    duplicates,
    jobs,
    listing,
    search,
    statistics,
    trash,
    uploads,
)
from clustr.database.analyses import Analyses
from clustr.database.bulk_selection import (
    BulkSelection,
)
from clustr.database.change_watch import ChangeWatch
from clustr.database.circuit_breakers import CircuitBreakers
from clustr.database.clock import clock
from clustr.database.connection import answering, connect, discover, require_initiated, starting
from clustr.database.counters import Counters
from clustr.database.default_services import DefaultServices
from clustr.database.duplicates import Duplicates
from clustr.database.editing import Editing
from clustr.database.indexes import make_indexes
from clustr.database.installation import installation_id
from clustr.database.integrity import (
    IntegrityQueries,
)
from clustr.database.jobs import Jobs
from clustr.database.leases import Leases
from clustr.database.listing import Listing
from clustr.database.search import Search
from clustr.database.statistics import Statistics
from clustr.database.tag_keys import TagKeys
from clustr.database.trash import Trash
from clustr.database.upload_counts import UploadCounts
from clustr.database.uploads import Uploads, result_indexes
from clustr.domain.errors import DatabaseUnavailable, StartUpError

# Those of the collection of uploads.
INDEXES = uploads.INDEXES | duplicates.INDEXES | listing.INDEXES | search.INDEXES | analyses.INDEXES
INDEXES |= bulk_selection.INDEXES | statistics.INDEXES


class Database:
    """The database, a part for each concern.

    Args:
        url: where MongoDB is.
        database: the name of the database.
        collection: the name of the collection of uploads.
        timeout_seconds: limit for every operation as a whole.

    Attributes:
        indexed: the fields of results that `make_result_indexes` makes an index for; with dots
            for one inside another.
        closed: set when nothing can be asked any more.
    """

    def __init__(self, url: str, database: str, collection: str, timeout_seconds: float):
        self._client = connect(url, timeout_seconds)
        self._timeout_seconds = timeout_seconds
        self._database = self._client[database]
        self._uploads = self._database[collection]
        self.indexed: frozenset[str] = frozenset()
        self.closed = Event()
        self.duplicates = Duplicates(self._uploads)
        self.uploads = Uploads(self._uploads, self.duplicates)
        self.counting = UploadCounts(self._uploads, self._database["tallies"])
        self.tag_keys = TagKeys(self._uploads)
        self.listing = Listing(self._uploads, self.counting, self.tag_keys)
        self.search = Search(self._uploads, self.counting, self.listing, self.tag_keys)
        self.editing = Editing(self._uploads, self.tag_keys)
        self.trash = Trash(self._uploads, self.duplicates, self.tag_keys)
        self.analyses = Analyses(self._uploads, clock, self.tag_keys)
        self.circuit_breakers = CircuitBreakers(self._database["breakers"])
        self.default_services = DefaultServices(self._database["default_services"], self._uploads)
        self.leases = Leases(self._database["leases"])
        self.integrity = IntegrityQueries(self._uploads, self.duplicates)
        self.jobs = Jobs(self._database["jobs"])
        self.selections = BulkSelection(self._uploads, self.tag_keys)
        self.change_watch = ChangeWatch(self._uploads)
        self.statistics = Statistics(self._uploads, self._database["statistics"])
        counted = [self._database[name] for name in ("tallies", "tags", "tag_spellings")]
        self.counters = Counters(self._uploads, *counted)

    def make_indexes(self) -> None:
        """Make every index that is declared and not there yet, and anew what is there otherwise.

        Raises:
            DatabaseUnavailable: MongoDB does not answer, or they take too long to be made.
            StartUpError: MongoDB does not let us, or the database is not Clustr's.
        """
        self._require_ours()
        with starting(), answering():
            make_indexes(self._uploads, INDEXES)
            make_indexes(self.trash.collection, trash.INDEXES)
            make_indexes(self._database["jobs"], jobs.INDEXES)
            make_indexes(self._database["tags"], counters.INDEXES)

    def make_result_indexes(self, seconds: float | None = None) -> None:
        """Make the indexes on results that plugins ask for and that are not there yet.

        One that no plugin asks for any more is left, for it may be asked for again;
        `unused_indexes` names it.

        Args:
            seconds: how long that may take in all; by default the limit of any operation, in which
                those of some 100,000 uploads are made.
        """
        self.uploads.index_results(sorted(self.indexed), seconds or self._timeout_seconds)

    def unused_indexes(self) -> list[str]:
        """The names of the indexes on results that are there and that no plugin asks for."""
        asked_for = result_indexes(self.indexed)
        with answering():
            there = [index["name"] for index in self._uploads.list_indexes()]
        return [name for name in there if name.startswith("results.") and name not in asked_for]

    def in_use(self) -> bool:
        """Whether there is an upload, in the trash at least, asked at a start.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            StartUpError: MongoDB does not let us, or the database is not Clustr's.
        """
        self._require_ours()
        with starting():
            return self.uploads.any() or self.trash.any()

    def installation(self) -> str:
        """The id of this installation, which is made the first time that it is asked for.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            StartUpError: MongoDB does not let us, or the database is not Clustr's.
        """
        self._require_ours()
        with starting(), answering():
            return installation_id(self._database["installation"])

    def _require_ours(self) -> None:
        """See that the uploads are Clustr's, before anything is made beside them.

        Raises:
            StartUpError: they are not, or MongoDB cannot be used; nothing has been changed.
        """
        try:
            with starting():
                reason = self.uploads.foreign()
        except DatabaseUnavailable:
            require_initiated(self._client)
            raise
        if reason:
            raise StartUpError(
                f"MONGODB_DATABASE={self._database.name} is not a database of Clustr's: its "
                f"collection {self._uploads.name} has records that others have written ({reason}) "
                "and none of Clustr's; choose another with MONGODB_DATABASE or "
                "MONGODB_UPLOADS_COLLECTION"
            )

    def require_initiated(self) -> None:
        """See that MongoDB is not a replica set that was never initiated.

        Raises:
            StartUpError: it is, or MongoDB does not let us; another failure is not said here.
        """
        with starting():
            discover(self._client)
        require_initiated(self._client)

    def describe(self) -> dict[str, Any]:
        """MongoDB's version, and whether what it acknowledges survives a crash.

        Raises:
            DatabaseUnavailable: it does not answer, or does not let us in.
        """
        self.uploads.any()  # What follows it would tell anybody.
        with answering():
            version = self._client.server_info()["version"]
            replica_set = self._client.admin.command("hello").get("setName")
        return {"version": version, "durable": replica_set is not None}

    def close(self) -> None:
        self.closed.set()
        self._client.close()
