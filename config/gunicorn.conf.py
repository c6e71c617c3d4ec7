# The settings of gunicorn for a deployment: gunicorn -c config/gunicorn.conf.py wsgi:app
#
# Clustr's own come first, and already follow HOST, PORT, WEB_WORKERS, LOG_FORMAT and LOG_LEVEL.
# What is set below wins. All that can be set: https://gunicorn.org/reference/settings/
from clustr.supervisor.gunicorn_settings import *  # noqa: F403

# How many web processes; a start is two for each core.
# workers = 8

# Where to listen, behind a proxy on the same host for instance.
# bind = "unix:/run/clustr-web/web.sock"

# How long requests may go on after SIGTERM, in seconds.
# graceful_timeout = 30

# How long a connection without a request stays open, in seconds; more than the proxy's own limit,
# or the proxy now and then sends a request into a connection that has just been closed.
# keepalive = 75
