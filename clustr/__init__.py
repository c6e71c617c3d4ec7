"""Clustr takes images in over HTTP, keeps them safely, and lets plugins say what is in them."""

__version__ = "0.1.0"
