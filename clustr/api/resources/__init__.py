"""The resources of the API, a module with a blueprint each.

The shapes of bodies are in `clustr.api.schemas`; what is the same for all is in `clustr.api.http`.
"""
