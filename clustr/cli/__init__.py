"""The command line: a module for each command of `clustr`, imported when the command is called.

The modules parse options and print; `clustr.services` does the work on uploads.
"""
