"""Reference arrays of BiomedCLIP: ``python tests/parity/make/biomedclip.py``.

Its code is open_clip (3.3.0) as its card calls it: create_model_from_pretrained and get_tokenizer of a folder with
open_clip_config.json. The stand-in has the published configuration with a small timm ViT and a small BERT.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import biomedclip_folder
import narrow
import torch

from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import open_clip  # noqa: E402

with tempfile.TemporaryDirectory() as scratch:
    folder = Path(scratch)
    bert = biomedclip_folder.write_text_model(folder / "bert")
    config = biomedclip_folder.config(str(bert), str(bert))
    config["text_cfg"]["hf_model_pretrained"] = False
    keys = open_clip.CustomTextCLIP(**config).state_dict()
    # transformers of the time kept this buffer
    keys["text.transformer.embeddings.position_ids"] = torch.empty(1, 64)
    state = narrow.record_keys("biomedclip", keys)
    biomedclip_folder.write(folder / "model", config, state)
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(bert / name, folder / "model")
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder / 'model'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder / 'model'}")
    model.eval()
    with torch.no_grad():
        narrow.record(
            "biomedclip",
            f"open_clip {open_clip.__version__}",
            images=model.encode_image(torch.stack([preprocess(picture) for picture in narrow.pictures()])),
            texts=model.encode_text(tokenizer(biomedclip_folder.TEXTS)),
        )
