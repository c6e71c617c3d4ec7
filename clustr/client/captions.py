"""Functions for captions and tags, under the names of Clustr's predecessor (`caption_service`).

They use the service at `BASE_URL`, an environment variable (default: http://127.0.0.1:5000). The
predecessor's were coroutines; these wait, 60 seconds at most.
"""

from clustr.client.client import Client
from clustr.client.types import CaptionAndTags


def generate_caption_and_update_db(image_id: str, image_path: str | None = None) -> CaptionAndTags:
    """Have caption and tags of an image made, also where there are some.

    Args:
        image_id: the id of the upload.
        image_path: not read: the service has the image.

    Raises:
        NoResult, NoCaptioner, ApiError, requests.RequestException: as in `Client`.
    """
    with Client() as client:
        return client.generate_caption_and_tags(image_id)


def get_image_caption(image_id: str) -> str:
    """Get the caption of an image; have it made if there is none."""
    with Client() as client:
        return client.caption(image_id)


def get_image_tags(image_id: str) -> list[str]:
    """Get the tags of an image; have them made if there are none."""
    with Client() as client:
        return client.tags(image_id)


def get_image_caption_and_tags(image_id: str) -> CaptionAndTags:
    """Get caption and tags of an image; have them made if one is missing."""
    with Client() as client:
        return client.caption_and_tags(image_id)
