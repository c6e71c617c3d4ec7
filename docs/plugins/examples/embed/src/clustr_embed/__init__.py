"""Embeddings of pictures: their colors in a grid of four by four."""

from pathlib import Path

import click
import PIL.Image
from marshmallow import Schema, fields

from clustr.plugins import (
    Analyzer,
    NoResult,
    Vector,
    as_json,
    hookimpl,
    print_json,
    show_progress,
    to_rgb,
)

SIDE = 4


class EmbedResult(Schema):
    model = fields.String(required=True, metadata={"description": "What made the vector"})


class Embed(Analyzer):
    name = "embed"
    version = 1
    result_schema = EmbedResult
    summary = "An embedding, by which pictures that look alike are found"
    vectors = (Vector(field="embedding", dimensions=SIDE * SIDE * 3),)

    def analyze(self, image, context):
        picture = to_rgb(image.open(at_least=64), 64)
        return {"embedding": embedding(picture), "model": f"colors-{SIDE}x{SIDE}"}


def embedding(picture):
    """The colors in a grid, around the middle of all, so that the cosine tells them apart."""
    import numpy as np  # Web processes load this file, too, and do without.

    grid = picture.resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
    numbers = np.asarray(grid, dtype=float).ravel() / 255 - 0.5
    # A picture in the middle of all colors has no direction: it has no vector.
    return numbers if np.linalg.norm(numbers) > 0.05 else None


@hookimpl
def clustr_register_analyzers(config):
    return [Embed()]


@hookimpl
def clustr_register_commands(config, library):
    @click.command()
    @click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
    @click.option("--tag", multiple=True, help="Only of uploads with this tag.")
    @as_json
    def export(file, tag, as_json):
        """Write the vectors and the ids of their uploads into FILE, for numpy.load."""
        import numpy as np

        filters = {"tag": list(tag)} if tag else {}
        ids, vectors = [], []
        for upload in show_progress(library.walk(filters), library.count(filters)):
            try:
                vectors.append(np.frombuffer(library.vector(upload, "embed"), np.float16))
            except NoResult:  # It was not analyzed yet, or has none.
                continue
            ids.append(upload.id)
        with file.open("wb") as opened:
            np.savez(opened, ids=np.array(ids), vectors=np.array(vectors))
        if as_json:
            print_json({"file": str(file), "vectors": len(ids)})
        else:
            click.echo(f"Wrote {len(ids)} vectors to {file}.")

    @click.command()
    @click.argument("upload_id", metavar="ID")
    @click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 1000))
    @as_json
    def nearest(upload_id, limit, as_json):
        """Say which uploads are the most like the one with this ID."""
        found = library.nearest(library.get(upload_id), "embed", limit)
        if as_json:
            print_json([{"id": one.upload.id, "distance": one.distance} for one in found])
        for one in [] if as_json else found:
            click.echo(f"{one.distance:.3f}  {one.upload.id}  {one.upload.original_name}")

    return [export, nearest]
