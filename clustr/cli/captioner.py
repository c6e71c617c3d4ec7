"""`clustr captioner`: a BLIP service of one's own."""

import os
import signal
import sys

import click

from clustr.captioner.batches import Batches
from clustr.captioner.model import Model
from clustr.captioner.server import create_app, serve
from clustr.domain.errors import StartUpError

DEFAULT_MODEL = "Salesforce/blip-image-captioning-base"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8001, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    envvar="CAPTIONER_MODEL",
    help="A BLIP on the hub of Hugging Face, or a folder with one; also CAPTIONER_MODEL.",
)
@click.option(
    "--threads",
    default=max(1, (os.cpu_count() or 1) // 2),
    show_default="half of the processors",
    type=click.IntRange(1),
    help="Threads of the processor for the model.",
)
def captioner(host: str, port: int, model: str, threads: int) -> None:
    """Caption images for Clustr's plugin `blip`, in the foreground.

    Clustr looks for it at http://localhost:8001; elsewhere, set BLIP_SERVICE_URL. It needs
    `pip install 'clustr[captioner]'`.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    batches = Batches(Model(model, threads).caption)

    def announce(url: str) -> None:
        click.echo(f"The captioner {model} serves on {url}; Ctrl-C ends it.")

    try:
        serve(host, port, create_app(batches, model), announce)
    except OSError as error:
        raise StartUpError(f"--host {host} --port {port}: {error.strerror}") from error
    except KeyboardInterrupt:
        sys.exit(0)
