"""The resources of the API, a module with a blueprint each.

The schemas of bodies are in `clustr.api.schemas`; code that all share is in `clustr.api.http`.
"""
