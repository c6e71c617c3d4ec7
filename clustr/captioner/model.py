"""The model: BLIP, by transformers."""

import os
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from PIL import Image

from clustr.domain.errors import StartUpError

MAX_NEW_TOKENS = 50
# What torch says in a RuntimeError when the memory of a device or of this host is not enough.
OUT_OF_MEMORY = re.compile("out of memory|not enough memory|can't allocate memory")


class Model:
    """BLIP with its weights in memory.

    Args:
        name: on the hub of Hugging Face, or a folder. Only weights in safetensors are read, and no
            code of the model's own is run.
        threads: how many threads of the processor it takes.

    Raises:
        StartUpError: what it needs is not installed, or the weights are not there.
    """

    def __init__(self, name: str, threads: int):
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        try:
            torch: Any = import_module("torch")
            transformers: Any = import_module("transformers")
        except ImportError as error:
            raise StartUpError(
                f"{error.name} is not installed: pip install 'clustr[captioner]'"
            ) from error
        transformers.logging.set_verbosity_error()
        self._torch = torch
        torch.set_num_threads(threads)
        try:
            self._processor: Any = transformers.BlipProcessor.from_pretrained(name)
            self._model: Any = transformers.BlipForConditionalGeneration.from_pretrained(
                name, use_safetensors=True
            ).eval()
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise StartUpError(
                f"CAPTIONER_MODEL={name} cannot be read: name a model of BLIP on the hub, which is "
                f"downloaded at the first start, or a folder with one ({reason})"
            ) from error

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """A caption for each of these images, which are RGB.

        Raises:
            MemoryError: there is not enough of it.
        """
        try:
            with self._torch.inference_mode():
                inputs = self._processor(images=list(images), return_tensors="pt")
                tokens = self._model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS)
        except RuntimeError as error:
            if OUT_OF_MEMORY.search(str(error)):
                raise MemoryError(str(error)) from error
            raise
        texts: list[str] = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]
