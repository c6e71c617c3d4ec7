"""The processes of `clustr worker`: RQ workers, and beside them the reconciler and the jobs.

This is their composition root; how an analyzer is run is in `clustr.analysis`.
"""
