"""Which analyses of an analyzer are selected to be run (again), and the queries for them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from clustr.database.analysis_updates import with_analysis
from clustr.database.connection import Document
from clustr.domain.models import UNFINISHED, State
from clustr.plugins import Analyzer

ENDED_STATES = tuple(state for state in State if state not in UNFINISHED)
NO_CONDITIONS: Document = {}


class AnalysisSelection(StrEnum):
    """Which analyses of an analyzer are selected, among those that are not in progress."""

    MISSING = "missing"  # no result, and no reason recorded why there is none
    STALE = "stale"  # produced by an earlier version of the analyzer
    OTHER_CONFIG = "other_config"  # produced with another configuration of its plugin
    FAILED = "failed"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class ReanalysisSelection:
    """Which uploads one analyzer is to analyze (again).

    Attributes:
        analyzer: its name.
        ids: the only uploads to consider; None for all.
        filter: which of those, in the form that `filter_from_query` takes.
        limit: the largest number of uploads, the oldest first; None for all.
        config_hash: of the configuration of the analyzer's plugin, where `select` asks for others.
    """

    analyzer: str
    select: AnalysisSelection
    ids: tuple[str, ...] | None = None
    filter: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    config_hash: str | None = None

    def parameters(self) -> dict[str, Any]:
        """The parameters of a job for this selection, without those that are not set."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}

    @staticmethod
    def from_parameters(parameters: Mapping[str, Any]) -> "ReanalysisSelection":
        """The selection of a job with these parameters."""
        ids = parameters.get("ids")
        return ReanalysisSelection(
            analyzer=parameters["analyzer"],
            select=AnalysisSelection(parameters["select"]),
            ids=tuple(ids) if ids is not None else None,
            filter=parameters.get("filter", {}),
            limit=parameters.get("limit"),
            config_hash=parameters.get("config_hash"),
        )


def analysis_query(
    selection: ReanalysisSelection, analyzer: Analyzer, others: Document
) -> Document:
    """A query for the uploads whose analysis is to be run (again)."""
    name, select = analyzer.name, selection.select
    absent = {"analyses.name": {"$ne": name}}
    if select is AnalysisSelection.FAILED:
        return with_analysis(name=name, state=State.FAILED, **others)
    ended = {"name": name, "state": {"$in": ENDED_STATES}, **others}
    if select is AnalysisSelection.STALE:
        return with_analysis(**ended, version={"$lt": analyzer.version})
    if select is AnalysisSelection.OTHER_CONFIG:
        made_otherwise = {"provenance.config_hash": {"$ne": selection.config_hash}}
        return with_analysis(**ended, result={"$ne": None}, **made_otherwise)
    if select is AnalysisSelection.ALL:
        return {"$or": [absent, with_analysis(**ended)]}
    return {"$or": [absent, *without_result(analyzer, others)]}


def without_result(analyzer: Analyzer, others: Document = NO_CONDITIONS) -> list[Document]:
    """Queries for the uploads whose analysis has ended without a result or a known reason."""
    name = analyzer.name
    failed = {"name": name, "state": {"$in": [State.FAILED, State.CANCELLED]}, **others}
    # An analysis without an attempt was skipped for its requirements or its format, which may have
    # changed. An analysis that the analyzer itself has skipped is not selected.
    passed_over = {"name": name, "state": State.SKIPPED, **others, "attempts": 0}
    looked_at = {"content_type": {"$in": sorted(analyzer.formats)}} if analyzer.formats else {}
    return [
        with_analysis(**failed, result=None),
        {**with_analysis(**passed_over, result=None), **looked_at},
    ]
