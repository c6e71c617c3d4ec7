"""The `Database`: one attribute for each concern."""

from collections.abc import Sequence
from threading import Event

from clustr.database import (
    analyses,
    audit,
    bulk_selection,
    counters,
    duplicates,
    jobs,
    keys,
    listing_queries,
    old_ids,
    search_terms,
    sessions,
    shares,
    statistics,
    trash,
    uploads,
    vectors,
    vocabulary,
)
from clustr.database.circuit_breakers import CircuitBreakers
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
from clustr.database.finished_counts import FinishedCounts
from clustr.database.forgetting import Forgetting
from clustr.database.indexes import make_indexes
from clustr.database.installation import url_signing_key
from clustr.database.leases import Leases
from clustr.database.local_dates import LocalDates
from clustr.database.own_uploads import indexes_of_owners
from clustr.database.result_conditions import result_indexes
from clustr.database.search_terms import SearchTerms
from clustr.database.service_calls import ServiceCalls
from clustr.database.sessions import Sessions
from clustr.database.statistics import Statistics
from clustr.database.tag_keys import TagKeys
from clustr.database.upload_counts import UploadCounts
from clustr.database.view import DatabaseView, Upkeep
from clustr.database.vocabulary import Vocabulary
from clustr.domain.errors import DatabaseUnavailable, StartUpError

# The indexes of the collection of uploads.
INDEXES = uploads.INDEXES | duplicates.INDEXES | listing_queries.INDEXES | analyses.INDEXES
INDEXES |= bulk_selection.INDEXES | statistics.INDEXES | search_terms.INDEXES
# Those by which uploads are listed, searched and compared, for the uploads of one owner.
INDEXES |= indexes_of_owners(
    listing_queries.INDEXES_WITH_OWNERS
    | search_terms.INDEXES
    | {name: INDEXES[name] for name in (uploads.NEWEST_INDEX, duplicates.SAME_BYTES_INDEX)}
)


class Database(DatabaseView):
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
    """

    counters: Counters
    statistics: Statistics
    upload_counts: UploadCounts
    vocabulary: Vocabulary

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
        stored = self._client[database]
        self._uploads = stored[collection]
        self.indexed_fields: frozenset[str] = frozenset()
        self._views: dict[str, DatabaseView] = {}
        vocabulary = Vocabulary(stored["search_vocabulary"], self._uploads)
        upkeep = Upkeep(
            Duplicates(self._uploads),
            SearchTerms(self._uploads, stored["search_state"], vocabulary, search_languages),
            TagKeys(self._uploads),
            LocalDates(self._uploads),
            vocabulary,
        )
        super().__init__(stored, self._uploads, upkeep, Event(), owner=None)
        self.duplicates = upkeep.duplicates
        self.forgetting = Forgetting(
            self._uploads, self.vectors.collection, stored["vector_spaces"]
        )
        self.circuit_breakers = CircuitBreakers(stored["breakers"])
        self.service_calls = ServiceCalls(stored["service_calls"])
        self.default_services = DefaultServices(stored["default_services"], self._uploads)
        self.leases = Leases(stored["leases"])
        self.sessions = Sessions(stored["sessions"])
        self.finished_counts = FinishedCounts(self._uploads, stored["finished_counts"])

    def view_of(self, owner: str | None) -> DatabaseView:
        """What there is for somebody who sees only the uploads of an owner; None: all of it."""
        if owner is None:
            return self
        if owner not in self._views:
            self._views[owner] = DatabaseView(
                self._database, self._uploads, self._upkeep, self.closed, owner
            )
        return self._views[owner]

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
            make_indexes(self._database["sessions"], sessions.INDEXES)
            make_indexes(self.shares.collection, shares.INDEXES)
            make_indexes(self.vectors.collection, vectors.INDEXES)
            make_indexes(self._database["old_ids"], old_ids.INDEXES)
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
        with translate_startup_errors():
            return super().installation()

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

    def close(self) -> None:
        self.closed.set()
        self._client.close()
