"""The door for WSGI servers: `gunicorn -c config/gunicorn.conf.py wsgi:app`."""

from clustr.app import create_app

app = create_app()
