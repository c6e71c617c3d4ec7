"""A captioner of one's own: `clustr captioner`, the BLIP service that the plugin `blip` calls.

It stands beside Clustr and is reached over HTTP alone. Torch and transformers, which it needs, come
with the extra `clustr[captioner]`.
"""
