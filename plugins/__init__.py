"""The plugins that come with Clustr, written against `clustr.plugins` alone: examples to read."""
