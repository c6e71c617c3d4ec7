"""The database: all that Clustr knows, in MongoDB, with a module for each concern.

Only this package knows PyMongo. The bytes of files are in `clustr.storage`.
"""

from clustr.database.analyses import ClaimedAnalysis, DeferredAnalyses, FinishedAnalysis
from clustr.database.bulk_selection import AnalysisSelection, SelectedUploads, UploadsForAnalyzer
from clustr.database.case_folding import tag_key
from clustr.database.circuit_breakers import CircuitBreaker
from clustr.database.clock import now
from clustr.database.counters import Totals
from clustr.database.database import INDEXES, Database
from clustr.database.documents import UNLIKE_AN_UPLOAD, log_foreign, reading_record
from clustr.database.editing import TagEdit
from clustr.database.filters import BOUNDS, filter_from_query
from clustr.database.integrity import ForeignDocument, StoredRecord, UnfinishedAnalysis
from clustr.database.jobs import Failure, Job, JobState
from clustr.database.listing import Page, Sort, UploadFilter
from clustr.database.not_found import TrashStep
from clustr.database.search import SEARCHED, SearchPage, SearchQuery
from clustr.database.statistics import AnalyzerCounts
from clustr.database.tags import distinct_tags
from clustr.database.trash import RemovalClaim, TrashedUpload, TrashPage
from clustr.database.upload_counts import COUNTED_TOTAL
from clustr.database.uploads import Condition, new_id, result_indexes
from clustr.database.versions import ANY_VERSION, Versions

__all__ = [
    "ANY_VERSION",
    "BOUNDS",
    "COUNTED_TOTAL",
    "INDEXES",
    "SEARCHED",
    "UNLIKE_AN_UPLOAD",
    "AnalysisSelection",
    "AnalyzerCounts",
    "CircuitBreaker",
    "ClaimedAnalysis",
    "Condition",
    "Database",
    "DeferredAnalyses",
    "Failure",
    "FinishedAnalysis",
    "ForeignDocument",
    "Job",
    "JobState",
    "Page",
    "RemovalClaim",
    "SearchPage",
    "SearchQuery",
    "SelectedUploads",
    "Sort",
    "StoredRecord",
    "TagEdit",
    "Totals",
    "TrashPage",
    "TrashStep",
    "TrashedUpload",
    "UnfinishedAnalysis",
    "UploadFilter",
    "UploadsForAnalyzer",
    "Versions",
    "distinct_tags",
    "filter_from_query",
    "log_foreign",
    "new_id",
    "now",
    "reading_record",
    "result_indexes",
    "tag_key",
]
