"""What is the same for all requests: errors, middleware, entity tags, JSON, URLs, fields.

Nothing here belongs to one resource.
"""
