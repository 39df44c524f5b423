"""MedImageInsight's folder in small: its configuration with narrow networks, its tokenizer's form with few words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from safetensors.torch import save_file

if TYPE_CHECKING:
    from pathlib import Path

    import torch

TEXTS = ["x-ray chest anteroposterior Pneumonia", "fundus photograph, no lesion"]
# the name of the published file, which holds safetensors in spite of it
FILE = "medimageinsigt-v1.0.0.pt"


def published() -> dict[str, Any]:
    """Return it in the published sizes; the vocabulary stays small."""
    found = config()
    found["IMAGE_ENCODER"]["IMAGE_SIZE"] = [480, 480]
    spec = {"DIM_EMBED": [256, 512, 1024, 2048], "NUM_HEADS": [8, 16, 32, 64], "NUM_GROUPS": [8, 16, 32, 64]}
    found["IMAGE_ENCODER"]["SPEC"] |= spec | {"DEPTHS": [1, 1, 9, 1], "WINDOW_SIZE": 12}
    found["LANG_ENCODER"] |= {"WIDTH": 1024, "HEADS": 16, "LAYERS": 16}
    found["UNICL_MODEL"]["DIM_PROJECTION"] = 1024
    return found


def config() -> dict[str, Any]:
    """Return what ``config.yaml`` says of the networks and the pictures."""
    return {
        "TASK": "UniCLTask",
        "VERBOSE": True,
        "IMAGE_ENCODER": {
            "NAME": "davit_v1",
            "NUM_CLASSES": 0,
            "IMAGE_SIZE": [64, 64],
            "LOAD_PRETRAINED": False,
            "PRETRAINED": "",
            "PRETRAINED_LAYERS": "*",
            "IMAGE_MEAN": [0.485, 0.456, 0.406],
            "IMAGE_STD": [0.229, 0.224, 0.225],
            "SPEC": {
                "DROP_RATE": 0.1,
                "DROP_PATH_RATE": 0.2,
                "PATCH_SIZE": [7, 3, 3, 3],
                "PATCH_STRIDE": [4, 2, 2, 2],
                "PATCH_PADDING": [3, 1, 1, 1],
                "PATCH_PRENORM": [False, True, True, True],
                "DIM_EMBED": [16, 24, 32, 48],
                "NUM_HEADS": [2, 3, 4, 6],
                "NUM_GROUPS": [2, 3, 4, 6],
                "DEPTHS": [1, 1, 2, 1],
                # windows that do not fill the maps
                "WINDOW_SIZE": 6,
                "ENABLE_CHECKPOINT": False,
            },
        },
        "LANG_ENCODER": {
            "NAME": "transformer",
            "LOAD_PRETRAINED": False,
            "PRETRAINED": "",
            "PRETRAINED_LAYERS": "*",
            "TOKENIZER": "clip",
            "CONTEXT_LENGTH": 77,
            "WIDTH": 32,
            "HEADS": 2,
            "LAYERS": 2,
            "AUTOGRESSIVE": False,
        },
        "UNICL_MODEL": {
            "DIM_PROJECTION": 24,
            "GATHER_TENSORS": True,
            "LOAD_PRETRAINED": True,
            "PRETRAINED": "",
            "PRETRAINED_LAYERS": "*",
        },
        "AUG": {"INTERPOLATION": "bicubic", "SCALE": [0.8, 1.0]},
        "TEST": {"CENTER_CROP": False},
    }


def write(folder: Path, state: dict[str, torch.Tensor], **changes: Any) -> Path:
    """Write the folder; without tensors only its configuration and tokenizer."""
    for name in ("vision_model", "language_model/clip_tokenizer_4.16.2"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**config(), **changes}))
    words = folder / "language_model" / "clip_tokenizer_4.16.2"
    letters = [chr(code) for code in (*range(33, 127),)]
    merges = [("c", "h"), ("ch", "e"), ("n", "o</w>"), ("l", "e"), ("r", "a"), ("p", "h")]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    # the mark of the end has the highest number, by which it is found
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (words / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (words / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (words / "special_tokens_map.json").write_text(json.dumps(special))
    stated = {"do_lower_case": True, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "errors": "replace"}
    (words / "tokenizer_config.json").write_text(json.dumps(stated | special))
    if state:
        save_file(state, folder / "vision_model" / FILE, {"format": "pt"})
    return folder
