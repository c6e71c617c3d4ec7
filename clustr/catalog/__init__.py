"""The catalog: everything that Clustr knows, in MongoDB. Only this package knows PyMongo."""

from typing import Any

from clustr.catalog import analyses, uploads
from clustr.catalog.analyses import Analyses, Claimed, Deferred, Finished
from clustr.catalog.breakers import Breaker, Breakers
from clustr.catalog.clock import clock, now
from clustr.catalog.connection import answering, connect, starting
from clustr.catalog.indexes import make_indexes
from clustr.catalog.inspection import Inspection, Pending, Record
from clustr.catalog.leases import Leases
from clustr.catalog.uploads import Page, Uploads, new_id

__all__ = [
    "Breaker",
    "Catalog",
    "Claimed",
    "Deferred",
    "Finished",
    "Page",
    "Pending",
    "Record",
    "new_id",
    "now",
]


class Catalog:
    """The database, a part for each concern.

    Args:
        url: where MongoDB is.
        database: the name of the database.
        collection: the name of the collection of uploads.
        timeout_seconds: limit for every operation as a whole.
    """

    def __init__(self, url: str, database: str, collection: str, timeout_seconds: float):
        self._client = connect(url, timeout_seconds)
        self._database = self._client[database]
        self._uploads = self._database[collection]
        self.uploads = Uploads(self._uploads)
        self.analyses = Analyses(self._uploads, clock)
        self.breakers = Breakers(self._database["breakers"])
        self.leases = Leases(self._database["leases"])
        self.inspection = Inspection(self._uploads)

    def make_indexes(self) -> None:
        """Make every index that is declared and not there yet, and anew what is there otherwise.

        Raises:
            DatabaseUnavailable: MongoDB does not answer, or they take too long to be made.
            StartUpError: MongoDB does not let us.
        """
        with starting(), answering():
            make_indexes(self._uploads, {**uploads.INDEXES, **analyses.INDEXES})

    def in_use(self) -> bool:
        """Whether there is an upload, asked at a start.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            StartUpError: MongoDB does not let us.
        """
        with starting():
            return self.uploads.any()

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
        self._client.close()
