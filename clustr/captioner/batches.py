"""Batches: images that come together are captioned together."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from PIL import Image

# A model takes hardly longer for some images than for one. Memory grows with each.
BATCH_SIZE = 8
# More than these wait for nothing: who sent them gives up.
MAX_WAITING = 64


class Busy(Exception):
    """Too many images wait already."""


class Batches:
    """Gives the images of many threads to one thread, which captions those that wait at a time.

    Args:
        caption: returns a caption for each of some images.
    """

    def __init__(self, caption: Callable[[Sequence[Image.Image]], Sequence[str]]):
        self._caption = caption
        self._waiting: queue.Queue[tuple[Image.Image, Future[str]]] = queue.Queue(MAX_WAITING)
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def caption(self, image: Image.Image) -> str:
        """The caption of an image, once it is made.

        Raises:
            Busy: too many wait.
        """
        future: Future[str] = Future()
        try:
            self._waiting.put_nowait((image, future))
        except queue.Full:
            raise Busy from None
        return future.result()

    def is_full(self) -> bool:
        """Whether no more may wait."""
        return self._waiting.full()

    def _work(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < BATCH_SIZE and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())  # No other thread takes any.
            images, futures = zip(*batch, strict=True)
            try:
                captions = self._caption(images)
            except Exception as error:  # It is raised where it was asked for.
                for future in futures:
                    future.set_exception(error)
            else:
                for future, caption in zip(futures, captions, strict=True):
                    future.set_result(caption)
