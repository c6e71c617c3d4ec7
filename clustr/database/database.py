"""The `Database`: one attribute for each concern."""

from collections.abc import Sequence
from threading import Event
from typing import Any

from clustr.database import (
    analyses,
    audit,
    bulk_selection,
    counters,
    duplicates,
    jobs,
    keys,
    listing_queries,
    search_terms,
    statistics,
    trash,
    uploads,
    vectors,
    vocabulary,
)
from clustr.database.analyses import Analyses
from clustr.database.audit import Audit
from clustr.database.bulk_selection import (
    Selections,
)
from clustr.database.circuit_breakers import CircuitBreakers
from clustr.database.clock import clock
from clustr.database.connection import (
    connect,
    discover,
    require_initiated,
    translate_errors,
    translate_startup_errors,
)
from clustr.database.counters import Counters
from clustr.database.default_services import DefaultServices
from clustr.database.duplicates import Duplicates
from clustr.database.editing import Editing
from clustr.database.finished_counts import FinishedCounts
from clustr.database.forgetting import Forgetting
from clustr.database.indexes import make_indexes
from clustr.database.installation import installation_id, url_signing_key
from clustr.database.integrity import (
    Integrity,
)
from clustr.database.jobs import Jobs
from clustr.database.keys import Keys
from clustr.database.leases import Leases
from clustr.database.listing import Listing
from clustr.database.reading import Reading
from clustr.database.search import Search
from clustr.database.search_terms import SearchTerms
from clustr.database.service_calls import ServiceCalls
from clustr.database.statistics import Statistics
from clustr.database.tag_keys import TagKeys
from clustr.database.trash import Trash
from clustr.database.upload_counts import UploadCounts
from clustr.database.uploads import Uploads, result_indexes
from clustr.database.vectors import Vectors
from clustr.database.vocabulary import Vocabulary
from clustr.domain.errors import DatabaseUnavailable, StartUpError

# The indexes of the collection of uploads.
INDEXES = uploads.INDEXES | duplicates.INDEXES | listing_queries.INDEXES | analyses.INDEXES
INDEXES |= bulk_selection.INDEXES | statistics.INDEXES | search_terms.INDEXES


class Database:
    """The database, with one attribute for each concern.

    Args:
        url: the address of MongoDB.
        database: the name of the database.
        collection: the name of the collection of uploads.
        timeout_seconds: limit for every operation as a whole.
        search_languages: the languages whose words are stemmed for searches.

    Attributes:
        indexed_fields: the fields of results for which `make_result_indexes` makes an index; dots
            separate the keys of nested objects.
        closed: set once the connection is closed.
    """

    def __init__(
        self,
        url: str,
        database: str,
        collection: str,
        timeout_seconds: float,
        search_languages: Sequence[str] = ("en",),
    ):
        self._client = connect(url, timeout_seconds)
        self._timeout_seconds = timeout_seconds
        self._database = self._client[database]
        self._uploads = self._database[collection]
        self.indexed_fields: frozenset[str] = frozenset()
        self.closed = Event()
        self.duplicates = Duplicates(self._uploads)
        self.vocabulary = Vocabulary(self._database["search_vocabulary"], self._uploads)
        self.search_terms = SearchTerms(
            self._uploads, self._database["search_state"], self.vocabulary, search_languages
        )
        self.uploads = Uploads(self._uploads, self.duplicates, self.search_terms)
        self.upload_counts = UploadCounts(self._uploads, self._database["tallies"])
        self.tag_keys = TagKeys(self._uploads)
        self.listing = Listing(self._uploads, self.upload_counts, self.tag_keys)
        self.reading = Reading(self._uploads, self.tag_keys)
        self.search = Search(self._uploads, self.vocabulary, self.listing, self.tag_keys)
        self.editing = Editing(self._uploads, self.tag_keys, self.search_terms)
        self.trash = Trash(self._uploads, self.duplicates, self.tag_keys, self.search_terms)
        self.analyses = Analyses(self._uploads, clock, self.tag_keys, self.search_terms)
        self.vectors = Vectors(
            self._database["vectors"],
            self._database["vector_spaces"],
            self._uploads,
            self.tag_keys,
        )
        self.forgetting = Forgetting(
            self._uploads, self.vectors.collection, self._database["vector_spaces"]
        )
        self.circuit_breakers = CircuitBreakers(self._database["breakers"])
        self.service_calls = ServiceCalls(self._database["service_calls"])
        self.default_services = DefaultServices(self._database["default_services"], self._uploads)
        self.leases = Leases(self._database["leases"])
        self.integrity = Integrity(self._uploads, self.duplicates)
        self.jobs = Jobs(self._database["jobs"])
        self.audit = Audit(self._database["audit"])
        self.keys = Keys(self._database["keys"])
        self.selections = Selections(self._uploads, self.tag_keys, self.search_terms.stemming)
        self.finished_counts = FinishedCounts(self._uploads, self._database["finished_counts"])
        self.statistics = Statistics(self._uploads, self._database["statistics"])
        collections = [self._database[name] for name in ("tallies", "tags", "tag_spellings")]
        self.counters = Counters(self._uploads, *collections)

    def make_indexes(self) -> None:
        """Make every declared index that is missing, and replace those that differ.

        Raises:
            DatabaseUnavailable: MongoDB does not answer, or building an index takes too long.
            StartUpError: MongoDB refuses us, or the database is not Clustr's.
        """
        self._require_own_database()
        with translate_startup_errors(), translate_errors():
            make_indexes(self._uploads, INDEXES)
            make_indexes(self.trash.collection, trash.INDEXES)
            make_indexes(self._database["jobs"], jobs.INDEXES)
            make_indexes(self._database["audit"], audit.INDEXES)
            make_indexes(self._database["keys"], keys.INDEXES)
            make_indexes(self.vectors.collection, vectors.INDEXES)
            make_indexes(self._database["tags"], counters.INDEXES)
            make_indexes(self._database["search_vocabulary"], vocabulary.INDEXES)

    def make_result_indexes(self, seconds: float | None = None) -> None:
        """Make the missing indexes on results that plugins declare.

        An index that no plugin declares any more is kept, because a plugin may declare it again;
        `unused_indexes` names it.

        Args:
            seconds: the limit for all of them; by default that of any operation, which is enough
                for some 100,000 uploads.
        """
        self.uploads.make_result_indexes(
            sorted(self.indexed_fields), seconds or self._timeout_seconds
        )

    def unused_indexes(self) -> list[str]:
        """The names of existing indexes on results that no plugin declares."""
        declared = result_indexes(self.indexed_fields)
        with translate_errors():
            existing = [index["name"] for index in self._uploads.list_indexes()]
        return [name for name in existing if name.startswith("results.") and name not in declared]

    def in_use(self) -> bool:
        """Whether there is any upload, the trash included; for use at start-up.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            StartUpError: MongoDB refuses us, or the database is not Clustr's.
        """
        self._require_own_database()
        with translate_startup_errors():
            return self.uploads.any() or self.trash.any()

    def installation(self) -> str:
        """The id of this installation, which the first call makes.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            StartUpError: MongoDB refuses us, or the database is not Clustr's.
        """
        self._require_own_database()
        with translate_startup_errors(), translate_errors():
            return installation_id(self._database["installation"])

    def url_signing_key(self) -> str:
        """The key that signs addresses where no setting has one; the first call makes it.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translate_errors():
            return url_signing_key(self._database["installation"])

    def _require_own_database(self) -> None:
        """Check that the uploads are Clustr's, before anything is written to the database.

        Raises:
            StartUpError: they are not, or MongoDB cannot be used; nothing has been changed.
        """
        try:
            with translate_startup_errors():
                reason = self.uploads.why_foreign()
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
        """Refuse a MongoDB whose replica set was never initiated.

        Raises:
            StartUpError: it was not, or MongoDB refuses us; other failures raise nothing here.
        """
        with translate_startup_errors():
            discover(self._client)
        require_initiated(self._client)

    def describe(self) -> dict[str, Any]:
        """MongoDB's `version`, and whether it is `durable`: acknowledged writes survive a crash.

        Raises:
            DatabaseUnavailable: it does not answer, or refuses us.
        """
        self.uploads.any()  # The commands that follow need no credentials.
        with translate_errors():
            version = self._client.server_info()["version"]
            replica_set = self._client.admin.command("hello").get("setName")
        return {"version": version, "durable": replica_set is not None}

    def close(self) -> None:
        self.closed.set()
        self._client.close()
