"""The command line: a module for each command of `clustr`, imported when that is called.

What the commands do to uploads is in `clustr.services`; what they print is here.
"""
