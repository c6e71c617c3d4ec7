"""`clustr import --from-predecessor`: takes over the predecessor's database and folder."""

from pathlib import Path

from clustr import logs
from clustr.cli.refusals import refuse_errors
from clustr.cli.running_service import read_settings_of_running_service
from clustr.client.importing import Ledger, Outcome
from clustr.components import build_take_over
from clustr.services.predecessor import Kind

OUTCOMES = {
    Kind.TAKEN: Outcome.UPLOADED,
    Kind.PRESENT: Outcome.PRESENT,
    Kind.NOT_TAKEN: Outcome.REFUSED,
    Kind.FACES_LOST: Outcome.WORDS_LOST,
}


def import_predecessor(url: str, collection: str, folder: Path, ledger: Ledger) -> None:
    """Take over all uploads, and record what came of each under its old id.

    Args:
        url: of the predecessor's MongoDB.
        collection: in which it has its uploads.
        folder: where the predecessor stored its files.
    """
    settings = read_settings_of_running_service()
    logs.configure(settings.log_format, "error")
    with refuse_errors(), build_take_over(settings, url, collection) as take_over:
        for result in take_over.run(folder):
            ledger.record(
                OUTCOMES[result.kind],
                Path(result.name),
                result.size_bytes,
                detail=result.reason,
            )
