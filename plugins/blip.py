"""A caption and tags for an image, from a captioner such as BLIP that is called over HTTP.

The image is posted to `<service_url>/caption` as the one part `image` of a form. The answer is a
JSON object with `caption`, a text, and `tags`, a list of texts; what else it has is ignored.
"""

import io
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import PIL.Image
import requests
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from clustr.plugins import (
    Analyzer,
    ConfigError,
    Context,
    Fail,
    Health,
    Image,
    RetryLater,
    hookimpl,
)

CONNECT_SECONDS = 2
HEALTH_SECONDS = 1.5
LARGEST_ANSWER_BYTES = 64 * 1024
LONGEST_CAPTION = 1000
MOST_TAGS = 100
LONGEST_TAG = 100

# What every captioner can be expected to read goes as it is; the rest as a JPEG.
EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
LARGEST_SENT_BYTES = 8 * 1024 * 1024
LONGEST_SENT_SIDE = 4096
JPEG_SIDE = 1024


class BlipConfig(Schema):
    """What can be configured."""

    service_url = fields.String(
        load_default="http://localhost:8001",
        validate=validate.Regexp(
            r"https?://[^\s/?#]+(/[^\s?#]*)?\Z",
            error="expected an address such as http://localhost:8001",
        ),
        metadata={"env": "BLIP_SERVICE_URL", "description": "Where the captioner is"},
    )
    timeout = fields.Float(
        load_default=20.0,
        validate=validate.Range(0.1, 600, error="expected seconds from 0.1 to 600"),
        metadata={"description": "Seconds that a caption may take in all"},
    )


class BlipAnswer(Schema):
    """What the captioner answers."""

    class Meta:
        unknown = EXCLUDE

    caption = fields.String(required=True)
    tags = fields.List(fields.String(), required=True)


class BlipResult(Schema):
    """What is stored."""

    caption = fields.String(required=True)
    tags = fields.List(fields.String(), required=True)


class Blip(Analyzer):
    """Asks the captioner.

    Args:
        timeout: seconds that the whole exchange with the captioner may take. The analysis may take
            ten more, for the images that have to be converted first.
    """

    name = "blip"
    version = 1
    result_schema = BlipResult
    summary = "A caption and tags from the captioner"
    queue = "http"
    fields: Mapping[str, str] = {"caption": "caption", "tags": "tags"}

    def __init__(self, timeout: float):
        self.timeout = timeout + 10

    def analyze(self, image: Image, context: Context) -> dict[str, Any]:
        name, file, content_type = as_sent(image)
        with file:
            answer = ask(context, {"image": (name, file, content_type)})
        tags = (clean(tag, LONGEST_TAG) for tag in answer["tags"])
        return {
            "caption": clean(answer["caption"], LONGEST_CAPTION),
            "tags": list(dict.fromkeys(filter(None, tags)))[:MOST_TAGS],
        }

    def health(self, context: Context) -> Health:
        url = f"{context.config['service_url'].rstrip('/')}/health"
        try:
            with context.http.get(url, timeout=HEALTH_SECONDS, stream=True) as response:
                status = response.status_code
        except requests.RequestException:
            return Health("captioner", False, "The captioner does not answer.")
        if status != requests.codes.ok:
            return Health("captioner", False, f"The captioner answers with status {status}.")
        return Health("captioner", True)


def ask(context: Context, files: Mapping[str, Any]) -> dict[str, Any]:
    """Post the form and return the answer, in the shape of `BlipAnswer`.

    Raises:
        RetryLater: the captioner is away, busy or too slow, or has a fault of its own.
        Fail: it refuses the image, or its answer cannot be used.
        ConfigError: its address cannot be called.
    """
    url = f"{context.config['service_url'].rstrip('/')}/caption"
    timeout = (CONNECT_SECONDS, context.config["timeout"])
    try:
        with context.http.post(url, files=files, timeout=timeout, stream=True) as response:
            check_status(response)
            body = read(response)
    except requests.Timeout as error:
        raise RetryLater("The captioner did not answer in time.") from error
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise RetryLater("The captioner cannot be reached.") from error
    except requests.exceptions.ContentDecodingError as error:
        raise Fail("The captioner's answer cannot be unpacked.") from error
    except requests.RequestException as error:
        raise ConfigError("The captioner's address cannot be called.") from error
    return understand(body)


def check_status(response: requests.Response) -> None:
    status = response.status_code
    if status == requests.codes.too_many_requests or status >= 500:
        # The header may also hold a date; then Clustr decides when to try again.
        seconds = re.fullmatch(r"[0-9]{1,6}", response.headers.get("Retry-After", ""))
        after = float(seconds[0]) if seconds else None
        raise RetryLater(f"The captioner answered with status {status}.", after=after)
    if status != requests.codes.ok:
        raise Fail(f"The captioner answered with status {status}.")


def read(response: requests.Response) -> bytes:
    """Read the body, never much more of it than is allowed, however small it was packed."""
    body = b""
    for chunk in response.iter_content(LARGEST_ANSWER_BYTES + 1):
        body += chunk
        if len(body) > LARGEST_ANSWER_BYTES:
            raise Fail(f"The captioner's answer is larger than {LARGEST_ANSWER_BYTES} bytes.")
    return body


def understand(body: bytes) -> dict[str, Any]:
    try:
        return BlipAnswer().load(json.loads(body))
    except ValidationError as error:
        raise Fail("The captioner's answer does not have a caption and tags.") from error
    except (ValueError, RecursionError) as error:
        raise Fail("The captioner's answer is not JSON.") from error


def clean(text: str, length: int) -> str:
    """One line of at most `length` characters that are text: no control characters, no halves."""
    kept = (c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join("".join(kept).split())[:length].rstrip()


def as_sent(image: Image) -> tuple[str, BinaryIO, str]:
    """The name, the content and the content type under which the image is sent."""
    if goes_as_it_is(image):
        name = f"{image.id}.{EXTENSIONS[image.content_type]}"
        return name, image.path.open("rb"), image.content_type
    return f"{image.id}.jpg", to_jpeg(image.open()), "image/jpeg"


def goes_as_it_is(image: Image) -> bool:
    """Whether every captioner can be expected to read the original."""
    return (
        image.content_type in EXTENSIONS
        and image.size <= LARGEST_SENT_BYTES
        and max(image.width, image.height) <= LONGEST_SENT_SIDE
        and is_plain(image.path)
    )


def is_plain(path: Path) -> bool:
    """Whether a JPEG, PNG or WebP has 8 bits at most per channel, and channels that are usual."""
    with path.open("rb") as file, PIL.Image.open(file) as picture:
        if picture.format == "PNG":
            file.seek(24)  # the bit depth; Pillow's mode does not tell it when there are colours
            if file.read(1) == b"\x10":
                return False
        return picture.mode in PLAIN_MODES


def to_jpeg(picture: PIL.Image.Image) -> BinaryIO:
    """Any picture as a JPEG of at most 1024 pixels on its longer side, on white where it is clear.

    Args:
        picture: turned as its EXIF orientation says.
    """
    if picture.mode[0] in "IF":
        picture = to_8_bits(picture)
    if picture.mode in ("1", "P", "PA"):
        picture = picture.convert("RGBA")  # these cannot be made smaller smoothly
    picture.thumbnail((JPEG_SIDE, JPEG_SIDE))
    clear = picture.convert("RGBA")
    flat = PIL.Image.new("RGB", clear.size, "white")
    flat.paste(clear, mask=clear)
    file = io.BytesIO()
    flat.save(file, "JPEG", quality=90)
    file.seek(0)
    return file


def to_8_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Scale 16 bits per pixel down, or whole numbers and fractions, whose limits are their own.

    Pillow's `convert("L")` would make everything above 255 white.
    """
    low, high = (0, 65535) if picture.mode.startswith("I;16") else picture.getextrema()
    scale = 255 / ((high - low) or 1)
    return picture.convert("F").point(lambda value: value * scale - low * scale).convert("L")


@hookimpl
def clustr_config_schema() -> type[Schema]:
    return BlipConfig


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Blip(config["timeout"])]
