"""How analyzers are run: one in each process, within limits, on queued analyses in the database.

`clustr.plugins` defines what an analyzer is; the RQ worker that calls this is `clustr.worker`.
"""
