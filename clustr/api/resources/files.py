"""Serves files: the bytes of originals, and thumbnails.

`/uploads/<filename>`, and thumbnails while the original is in its place, need no query to the
database. With `ACCEL_REDIRECT` nginx sends the files of requests without conditions or ranges; the
others are answered here, so that their meaning and their errors are the same with and without
nginx.
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
from clustr.api.http.fields import UPLOAD_ID_PARAMETER
from clustr.api.http.origins import resource_policy
from clustr.api.http.request_context import components
from clustr.api.http.signatures import cache_control, sent_metadata
from clustr.api.http.urls import MOVED_RESPONSE, moved_response
from clustr.api.schemas.files import (
    EXPIRES,
    METADATA,
    SHARE,
    SIGNATURE,
    FileQuerySchema,
    SignedThumbnailQuerySchema,
)
from clustr.api.schemas.uploads import EXAMPLE_FILENAME, FILENAME_PATTERN
from clustr.domain.access import Scope
from clustr.domain.errors import NotFound
from clustr.domain.file_names import safe_file_name
from clustr.domain.models import Upload
from clustr.imaging.formats import CONTENT_TYPES, FORMATS
from clustr.imaging.thumbnails import WRITERS, can_write
from clustr.services.intake import clean_name
from clustr.services.thumbnails import VERSION, Thumbnail, snap_size

FILENAME_REGEX = re.compile(rf"([0-9a-f]{{24}})\.({'|'.join(CONTENT_TYPES)})")

# Unescaped in `filename*`, besides letters and digits (RFC 8187, section 3.2.1, attr-char).
PLAIN_CHARACTERS = "!#$&+-.^_`|~"

CONDITIONAL_HEADERS = {
    "HTTP_RANGE",
    "HTTP_IF_RANGE",
    "HTTP_IF_MATCH",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_UNMODIFIED_SINCE",
}

EXTENSIONS = {format.extension: (format.extension, *format.other_extensions) for format in FORMATS}

BINARY_SCHEMA = {"type": "string", "format": "binary"}
DISPOSITION_HEADER = {
    "Content-Disposition": {
        "schema": {"type": "string"},
        "description": "`inline` or `attachment`, and the original name.",
    }
}
STORED_FILENAME_PARAMETER = {
    "in": "path",
    "name": "stored_filename",
    "required": True,
    "schema": {"type": "string", "pattern": FILENAME_PATTERN},
    "description": "The `filename` of an upload, its `stored_filename` when it was accepted.",
    "example": EXAMPLE_FILENAME,
}

SIGNATURE_PARAMETERS = [
    {"in": "query", "name": name, "schema": {"type": kind}, "description": description}
    for name, kind, description in (
        ("metadata", "string", METADATA),
        ("share", "string", SHARE),
        ("expires", "integer", EXPIRES),
        ("signature", "string", SIGNATURE),
    )
]

blueprint = Blueprint("files", __name__, description="The originals")
upload_blueprint = Blueprint(
    "files_of_upload",
    __name__,
    url_prefix="/api/uploads/<upload_id:upload_id>",
    description="The original of an upload, and thumbnails of it",
)


def document_file_responses(kind: str, **success: Any) -> Any:
    """Document the responses that all views of files have."""

    def decorate(view: Any) -> Any:
        for decorator in (
            blueprint.alt_response(503, "SERVICE_UNAVAILABLE"),
            blueprint.alt_response(416, "REQUESTED_RANGE_NOT_SATISFIABLE"),
            blueprint.alt_response(404, "NOT_FOUND"),
            blueprint.alt_response(304, description="The client has it already."),
            blueprint.alt_response(
                206,
                schema=BINARY_SCHEMA,
                content_type=kind,
                description="The range that was asked for.",
            ),
            blueprint.response(200, BINARY_SCHEMA, content_type=kind, **success),
        ):
            view = decorator(view)
        return view

    return decorate


@blueprint.route(
    "/<stored_filename>",
    parameters=[STORED_FILENAME_PARAMETER, *SIGNATURE_PARAMETERS],
    needs=Scope.UPLOADS_READ,
    or_signed=True,
)
@document_file_responses("image/*", description="The image.")
@blueprint.alt_response(308, **MOVED_RESPONSE)
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
def get_file(stored_filename: str) -> Response:
    """Get an original

    Its bytes never change, so it can be cached for ever. `Range`, `If-Range`, `If-None-Match` and
    `If-Modified-Since` are understood.

    The service may be set to send copies without the place where pictures were taken, or without
    any metadata (`FILES_METADATA`): they have the same pixels, orientation and color profile, and
    an `ETag` of their own. An original whose metadata cannot be told from its picture is then
    answered with 422.

    A name that the file had in Clustr's predecessor is answered with 308.
    """
    name = FILENAME_REGEX.fullmatch(stored_filename)
    if name is None:
        return moved_file(stored_filename)
    if components.database.owner is not None:
        components.database.uploads.get(name[1])
    sent = components.originals.open(stored_filename, sent_metadata())
    headers = {
        "Content-Type": CONTENT_TYPES[name[2]],
        "ETag": f'"{name[1]}{sent.variant}"',
        "Last-Modified": http_date(int(name[1][:8], 16)),
        # Copies are others when the setting is changed.
        "Cache-Control": cache_control(is_final=not sent.variant),
    }
    return file_response(sent.content, sent.key, headers)


def moved_file(old_filename: str) -> Response:
    """Respond with where a file of Clustr's predecessor is now.

    Raises:
        NotFound: there was none of this name.
    """
    successor = components.database.old_ids.find_by_filename(old_filename)
    if successor is None:
        raise NotFound(f"There is no file {old_filename}.")
    filename = components.database.uploads.get(successor).filename
    return moved_response(f"{components.settings.upload_url_path}/{filename}")


@upload_blueprint.route("/file", parameters=[UPLOAD_ID_PARAMETER], needs=Scope.UPLOADS_READ)
@upload_blueprint.arguments(FileQuerySchema, location="query")
@document_file_responses("image/*", description="The image.", headers=DISPOSITION_HEADER)
@upload_blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
def get_original(query: dict[str, int], upload_id: str) -> Response:
    """Get the original of an upload under its own name

    The bytes are those of its `url`. The name is in `Content-Disposition`, with `download=1` as one
    to save under. The `ETag` of an original that is sent as it came is the SHA-256 of the bytes.
    """
    upload = components.database.uploads.get(upload_id)
    sent = components.originals.open(upload.filename, sent_metadata())
    headers = headers_of_original(upload, sent.variant, query["download"])
    return file_response(sent.content, sent.key, headers)


@upload_blueprint.route(
    "/thumbnail", parameters=[UPLOAD_ID_PARAMETER], needs=Scope.UPLOADS_READ, or_signed=True
)
@upload_blueprint.arguments(SignedThumbnailQuerySchema, location="query")
@document_file_responses(
    "image/*", description="The thumbnail: `image/jpeg`, `image/webp` or `image/avif`."
)
@upload_blueprint.alt_response(413, "REQUEST_ENTITY_TOO_LARGE")
@upload_blueprint.alt_response(415, "UNSUPPORTED_MEDIA_TYPE")
@upload_blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
def get_thumbnail(query: dict[str, int], upload_id: str) -> Response:
    """Get a thumbnail of an upload

    A small copy that is upright, in sRGB and without metadata; of an animation it is the first
    frame. An image is never enlarged. It is a JPEG, on white where the original is clear, unless
    `Accept` names `image/webp` or `image/avif`. It is made when it is first asked for, and kept.

    The `thumbnail_url` of an upload can be cached for ever. An original that is broken, or that no
    decoder for is installed any more, is refused as in an upload.
    """
    extension = preferred_extension(request.environ.get("HTTP_ACCEPT", ""))
    thumbnail = components.thumbnails.get(upload_id, snap_size(query["size"]), extension)
    headers = headers_of_thumbnail(thumbnail, extension, is_final=query.get("v") == VERSION)
    return file_response(thumbnail.content, thumbnail.key, headers)


def headers_of_original(upload: Upload, variant: str, download: int) -> dict[str, str]:
    """Return the headers for an original under its own name.

    Args:
        variant: the end of the `ETag` of a copy.
        download: 1 to have browsers save it.
    """
    kind = "attachment" if download else "inline"
    return {
        "Content-Type": upload.content_type,
        "Content-Disposition": content_disposition(kind, download_name(upload)),
        "ETag": f'"{upload.sha256}{variant}"',
        "Last-Modified": http_date(upload.upload_time),
        "Cache-Control": cache_control(is_final=False),  # The name can be changed.
    }


def headers_of_thumbnail(thumbnail: Thumbnail, extension: str, is_final: bool) -> dict[str, str]:
    """Return the headers for a thumbnail.

    Args:
        extension: that of its format.
        is_final: whether there will never be another one at this address.
    """
    return {
        "Content-Type": CONTENT_TYPES[extension],
        "ETag": f'"{thumbnail.tag}"',
        "Cache-Control": cache_control(is_final),
        "Vary": "Accept",
    }


class WholeFile(Response):
    """A response with a whole file, whose headers are complete."""

    def get_wsgi_headers(self, environ: dict[str, Any]) -> Headers:
        """Return the headers themselves; Werkzeug would copy them one by one to complete them."""
        return self.headers


def file_response(file: BinaryIO, key: str | None, headers: dict[str, str]) -> Response:
    """Respond with a file, or with the range that the request asks for.

    Args:
        key: its path below the folder of uploads, for nginx; None when it is elsewhere.
        headers: those that differ between files, `ETag` among them.
    """
    headers["Cross-Origin-Resource-Policy"] = resource_policy(components.settings.cors_origins)
    whole = CONDITIONAL_HEADERS.isdisjoint(request.environ)
    if whole and key and components.settings.accel_redirect:
        file.close()
        headers["X-Accel-Redirect"] = f"{components.settings.accel_redirect}/{key}"
        return Response(headers=headers)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(size)}
    body = wrap_file(request.environ, file)
    if whole:  # Most requests are, and evaluating conditions takes time.
        return WholeFile(body, headers=headers, direct_passthrough=True)
    response = Response(body, headers=headers, direct_passthrough=True)
    in_parts = applies_range(request.method, request.environ.get("HTTP_RANGE", ""), size)
    response.make_conditional(request, accept_ranges=in_parts, complete_length=size)
    return response


def applies_range(method: str, range_header: str, size: int) -> bool:
    """Return whether to apply the header `Range`, and answer 206 or 416.

    RFC 9110, section 14.2: `Range` is ignored for other methods than GET and for unknown units.
    Several ranges are answered with the whole file if one of them can be satisfied.
    """
    unit, equals, ranges = range_header.partition("=")
    if method != "GET" or not equals or unit.strip().lower() != "bytes":
        return False
    if "," not in ranges:
        return True
    parsed = [parse_range_header(f"bytes={part}") for part in ranges.split(",") if part.strip()]
    return not any(part and part.range_for_length(size) for part in parsed)


def download_name(upload: Upload) -> str:
    """Return a safe name under which to save an original."""
    true_extension = upload.filename.rpartition(".")[2]
    name = clean_name(upload.original_name)
    return safe_file_name(name, true_extension, EXTENSIONS[true_extension])


def content_disposition(kind: str, name: str) -> str:
    """Build `Content-Disposition` with a file name, and one in ASCII for old clients (RFC 6266)."""
    ascii_name = re.sub(r'[^ -~]|["%\\]', "_", name)
    header = f'{kind}; filename="{ascii_name}"'
    if ascii_name == name:
        return header
    return f"{header}; filename*=UTF-8''{quote(name, safe=PLAIN_CHARACTERS)}"


@lru_cache(1000)
def preferred_extension(accept: str) -> str:
    """Return the extension of the image format to send for a value of `Accept`.

    It is JPEG unless another format is named with at least the same quality; `*/*` does not count,
    because clients send it without being able to show every format.
    """
    accepted = parse_accept_header(accept.lower(), MIMEAccept)
    named_types = dict(accepted)
    quality = {"jpg": accepted.quality("image/jpeg")}
    for extension in WRITERS:
        if extension != "jpg" and can_write(extension):
            quality[extension] = named_types.get(CONTENT_TYPES[extension], 0)
    best = max(quality.values())
    if not best:  # A client that accepts none of them gets a JPEG rather than an error.
        return "jpg"
    return next(name for name in WRITERS if quality.get(name) == best)
