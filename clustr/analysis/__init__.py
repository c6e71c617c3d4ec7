"""How analyzers are run: one at a time in a process, within limits, on what waits in the database.

What an analyzer is belongs to `clustr.plugins`; the RQ worker that calls this is `clustr.worker`.
"""
