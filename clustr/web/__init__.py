"""The gallery: a page that shows uploads, searches and edits them, in modules of the browser.

It is served as it is, without a build step, and uses the HTTP API alone: nothing of Clustr's
Python is imported here, and nothing of the API exists for it.
"""
