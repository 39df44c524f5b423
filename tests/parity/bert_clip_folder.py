"""The BERT folders of RET-CLIP and UniMed-CLIP in small."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import narrow

if TYPE_CHECKING:
    from pathlib import Path

BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}
CHINESE = ["视网膜 出血,双眼 AMD", "糖尿病视网膜病变"]
ENGLISH = ["Cardiomegaly is evident &amp; seen in the X-ray.", "a  histopathology slide showing Tumor"]


def write_text_model(folder: Path, *, chinese: bool) -> Path:
    """Write the base BERT's folder: configuration and vocabulary."""
    narrow.standin.save_text("pubmed", folder, **BERT)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    if chinese:
        # the published vocabulary's order of the special tokens, and a few signs
        special = ["[PAD]", *(f"[unused{n}]" for n in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
        signs = sorted(set("视网膜出血双眼糖尿病变"))
        pieces = ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz"]
        words = [*special, *letters, *signs, *pieces]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": len(words)}))
    return folder
