"""The database: everything that Clustr stores in MongoDB, with one module for each concern.

Only this package uses PyMongo. `clustr.storage` stores the bytes of files.
"""

from clustr.database.analyses import Analyses
from clustr.database.analysis_records import ClaimedAnalysis, DeferredAnalyses, FinishedAnalysis
from clustr.database.analysis_selection import AnalysisSelection, ReanalysisSelection
from clustr.database.audit import AuditFilter
from clustr.database.bulk_selection import UploadSelection
from clustr.database.case_folding import tag_key
from clustr.database.circuit_breakers import CircuitBreaker
from clustr.database.clock import now
from clustr.database.counters import Totals
from clustr.database.database import INDEXES, Database
from clustr.database.documents import (
    MALFORMED_RECORD_ERRORS,
    local_date_of,
    log_foreign_record,
    reading_record,
)
from clustr.database.filters import RANGE_FILTERS, filter_from_query, range_limit
from clustr.database.forgetting import LeftBehind
from clustr.database.integrity import ForeignDocument, StoredRecord, UnfinishedAnalysis
from clustr.database.jobs import Failure, Job, JobState
from clustr.database.keys import NOTED_EVERY, Key, Keys
from clustr.database.listing import Page
from clustr.database.not_found import TrashStep
from clustr.database.old_ids import OldIds
from clustr.database.predecessor import NotTaken, Predecessor, PredecessorUpload
from clustr.database.result_conditions import Condition, result_indexes
from clustr.database.search import SearchPage
from clustr.database.statistics import AnalyzerCounts
from clustr.database.tags import distinct_tags
from clustr.database.term_search import MAX_RANKED
from clustr.database.timeline import Timeline, Unit
from clustr.database.trash import RemovalClaim, TrashedUpload, TrashPage
from clustr.database.upload_counts import COUNTED_TOTAL
from clustr.database.upload_filter import NO_FILTER, Sort, UploadFilter
from clustr.database.uploads import new_id
from clustr.database.vectors import NewVector, SpaceState, StoredVector, Vectors
from clustr.database.versions import ANY_VERSION, Versions
from clustr.database.view import DatabaseView

__all__ = [
    "ANY_VERSION",
    "COUNTED_TOTAL",
    "INDEXES",
    "MALFORMED_RECORD_ERRORS",
    "MAX_RANKED",
    "NOTED_EVERY",
    "NO_FILTER",
    "RANGE_FILTERS",
    "Analyses",
    "AnalysisSelection",
    "AnalyzerCounts",
    "AuditFilter",
    "CircuitBreaker",
    "ClaimedAnalysis",
    "Condition",
    "Database",
    "DatabaseView",
    "DeferredAnalyses",
    "Failure",
    "FinishedAnalysis",
    "ForeignDocument",
    "Job",
    "JobState",
    "Key",
    "Keys",
    "LeftBehind",
    "NewVector",
    "NotTaken",
    "OldIds",
    "Page",
    "Predecessor",
    "PredecessorUpload",
    "ReanalysisSelection",
    "RemovalClaim",
    "SearchPage",
    "Sort",
    "SpaceState",
    "StoredRecord",
    "StoredVector",
    "Timeline",
    "Totals",
    "TrashPage",
    "TrashStep",
    "TrashedUpload",
    "UnfinishedAnalysis",
    "Unit",
    "UploadFilter",
    "UploadSelection",
    "Vectors",
    "Versions",
    "distinct_tags",
    "filter_from_query",
    "local_date_of",
    "log_foreign_record",
    "new_id",
    "now",
    "range_limit",
    "reading_record",
    "result_indexes",
    "tag_key",
]
