"""Compression of answers that are long and alike within: pages with many uploads, and scripts.

docs/decisions/compression.md says why the service does it, and how.
"""

import zlib

from flask import Response, request

GZIP = "gzip"
# What is shorter is sent as it is: it fits into one packet of the network.
SHORTEST_BYTES = 1400
# Higher levels take up to three times as long, and a page becomes a tenth shorter at best.
LEVEL = 1
# The window of zlib's format for gzip.
GZIP_WINDOW = 16 + zlib.MAX_WBITS


def is_to_be_compressed(response: Response) -> bool:
    """Return whether the client takes the body in a compressed form, and it is worth while."""
    length = response.content_length or 0
    return length >= SHORTEST_BYTES and request.accept_encodings[GZIP] > 0


def compress(response: Response) -> None:
    """Replace the body by its compressed form."""
    compressor = zlib.compressobj(LEVEL, wbits=GZIP_WINDOW)
    response.set_data(compressor.compress(response.get_data()) + compressor.flush())
    response.content_encoding = GZIP
