"""Files: the originals' bytes, and thumbnails of them.

`/uploads/<filename>` and thumbnails of what is in its place are answered without a look into the
database. With `ACCEL_REDIRECT` nginx sends what is asked for without conditions or ranges; those
are answered here, so that they mean the same and are refused in the same words.
"""

import os
import re
from functools import lru_cache
from typing import Any, BinaryIO
from urllib.parse import quote

from flask import Response, request
from werkzeug.datastructures import Headers, MIMEAccept
from werkzeug.http import http_date, parse_accept_header, parse_range_header
from werkzeug.wsgi import wrap_file

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import UPLOAD_ID
from clustr.api.http.origins import resource_policy
from clustr.api.http.request_context import components
from clustr.api.schemas.uploads import (
    EXAMPLE_FILENAME,
    FILENAME_PATTERN,
    FileQuerySchema,
    ThumbnailQuerySchema,
)
from clustr.domain.errors import NotFound
from clustr.domain.models import Upload
from clustr.imaging import images
from clustr.imaging.images import CONTENT_TYPES
from clustr.services.intake import clean_name
from clustr.services.thumbnails import VERSION, Thumbnail, snap_size

FILENAME = re.compile(rf"([0-9a-f]{{24}})\.({'|'.join(CONTENT_TYPES)})")

FOR_EVER = "public, max-age=31536000, immutable"
FOR_MINUTES = "public, max-age=300"

# Which characters stand for themselves in `filename*` (RFC 8187, attr-char), besides letters.
PLAIN_CHARACTERS = "!#$&+-.^_`|~"

CONDITIONS = {
    "HTTP_RANGE",
    "HTTP_IF_RANGE",
    "HTTP_IF_MATCH",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_UNMODIFIED_SINCE",
}

# What cannot be in a name on one system or the other, or says there where the file shall lie.
NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = re.compile(
    "(con|prn|aux|nul|conin\\$|conout\\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *([.]|\\Z)",
    re.IGNORECASE,
)
EXTENSIONS = {
    format.extension: (format.extension, *format.other_extensions) for format in images.FORMATS
}
LONGEST_NAME_BYTES = 255  # of most file systems

BYTES = {"type": "string", "format": "binary"}
DISPOSITION = {
    "Content-Disposition": {
        "schema": {"type": "string"},
        "description": "`inline` or `attachment`, and the original name.",
    }
}
STORED_FILENAME = {
    "in": "path",
    "name": "stored_filename",
    "required": True,
    "schema": {"type": "string", "pattern": FILENAME_PATTERN},
    "description": "The `filename` of an upload, its `stored_filename` when it was accepted.",
    "example": EXAMPLE_FILENAME,
}

blueprint = Blueprint("files", __name__, description="The originals")
of_upload = Blueprint(
    "files_of_upload",
    __name__,
    url_prefix="/api/uploads/<upload_id:upload_id>",
    description="The original of an upload, and thumbnails of it",
)


def documented(kind: str, **success: Any) -> Any:
    """Document what every answer with a file can be."""

    def document(view: Any) -> Any:
        for describe in (
            blueprint.alt_response(503, "SERVICE_UNAVAILABLE"),
            blueprint.alt_response(416, "REQUESTED_RANGE_NOT_SATISFIABLE"),
            blueprint.alt_response(404, "NOT_FOUND"),
            blueprint.alt_response(304, description="The client has it already."),
            blueprint.alt_response(
                206, schema=BYTES, content_type=kind, description="The range that was asked for."
            ),
            blueprint.response(200, BYTES, content_type=kind, **success),
        ):
            view = describe(view)
        return view

    return document


@blueprint.route("/<stored_filename>", parameters=[STORED_FILENAME])
@documented("image/*", description="The image.")
def get_file(stored_filename: str) -> Response:
    """Get an original

    Its bytes never change, so it can be cached for ever. `Range`, `If-Range`, `If-None-Match` and
    `If-Modified-Since` are understood.
    """
    name = FILENAME.fullmatch(stored_filename)
    if name is None:
        raise NotFound(f"There is no file {stored_filename}.")
    return file_response(
        components.storage.open(stored_filename),
        components.storage.key(stored_filename),
        {
            "Content-Type": CONTENT_TYPES[name[2]],
            "ETag": f'"{name[1]}"',
            "Last-Modified": http_date(int(name[1][:8], 16)),
            "Cache-Control": FOR_EVER,
        },
    )


@of_upload.route("/file", parameters=[UPLOAD_ID])
@of_upload.arguments(FileQuerySchema, location="query")
@documented("image/*", description="The image.", headers=DISPOSITION)
@of_upload.alt_response(422, "UNPROCESSABLE_ENTITY")
def get_original(query: dict[str, int], upload_id: str) -> Response:
    """Get the original of an upload under its own name

    The bytes are those of its `url`. The name is in `Content-Disposition`, with `download=1` as one
    to save under. The `ETag` is the SHA-256 of the bytes.
    """
    upload = components.database.uploads.get(upload_id)
    file, key = components.storage.open(upload.filename), components.storage.key(upload.filename)
    return file_response(file, key, headers_of_original(upload, query["download"]))


@of_upload.route("/thumbnail", parameters=[UPLOAD_ID])
@of_upload.arguments(ThumbnailQuerySchema, location="query")
@documented("image/*", description="The thumbnail: `image/jpeg`, `image/webp` or `image/avif`.")
@of_upload.alt_response(413, "REQUEST_ENTITY_TOO_LARGE")
@of_upload.alt_response(415, "UNSUPPORTED_MEDIA_TYPE")
@of_upload.alt_response(422, "UNPROCESSABLE_ENTITY")
def get_thumbnail(query: dict[str, int], upload_id: str) -> Response:
    """Get a thumbnail of an upload

    A small copy that is upright, in sRGB and without metadata; of an animation it is the first
    frame. An image is never enlarged. It is a JPEG, on white where the original is clear, unless
    `Accept` names `image/webp` or `image/avif`. It is made when it is first asked for, and kept.

    The `thumbnail_url` of an upload can be cached for ever. An original that is broken, or that no
    decoder for is installed any more, is refused as in an upload.
    """
    extension = preferred(request.environ.get("HTTP_ACCEPT", ""))
    thumbnail = components.thumbnails.get(upload_id, snap_size(query["size"]), extension)
    kept = FOR_EVER if query.get("v") == VERSION else FOR_MINUTES
    headers = headers_of_thumbnail(thumbnail, extension, kept)
    return file_response(thumbnail.content, thumbnail.key, headers)


def headers_of_original(upload: Upload, download: int) -> dict[str, str]:
    """The headers of an original under its own name."""
    kind = "attachment" if download else "inline"
    return {
        "Content-Type": upload.content_type,
        "Content-Disposition": disposition(kind, download_name(upload)),
        "ETag": f'"{upload.sha256}"',
        "Last-Modified": http_date(upload.upload_time),
        "Cache-Control": FOR_MINUTES,  # The name can be changed.
    }


def headers_of_thumbnail(thumbnail: Thumbnail, extension: str, kept: str) -> dict[str, str]:
    """The headers of a thumbnail.

    Args:
        kept: for how long, as `Cache-Control` says it.
    """
    return {
        "Content-Type": CONTENT_TYPES[extension],
        "ETag": f'"{thumbnail.tag}"',
        "Cache-Control": kept,
        "Vary": "Accept",
    }


class WholeFile(Response):
    """An answer with a file as it is, of which the headers say all that there is to say."""

    def get_wsgi_headers(self, environ: dict[str, Any]) -> Headers:
        """The headers; Werkzeug would copy them one by one, in order to complete them."""
        return self.headers


def file_response(file: BinaryIO, key: str | None, headers: dict[str, str]) -> Response:
    """Answer with a file, or the part of it that is wanted.

    Args:
        key: where it lies below the folder of uploads; None when it does not.
        headers: those that are not the same for every file; `ETag` is one of them.
    """
    headers["Cross-Origin-Resource-Policy"] = resource_policy(components.settings.cors_origins)
    whole = CONDITIONS.isdisjoint(request.environ)
    if whole and key and components.settings.accel_redirect:
        file.close()
        headers["X-Accel-Redirect"] = f"{components.settings.accel_redirect}/{key}"
        return Response(headers=headers)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(size)}
    body = wrap_file(request.environ, file)
    if whole:  # Most are, and looking for what is wanted takes time.
        return WholeFile(body, headers=headers, direct_passthrough=True)
    response = Response(body, headers=headers, direct_passthrough=True)
    in_parts = is_one_range(request.method, request.environ.get("HTTP_RANGE", ""), size)
    return response.make_conditional(request, accept_ranges=in_parts, complete_length=size)


def is_one_range(method: str, asked: str, size: int) -> bool:
    """Whether to answer with the range that is asked for, or that it cannot be met.

    RFC 9110, 14.2: `Range` counts for GET alone, and in a unit that is not known not at all.
    Several ranges are answered with the whole, when one of them can be met.
    """
    unit, equals, ranges = asked.partition("=")
    if method != "GET" or not equals or unit.strip().lower() != "bytes":
        return False
    if "," not in ranges:
        return True
    each = [parse_range_header(f"bytes={one}") for one in ranges.split(",") if one.strip()]
    return not any(one and one.range_for_length(size) for one in each)


def download_name(upload: Upload) -> str:
    """The name under which an original is saved: one that opens as an image and as nothing else.

    It ends in an extension of its true type, does not begin with a dot, and is none of the names
    that Windows keeps for devices, whatever follows them.
    """
    name = NOT_IN_NAMES.sub("_", clean_name(upload.original_name)).strip(". ") or "unnamed"
    if RESERVED.match(name):
        name = f"_{name}"
    stem, dot, extension = name.rpartition(".")
    own = upload.filename.rpartition(".")[2]
    if not dot or extension.lower() not in EXTENSIONS[own]:
        stem, extension = name, own
    longest = LONGEST_NAME_BYTES - len(extension) - 1
    return f"{stem.encode()[:longest].decode(errors='ignore')}.{extension}"


def disposition(kind: str, name: str) -> str:
    """`Content-Disposition` with a file name (RFC 6266), also for those who read ASCII alone."""
    plain = re.sub(r'[^ -~]|["%\\]', "_", name)
    named = f'{kind}; filename="{plain}"'
    if plain == name:
        return named
    return f"{named}; filename*=UTF-8''{quote(name, safe=PLAIN_CHARACTERS)}"


@lru_cache(1000)
def preferred(accept: str) -> str:
    """The format in which a client would best have a picture, by its extension.

    JPEG unless another is named and not less wanted: `*/*` says nothing of what can be shown.
    """
    wanted = parse_accept_header(accept.lower(), MIMEAccept)
    named = dict(wanted)
    quality = {"jpg": wanted.quality("image/jpeg")}
    for extension in images.WRITERS:
        if extension != "jpg" and images.can_write(extension):
            quality[extension] = named.get(CONTENT_TYPES[extension], 0)
    best = max(quality.values())
    if not best:  # Whoever can show none of them is better off with one than with an error.
        return "jpg"
    return next(each for each in images.WRITERS if quality.get(each) == best)
