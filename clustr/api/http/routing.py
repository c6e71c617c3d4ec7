"""The URL converter for ids of uploads."""

from werkzeug.routing import BaseConverter


class UploadIdConverter(BaseConverter):
    """Matches the path segment of an upload's id; the view refuses an invalid id with a reason.

    It does not match the names of resources beside the ids, so that a wrong method on those is
    answered 405.
    """

    regex = "(?!(?:exists|bulk)(?:/|$))[^/]+"
