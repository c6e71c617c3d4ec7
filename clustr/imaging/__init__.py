"""Pictures: checks before decoding, decoding, colors and thumbnails, all with Pillow.

It knows no upload, no database and no plugin.
"""
