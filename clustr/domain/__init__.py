"""Plain values and errors, which every other package may import.

Nothing here opens a file or a connection.
"""
