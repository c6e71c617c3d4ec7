"""What the service does: it accepts uploads, makes thumbnails, removes, repairs, runs jobs.

How analyzers are run is in `clustr.analysis`; HTTP is in `clustr.api`.
"""
