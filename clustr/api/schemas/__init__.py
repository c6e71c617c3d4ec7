"""The shapes of requests and answers: marshmallow schemas, and the functions that fill them.

Nothing here asks the database; what is needed of the service is passed as an argument.
"""
