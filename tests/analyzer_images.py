"""An image as analyzers get it, of the content of a file."""

import hashlib
from pathlib import Path

import photographs
import PIL.Image

from clustr.plugins import Image

IMAGE_ID = "5f0000000000000000000001"


def analyzer_image(folder: Path, content: bytes, extension: str = "jpg") -> Image:
    """The image of this content, which is written into the folder; it may be broken."""
    path = folder / f"{IMAGE_ID}.{extension}"
    path.write_bytes(content)
    try:
        with PIL.Image.open(path) as picture:
            width, height = picture.size
    except OSError:
        width, height = 100, 100
    return Image(
        id=IMAGE_ID,
        sha256=hashlib.sha256(content).hexdigest(),
        content_type=photographs.CONTENT_TYPES[extension],
        size=len(content),
        width=width,
        height=height,
        path=path,
    )
