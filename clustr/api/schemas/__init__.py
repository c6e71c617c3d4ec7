"""marshmallow schemas of requests and responses, and the functions that convert to and from them.

Nothing here queries the database: the functions get what they need as arguments.
"""
