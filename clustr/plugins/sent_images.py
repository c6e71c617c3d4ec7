"""The form in which images are sent to services."""

import io

from clustr.imaging.plain_jpeg import read_plain_jpeg
from clustr.plugins.analyzer import Image
from clustr.plugins.pixel_formats import to_rgb

# The longer side of the copy that is sent. A service that looks at less reduces it itself.
MAX_SIDE = 1024
# A JPEG of so many times that side is sent without being decoded: that is faster than a copy.
SENT_AS_IT_IS = 2
# A copy may be a little smaller: then 12 megapixels are decoded at a quarter of their size, and not
# at half of it.
SMALLEST_SHARE = 0.95
JPEG_QUALITY = 90


def as_sent(
    image: Image, converts: bool = True, max_side: int = MAX_SIDE
) -> tuple[str, bytes, str]:
    """The name, the content and the content type under which an image is sent.

    That is a JPEG as every service reads it: upright, in sRGB or grey, white where the original is
    clear, and without metadata. An original that is one already, of at most twice `max_side`, is
    not decoded: its metadata is cut out.

    Args:
        converts: whether to do so; otherwise the original is sent as it is.
        max_side: pixels that its longer side has at most.

    Raises:
        Fail: it has to be decoded and cannot be.
    """
    if not converts:
        extension = image.path.suffix.lstrip(".")
        return f"{image.id}.{extension}", image.path.read_bytes(), image.content_type
    content = None
    if image.content_type == "image/jpeg":
        content = read_plain_jpeg(image.path, SENT_AS_IT_IS * max_side)
    return f"{image.id}.jpg", content or _reduced_jpeg(image, max_side), "image/jpeg"


def _reduced_jpeg(image: Image, max_side: int) -> bytes:
    shorter, longer = sorted((image.width, image.height))
    least = shorter * max_side / longer * SMALLEST_SHARE
    at_least = max(1, int(least)) if longer > max_side else None
    # The colors of the small picture are converted, and not those of the large one.
    picture = image.open(at_least, color_managed=False)
    factor = max(picture.size) // max_side
    if factor > 1 and picture.mode in ("L", "RGB"):  # A JPEG was reduced while it was decoded.
        picture = picture.reduce(factor)
    picture = to_rgb(picture, max_side)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY, comment=b"")  # or that of the original
    return file.getvalue()
