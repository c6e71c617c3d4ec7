"""The processes of one machine: the supervisor that keeps them up, MongoDB, Redis, and gunicorn.

The command that starts all of them is `clustr.cli.single_host`.
"""
