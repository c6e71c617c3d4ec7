"""A client of the service for Python programs: it talks to it over HTTP alone.

    from clustr.client import Client

It needs the package `requests`, and nothing that serves. docs/client.md shows how it is used.
"""

from clustr.client.captions import (
    generate_caption_and_update_db,
    get_image_caption,
    get_image_caption_and_tags,
    get_image_tags,
)
from clustr.client.client import Client
from clustr.client.errors import ApiError, NoCaptioner, NoResult
from clustr.client.types import AcceptedFile, Analysis, CaptionAndTags, Dimensions, Upload

__all__ = [
    "AcceptedFile",
    "Analysis",
    "ApiError",
    "CaptionAndTags",
    "Client",
    "Dimensions",
    "NoCaptioner",
    "NoResult",
    "Upload",
    "generate_caption_and_update_db",
    "get_image_caption",
    "get_image_caption_and_tags",
    "get_image_tags",
]
