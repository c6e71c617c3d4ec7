"""The processes of `clustr worker`: RQ workers, and beside them the reconciler and the jobs.

`clustr.worker.rq_worker` builds what they need; `clustr.analysis` runs the analyzers.
"""
