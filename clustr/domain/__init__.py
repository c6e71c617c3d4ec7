"""Plain values and errors, which every other room may use.

Nothing here opens a file or a connection, and nothing needs more than the standard library.
"""
