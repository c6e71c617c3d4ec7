"""The URL converter for ids of uploads."""

from werkzeug.routing import BaseConverter

# What the rule of every route of one upload begins with.
PATH_OF_UPLOAD = "/api/uploads/<upload_id:upload_id>"


class UploadIdConverter(BaseConverter):
    """Matches the path segment of an upload's id; the view refuses an invalid id with a reason.

    It does not match the names of resources beside the ids, so that a wrong method on those is
    answered 405.
    """

    regex = "(?!(?:exists|bulk)(?:/|$))[^/]+"
