"""What the service does: it takes uploads in, makes thumbnails, removes, repairs, runs jobs.

How analyzers are run is in `clustr.analysis`; HTTP is in `clustr.api`.
"""
