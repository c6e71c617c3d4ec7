"""Copies of image files without metadata, or without what may say where they were taken.

No pixel is decoded: what is kept is cut out of the file, segment by segment. Each format has a list
of what is kept, which is what decoders need; everything else is left out, whatever it is.
"""

from clustr.imaging.stripping.copying import strip

__all__ = ["strip"]
