"""The database as a caller sees it: with all uploads, or with those of one owner alone.

`DatabaseView` has one attribute for each concern of requests and jobs. With an owner, every one of
them asks a collection that has the owner's uploads alone; see `clustr.database.own_uploads`.
"""

from dataclasses import dataclass
from threading import Event
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database as MongoDatabase

from clustr.database.analyses import Analyses
from clustr.database.audit import Audit
from clustr.database.bulk_selection import Selections
from clustr.database.clock import clock
from clustr.database.connection import Document, translate_errors
from clustr.database.counters import Counters
from clustr.database.duplicates import Duplicates
from clustr.database.editing import Editing
from clustr.database.installation import installation_id
from clustr.database.integrity import Integrity
from clustr.database.jobs import Jobs
from clustr.database.keys import Keys
from clustr.database.listing import Listing
from clustr.database.local_dates import LocalDates
from clustr.database.old_ids import OldIds
from clustr.database.own_counts import OwnCounters, OwnStatistics, OwnUploadCounts
from clustr.database.own_uploads import own_uploads
from clustr.database.own_vocabulary import OwnVocabulary
from clustr.database.reading import Reading
from clustr.database.search import Search
from clustr.database.search_terms import SearchTerms
from clustr.database.shares import Shares
from clustr.database.statistics import Statistics
from clustr.database.tag_keys import TagKeys
from clustr.database.timeline import Timelines
from clustr.database.trash import Trash
from clustr.database.upload_counts import UploadCounts
from clustr.database.uploads import Uploads
from clustr.database.vectors import Vectors
from clustr.database.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What keeps the fields of uploads right, whoever has changed them: it sees all uploads."""

    duplicates: Duplicates
    search_terms: SearchTerms
    tag_keys: TagKeys
    local_dates: LocalDates
    vocabulary: Vocabulary


class DatabaseView:
    """The uploads that somebody may see, and what can be done with them.

    Args:
        database: all collections.
        uploads: all uploads.
        upkeep: shared by all views.
        owner: whose uploads are the only ones there are; None: all are.

    Attributes:
        closed: set once the connection is closed.
    """

    counters: Counters | OwnCounters
    statistics: Statistics | OwnStatistics
    upload_counts: UploadCounts | OwnUploadCounts
    vocabulary: Vocabulary | OwnVocabulary

    def __init__(
        self,
        database: MongoDatabase[Document],
        uploads: Collection[Document],
        upkeep: Upkeep,
        closed: Event,
        owner: str | None,
    ):
        self.owner = owner
        self.closed = closed
        self._database = database
        self._upkeep = upkeep
        self.tag_keys = upkeep.tag_keys
        self.local_dates = upkeep.local_dates
        self.search_terms = upkeep.search_terms
        if owner is None:
            self._count_all(uploads)
        else:
            uploads = own_uploads(uploads, owner)
            self._count_own(uploads)
        self.uploads = Uploads(uploads, upkeep.duplicates, upkeep.search_terms, owner)
        self.listing = Listing(
            uploads, self.upload_counts, upkeep.tag_keys, upkeep.local_dates, owner
        )
        self.reading = Reading(uploads, upkeep.tag_keys)
        self.search = Search(uploads, self.vocabulary, self.listing, upkeep.tag_keys, owner)
        self.timelines = Timelines(uploads, self.search, upkeep.tag_keys, upkeep.local_dates, owner)
        self.editing = Editing(uploads, upkeep.tag_keys, upkeep.search_terms)
        self.trash = Trash(uploads, upkeep.duplicates, upkeep.tag_keys, upkeep.search_terms)
        self.analyses = Analyses(uploads, clock, upkeep.tag_keys, upkeep.search_terms)
        self.vectors = Vectors(
            database["vectors"], database["vector_spaces"], uploads, upkeep.tag_keys
        )
        self.integrity = Integrity(uploads, upkeep.duplicates)
        self.jobs = Jobs(database["jobs"], owner)
        # No key that sees only its own uploads has a scope for these.
        self.keys = Keys(database["keys"])
        self.audit = Audit(database["audit"])
        self.old_ids = OldIds(database["old_ids"], uploads)
        # Views ask for the upload first, which only its owner finds.
        self.shares = Shares(database["shares"], self.keys)
        self.selections = Selections(uploads, upkeep.tag_keys, upkeep.search_terms.stemming)

    def _count_all(self, uploads: Collection[Document]) -> None:
        self.vocabulary = self._upkeep.vocabulary
        self.upload_counts = UploadCounts(uploads, self._database["tallies"])
        self.statistics = Statistics(uploads, self._database["statistics"])
        collections = [self._database[name] for name in ("tallies", "tags", "tag_spellings")]
        self.counters = Counters(uploads, *collections)

    def _count_own(self, uploads: Collection[Document]) -> None:
        """Count what is asked for: the counts that are kept are of all uploads."""
        self.vocabulary = OwnVocabulary(uploads)
        self.upload_counts = OwnUploadCounts(uploads)
        self.statistics = OwnStatistics(uploads)
        self.counters = OwnCounters(uploads)

    def installation(self) -> str:
        """The id of this installation, which the first call makes.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translate_errors():
            return installation_id(self._database["installation"])

    def describe(self) -> dict[str, Any]:
        """MongoDB's `version`, and whether it is `durable`: acknowledged writes survive a crash.

        Raises:
            DatabaseUnavailable: it does not answer, or refuses us.
        """
        self.uploads.any()  # The commands that follow need no credentials.
        client = self._database.client
        with translate_errors():
            version = client.server_info()["version"]
            replica_set = client.admin.command("hello").get("setName")
        return {"version": version, "durable": replica_set is not None}
