"""`clustr import`: sends the pictures of folders to a service, here or elsewhere."""

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from clustr.cli.refusals import refuse
from clustr.cli.running_service import find_service_url
from clustr.client.importing import (
    GeneralWords,
    Importer,
    ImportService,
    ImportStopped,
    KnownHashes,
    Ledger,
    Note,
    Outcome,
    Picture,
    Progress,
    Watch,
    hashes_file,
    make_progress,
    walk,
)

# Exit codes; `refuse` exits with 2.
ALL_THERE, SOME_MISSING, INTERRUPTED = 0, 1, 130
# A service that is restarted or updated is back by then.
PATIENCE_SECONDS = 300.0
FROM_PREDECESSOR, UPLOADS_COLLECTION = "--from-predecessor", "--uploads-collection"
OF_PREDECESSOR = (FROM_PREDECESSOR, UPLOADS_COLLECTION, "--report")


@click.command(name="import")
@click.argument(
    "folders",
    metavar="FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--url", help="Where the service is; by default the one that this account runs.")
@click.option("--key", envvar="CLUSTR_KEY", help="A key of the service; better as CLUSTR_KEY.")
@click.option("--tag", "tags", multiple=True, help="A tag for every new picture; may be repeated.")
@click.option("--tags-from-folders", is_flag=True, help="The names of folders below FOLDER, too.")
@click.option("--dry-run", is_flag=True, help="Send nothing; say what would be sent.")
@click.option("--watch", is_flag=True, help="Go on with files that come, until Ctrl-C.")
@click.option(
    "--connections",
    default=4,
    show_default=True,
    type=click.IntRange(1, 32),
    help="How many requests are sent at once.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write which files were refused and why (CSV); by default into this folder.",
)
@click.option(
    FROM_PREDECESSOR,
    "predecessor",
    metavar="MONGODB_URL",
    help="Take over the uploads of the FastAPI predecessor, whose files are in FOLDER.",
)
@click.option(
    UPLOADS_COLLECTION,
    metavar="NAME",
    default="uploads",
    show_default=True,
    help="What the predecessor's MONGODB_UPLOADS_COLLECTION was.",
)
@click.pass_context
def import_folders(
    context: click.Context,
    folders: tuple[Path, ...],
    url: str | None,
    key: str | None,
    tags: tuple[str, ...],
    tags_from_folders: bool,
    dry_run: bool,
    watch: bool,
    connections: int,
    report: Path | None,
    predecessor: str | None,
    uploads_collection: str,
) -> None:
    """Import the pictures of folders, with all folders in them.

    What the service has already, by its content, is not sent again: after Ctrl-C or a crash the
    same command goes on. Words, of options and of files such as photo.jpg.xmp, go with new pictures
    only. Links are not followed; hidden files and the folders of systems, such as @eaDir, are left
    out.

    Exit code: 0 when all pictures are there, 1 when some were refused or could not be read, 2 when
    the service could not be used, 130 after Ctrl-C.
    """
    refuse_options_without_effect(context)
    if predecessor is not None:
        if len(folders) > 1:
            refuse(f"{FROM_PREDECESSOR} takes one FOLDER: that with the predecessor's files")
        run = partial(take_over, predecessor, uploads_collection, folders[0])
    else:
        patience_seconds = math.inf if watch else PATIENCE_SECONDS
        service = ImportService(url or find_service_url(has_key=bool(key)), key, patience_seconds)
        words = GeneralWords(tags, tags_from_folders)
        run = partial(run_import, folders, service, words, connections, dry_run, watch)
    problem, exit_code = "", ALL_THERE
    with Ledger(report or default_report()) as ledger:
        try:
            run(ledger)
        except ImportStopped as error:
            problem = str(error)
        except KeyboardInterrupt:
            exit_code = INTERRUPTED
    print_table(ledger)
    if problem:
        refuse(problem)
    sys.exit(exit_code or (ALL_THERE if ledger.is_clean else SOME_MISSING))


def refuse_options_without_effect(context: click.Context) -> None:
    """Refuse what was given on the command line, and not in the environment, for nothing."""
    given = [
        option.opts[0]
        for option in context.command.params
        if isinstance(option, click.Option)
        and context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    ]
    if FROM_PREDECESSOR not in given:
        if UPLOADS_COLLECTION in given:
            refuse(f"{UPLOADS_COLLECTION} says nothing without {FROM_PREDECESSOR}")
    elif unfit := [name for name in given if name not in OF_PREDECESSOR]:
        others = " and ".join(OF_PREDECESSOR[1:])
        refuse(f"{', '.join(unfit)} cannot be given with {FROM_PREDECESSOR}, but {others} can")


def take_over(url: str, collection: str, folder: Path, ledger: Ledger) -> None:
    """Take over what the predecessor has."""
    # Its imports, of all that the service is made of, take longer than those of the other imports.
    from clustr.cli.import_predecessor import import_predecessor  # noqa: PLC0415

    import_predecessor(url, collection, folder, ledger)


def default_report() -> Path:
    """A file of this import alone, so that it is not taken for that of another one."""
    return Path(f"clustr-import-{datetime.now():%Y%m%d-%H%M%S}.csv")


def run_import(
    folders: Sequence[Path],
    service: ImportService,
    words: GeneralWords,
    connections: int,
    dry_run: bool,
    watch: bool,
    ledger: Ledger,
) -> None:
    """Import the folders, and show how far it is; with `watch` without end.

    Raises:
        ImportStopped: the service cannot be used.
    """
    limits = service.limits()
    extensions = frozenset(e for format in limits["formats"] for e in format["extensions"])
    with (
        make_progress(Console(stderr=True)) as progress,
        contextlib.closing(KnownHashes(hashes_file())) as hashes,
        Importer(
            service, limits, words, hashes, ledger, progress, connections, dry_run
        ) as importer,
    ):
        find = partial(find_pictures, folders, extensions)
        if watch:
            for pictures in Watch(find, ledger.note).rounds():
                importer.run(expected(pictures, progress))
        for _ in expected(find(lambda *_: None), progress):
            pass
        importer.run(find(ledger.note))


def expected(pictures: Iterable[Picture], progress: Progress) -> Iterator[Picture]:
    """Say of each picture that there is as much to do."""
    for picture in pictures:
        progress.expect(1, picture.size_bytes)
        yield picture


def find_pictures(
    folders: Iterable[Path], extensions: frozenset[str], note: Note
) -> Iterator[Picture]:
    """Find the pictures of all folders, as `walk` finds those of one."""
    for folder in folders:
        yield from walk(folder, extensions, note)


def print_table(ledger: Ledger) -> None:
    """Print what came of files, and where those that need attention are listed."""
    table = Table(box=None, show_header=False)
    for justify in ("right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for outcome in Outcome:
        for code in sorted(code for kind, code in ledger.counts if kind is outcome):
            size_bytes = ledger.sizes_bytes[outcome, code]
            table.add_row(
                f"{ledger.counts[outcome, code]:,}",
                decimal(size_bytes) if size_bytes else "",
                f"{outcome}: {code}" if code else str(outcome),
            )
    Console(soft_wrap=True).print(table)
    if not ledger.is_clean:
        click.echo(f"Which and why: {ledger.report}")
    if ledger.room_at:
        click.echo(
            f"From {ledger.room_at:%Y-%m-%d %H:%M} on the key may bring more of them: the same "
            "command goes on then."
        )
