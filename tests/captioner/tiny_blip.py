"""Writes a BLIP with few and random weights into a folder: `python tiny_blip.py FOLDER`."""

import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
WORDS = ["a", "cat", "on", "the", "mat", "two", "dogs", "beach", "red", "boat", "sea"]


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(MARKS + WORDS))
    marks = ["[DEC]", "[ENC]"]
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), additional_special_tokens=marks)
    size = {"hidden_size": 32, "intermediate_size": 37, "projection_dim": 32}
    size |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    text = BlipTextConfig(
        vocab_size=len(MARKS + WORDS),
        encoder_hidden_size=32,
        bos_token_id=5,
        pad_token_id=0,
        eos_token_id=3,
        sep_token_id=3,
        **size,
    )
    vision = BlipVisionConfig(image_size=30, patch_size=2, **size)
    config = BlipConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=32,
        image_text_hidden_size=32,
    )
    processor = BlipProcessor(BlipImageProcessor(size={"height": 30, "width": 30}), tokenizer)
    image = Image.linear_gradient("L").convert("RGB")
    for seed in range(100):  # Until one says something.
        torch.manual_seed(seed)
        model = BlipForConditionalGeneration(config).eval()
        tokens = model.generate(**processor(images=[image], return_tensors="pt"), max_new_tokens=9)
        said = set(processor.batch_decode(tokens, skip_special_tokens=True)[0].split())
        if said & (set(WORDS) - {"a", "on", "the"}):
            break
    model.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
