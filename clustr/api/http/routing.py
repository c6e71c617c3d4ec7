"""How paths are told from each other."""

from werkzeug.routing import BaseConverter


class UploadId(BaseConverter):
    """The place of an upload's id; what is none is for the view to refuse with a reason.

    The names of the resources beside the ids are left to their own routes, so that a method which
    these do not have is refused as such.
    """

    regex = "(?!(?:exists|bulk)(?:/|$))[^/]+"
