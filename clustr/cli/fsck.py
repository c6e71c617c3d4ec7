"""`clustr fsck`: checks files and records against each other, and repairs them."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import click
import orjson

from clustr import logs
from clustr.cli.refusals import error_message, refuse
from clustr.cli.running_service import read_settings_of_running_service
from clustr.components import build_fsck
from clustr.domain.errors import ClustrError
from clustr.services.fsck import Finding, FindingKind, Fsck, RepairRefused

# Exit codes; `refuse` exits with 2.
CLEAN, FOUND = 0, 1


@click.command()
@click.option("--repair", is_flag=True, help="Put right what is found; asks first.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--quick", is_flag=True, help="Do not read the files, only look whether they fit.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--grace",
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0),
    help="How old a file must be to count as orphaned or left behind; more than an upload takes.",
)
@click.option(
    "--limit",
    default=10.0,
    show_default=True,
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    help="Refuse a repair that would take away more of all uploads, and more than ten.",
)
def fsck(repair: bool, yes: bool, quick: bool, as_json: bool, grace: float, limit: float) -> None:
    """Check that every upload has its file, as it was, and every file its upload.

    It may run while uploads come in. A repair deletes nothing but what is left of uploads without
    an end, and thumbnails of what is not there: files go into UPLOAD_FOLDER/.quarantine/<kind>,
    records into the collection of uploads' neighbour <name>_quarantine. Analyses that are stuck are
    queued again, or cancelled when no plugin brings their analyzer. What is unreadable or foreign
    is left alone.

    Exit code: 0 when nothing is wrong or all was repaired (foreign files are nothing wrong), 1 when
    something is wrong, 2 when it was refused or could not be done.
    """
    if repair and not yes and not sys.stdin.isatty():
        refuse("--repair has to ask, and this is no terminal: say --yes, or leave it out")
    settings = read_settings_of_running_service()
    logs.configure(settings.log_format, settings.log_level)
    try:
        with build_fsck(settings, timedelta(seconds=grace), quick) as check:
            findings = collect_findings(check, as_json)
            repaired: list[Finding] = []
            reason = check.refusal_reason(findings, limit) if repair else None
            if repair and not reason and confirm_repair(findings, yes):
                reason = repair_findings(check, findings, repaired)
            print_report(check.checked, findings, repaired, as_json)
    except (RepairRefused, ClustrError) as error:
        refuse(error_message(error))
    if reason:
        refuse(reason)
    wrong = [finding for finding in findings if finding.kind is not FindingKind.FOREIGN]
    sys.exit(FOUND if len(wrong) > len(repaired) else CLEAN)


def collect_findings(check: Fsck, as_json: bool) -> list[Finding]:
    """Collect all findings; without `as_json`, print each when it is found."""
    findings = []
    for finding in check.findings():
        findings.append(finding)
        if not as_json:
            subject = finding.file or finding.id
            click.echo(f"{finding.kind:<12} {subject}: {finding.detail}")
    return findings


def repair_findings(
    check: Fsck, findings: Sequence[Finding], repaired: list[Finding]
) -> str | None:
    """Repair the findings, adding each to `repaired`; return the error that stopped it, or None."""
    try:
        for finding in findings:
            if check.repair(finding):
                repaired.append(finding)
    except (RepairRefused, ClustrError) as error:
        return error_message(error)
    return None


def confirm_repair(findings: Sequence[Finding], yes: bool) -> bool:
    """Ask whether to repair, unless `yes`; False when nothing can be repaired."""
    repairable = [finding for finding in findings if finding.repairable]
    if yes or not repairable:
        return bool(repairable)
    return click.confirm(f"Repair {format_counts(repairable)}?", err=True)


def print_report(
    checked: Counter[str], findings: Sequence[Finding], repaired: Sequence[Finding], as_json: bool
) -> None:
    if as_json:
        document = {
            "checked": checked,
            "findings": [dump_finding(finding) for finding in findings],
            "repaired": [dump_finding(finding) for finding in repaired],
        }
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return
    click.echo(f"Checked {checked['uploads']} uploads and {checked['files']} files.")
    click.echo(f"Found {format_counts(findings)}." if findings else "Nothing is wrong.")
    if repaired:
        click.echo(f"Repaired {format_counts(repaired)}.")


def format_counts(findings: Iterable[Finding]) -> str:
    """Format how many findings of each kind there are, such as `2 orphaned`."""
    counts = Counter(finding.kind for finding in findings)
    return ", ".join(f"{counts[kind]} {kind}" for kind in FindingKind if counts[kind])


def dump_finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "id": finding.id,
        "file": finding.file,
        "detail": finding.detail,
    }
