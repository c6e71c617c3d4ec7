"""The floor of the engine: a bare loop that does the same work in MongoDB, with nothing else."""

import os

import pymongo
from pymongo import UpdateOne, WriteConcern

from clustr.database import now
from clustr.database.analyses import WORK_INDEX
from clustr.database.analysis_updates import settle_stages, update_of_analysis, with_analysis

BATCH = 100
NAME = "empty"
PROVENANCE = {"plugin": NAME, "plugin_version": None, "model": {}, "config_hash": "0" * 16}


def claim(uploads: pymongo.collection.Collection) -> list[object]:
    """Take some that are queued; their keys."""
    queued = with_analysis(name=NAME, state="queued")
    stages = [{"$match": queued}, {"$limit": BATCH}, {"$unset": "analyses.result"}]
    keys = [document["_id"] for document in uploads.aggregate(stages, hint=WORK_INDEX)]
    moment = now()
    taken = {"state": "running", "run": "floor", "lease_until": moment, "started_at": moment}
    changes = {f"analyses.$[it].{key}": value for key, value in taken.items()}
    uploads.with_options(write_concern=WriteConcern(w=1)).update_many(
        {"_id": {"$in": keys}, **queued},
        {
            "$set": {**changes, "analyses.$[bare].version": 1},
            "$inc": {"analyses.$[it].attempts": 1},
            "$unset": {"analyses.$[it].finished_at": ""},
        },
        array_filters=[
            {"it.name": NAME, "it.state": "queued"},
            {"bare.name": NAME, "bare.result": {"$exists": False}},
        ],
    )
    return keys


def finish(uploads: pymongo.collection.Collection, keys: list[object]) -> None:
    """Write down an empty result for each."""
    moment = now()
    ended = {
        "state": "succeeded",
        "error": None,
        "finished_at": moment,
        "result": {},
        "version": 1,
        "provenance": PROVENANCE,
    }
    held = with_analysis(name=NAME, state="running", run="floor")
    change = [*update_of_analysis(NAME, ended, {}, moment), *settle_stages()]
    uploads.bulk_write([UpdateOne({"_id": key, **held}, change) for key in keys], ordered=False)


def main() -> None:
    """Work until nothing is queued."""
    client = pymongo.MongoClient(
        os.environ["MONGODB_URL"], tz_aware=True, w="majority", journal=True
    )
    uploads = client[os.environ["MONGODB_DATABASE"]]["uploads"]
    while keys := claim(uploads):
        finish(uploads, keys)


if __name__ == "__main__":
    main()
