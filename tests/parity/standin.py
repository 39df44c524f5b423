"""Full-size stand-in checkpoints for five published encoders, rebuilt from tensor names, shapes and a seed.

Nothing here is a published weight. The values are random and bit-identical everywhere (`digest`): for each tensor a
PCG64 generator is seeded with the first 16 bytes of sha256(f"{seed}:{name}"); each raw 64-bit word gives one value,
the sum of its four 16-bit pieces minus 131070 (nearly Gaussian). Only integer arithmetic, one float64 product and
the cast to float32 follow. A part (a file in ``keys/``) has the seed text f"{seed}.{part}", so that equal names in
two systems get different values.

    save("flair", Path("some/folder"), seed=0)    writes the files in the authors' layout
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import re
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
SIGMA = math.sqrt((2**32 - 1) / 3.0)
LOGIT_SCALE = 2.6592600369327779  # ln(1/0.07), what CLIP-like models start from
PARTS = {
    "retizero": ["retizero"],
    "flair": ["flair"],
    "rad_dino": ["rad_dino"],
    "lvm_med": ["lvm_med_resnet", "lvm_med_vit"],
    "kad": ["kad_model", "kad_image_encoder", "kad_text_encoder"],
}
VOCABULARIES = {"cased": 28996, "pubmed": 30522}

_PAIRS = np.uint64(0x0000FFFF0000FFFF)
_LOW = np.uint64(0xFFFFFFFF)
# rows with exactly zero sum after a ReLU, so that a random ResNet still tells pictures apart
_ZERO_SUM = re.compile(r"(^|\.)layer[1-4]\.\d+\.(conv\d|downsample\.0)\.weight$|(^|\.)res_l[12]\.weight$")
# ResNets: the stem times 3, then the variance kept through convolution and ReLU, the residual branch halved
_CONVOLUTION = re.compile(r"(?:^|\.)(conv[123])\.weight$")
_GAIN = {"conv1": 1.7, "conv2": 1.7, "conv3": 0.5}


def integers(seed: str, name: str, count: int) -> np.ndarray:
    """Draw nearly Gaussian int32 values with standard deviation SIGMA."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "little")
    bits = np.random.PCG64(key)
    out = np.empty(count, np.int32)
    step = 1 << 16
    for start in range(0, count, step):
        raw = bits.random_raw(min(step, count - start))
        pairs = (raw & _PAIRS) + ((raw >> np.uint64(16)) & _PAIRS)
        out[start : start + len(raw)] = ((pairs & _LOW) + (pairs >> np.uint64(32))).astype(np.int32) - 131070
    return out


def canonical(name: str) -> str:
    """KAD stores its ResNet twice and one norm twice: both names give one tensor."""
    match = re.match(r"res_features\.(\d)\.(.*)", name)
    if match:
        place = int(match[1])
        return {0: "resnet.conv1.", 1: "resnet.bn1."}.get(place, f"resnet.layer{place - 3}.") + match[2]
    return re.sub(r"^decoder\.norm\.", "decoder_norm.", name)


def tensor(seed: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Build one tensor by the rules of the recipe."""
    last = name.rsplit(".", 1)[-1]
    if last == "position_ids":
        return torch.arange(shape[-1], dtype=torch.int64).reshape(shape)
    if last == "num_batches_tracked":
        return torch.ones(shape, dtype=torch.int64)
    if last == "logit_scale":
        return torch.full(shape, LOGIT_SCALE, dtype=torch.float32)
    count = int(np.prod(shape, dtype=np.int64)) if shape else 1
    values: np.ndarray = integers(seed, name, count)
    add, factor = 0.0, 0.02  # biases, tokens, word and position tables
    if last == "running_mean":
        factor = 0.05
    elif last == "running_var":
        values, add, factor = np.abs(values), 1.0, 0.1
    elif last in ("rel_pos_h", "rel_pos_w"):
        factor = 0.1
    elif last in ("cls_token", "mask_token", "pos_embed", "position_embeddings") or (
        "_embeddings.weight" in name and len(shape) == 2
    ):
        pass
    elif last == "lambda1" or (last == "weight" and len(shape) == 1):
        add, factor = 1.0, 0.1
    elif len(shape) >= 2:
        fan = count // shape[0]
        factor = 1.0 / math.sqrt(fan)
        if "linear_a_" in name or "linear_b_" in name:
            factor *= 0.3
        convolution = _CONVOLUTION.search(name)
        if convolution:
            factor *= 3.0 if count == 64 * 147 else _GAIN[convolution[1]]
        if _ZERO_SUM.search(name) or ("projection_head_vision" in name and fan == 2048):
            rows = values.reshape(shape[0], fan).astype(np.int64)
            values = rows * fan - rows.sum(1, keepdims=True)
            factor /= fan
    out = values.reshape(-1).astype(np.float64) * (factor / SIGMA)
    if add:
        out += add
    return torch.from_numpy(out.astype(np.float32).reshape(shape))


def part(name: str, seed: int) -> dict[str, torch.Tensor]:
    """Build a part's tensors in the order of its list; aliases share one tensor, as in a saved state dict."""
    lines = [line.split("\t") for line in (HERE / "keys" / f"{name}.tsv").read_text().splitlines()]
    shapes = {canonical(key): tuple(int(n) for n in shape.split(",") if n) for key, shape, _ in reversed(lines)}
    with ThreadPoolExecutor() as pool:  # numpy draws and multiplies side by side
        made = {own: pool.submit(tensor, f"{seed}.{name}", own, shape) for own, shape in shapes.items()}
        return {key: made[canonical(key)].result() for key, _, _ in lines}


def digest(state: dict[str, torch.Tensor]) -> str:
    """sha256 over the little-endian bytes of all tensors in order."""
    sha = hashlib.sha256()
    for value in state.values():
        array = value.numpy()
        sha.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return sha.hexdigest()


def vocabulary(kind: str) -> list[str]:
    """``"cased"``: BERT's cased layout ([PAD] 0, [UNK] 100, [CLS] 101, ...); ``"pubmed"``: [PAD] 0, [UNK] 1, ..."""
    if kind == "cased":
        entries = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        entries += ["[unused100]", "[unused101]", *map(chr, range(33, 127))]
        unused = 102
    else:
        entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        entries += [chr(c) for c in range(33, 127) if not chr(c).isupper()]
        unused = 0
    entries += ["##" + c for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    words = (HERE / "words.txt").read_text().split()
    if kind == "pubmed":
        words = [word for word in reversed(words) if word == word.lower()]
    entries = list(dict.fromkeys([*entries, *words]))
    entries += [f"[unused{unused + i}]" for i in range(VOCABULARIES[kind] - len(entries))]
    assert len(set(entries)) == VOCABULARIES[kind]
    return entries


def save_text(kind: str, folder: Path, **shape: int) -> Path:
    """Write a base BERT's folder, config.json and vocab.txt only; `shape` makes it smaller than BERT-base."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary(kind)) + "\n")
    config = {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 768,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": VOCABULARIES[kind],
    }
    _json(folder / "config.json", config | shape)
    return folder


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def save(system: str, folder: Path, seed: int = 0) -> None:
    """Write a system's files in its authors' layout."""
    folder.mkdir(parents=True, exist_ok=True)
    globals()[f"_save_{system}"](folder, seed)


def _save_retizero(folder: Path, seed: int) -> None:
    torch.save(part("retizero", seed), folder / "RetiZero.pth")
    save_text("cased", folder / "Bio_ClinicalBERT")


def _save_flair(folder: Path, seed: int) -> None:
    state = part("flair", seed)
    torch.save(state, folder / "flair_resnet.pth")
    save_text("cased", folder / "Bio_ClinicalBERT")
    save_flair_hub(state, folder / "hf")


def save_flair_hub(state: dict[str, torch.Tensor], folder: Path, **changes: Any) -> None:
    """Write FLAIR's hub form; a newer library wrote it, so it holds no position_ids."""
    folder.mkdir(exist_ok=True)
    kept = {key: value for key, value in state.items() if not key.endswith("position_ids")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    config = {
        "bert_type": "emilyalsentzer/Bio_ClinicalBERT",
        "caption": "A fundus photograph of [CLS]",
        "from_checkpoint": False,
        "image_size": 512,
        "logit_scale_init_value": 0.07,
        "norm_features": True,
        "out_path": None,
        "proj_bias": False,
        "proj_dim": 512,
        "projection": True,
        "vision_pretrained": True,
        "vision_type": "resnet_v1",
        "weights_path": None,
    }
    _json(folder / "config.json", config | changes)


def _save_rad_dino(folder: Path, seed: int) -> None:
    save_file(part("rad_dino", seed), folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["Dinov2Model"],
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": 768,
        "image_size": 518,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-06,
        "layerscale_value": 1.0,
        "mlp_ratio": 4,
        "model_type": "dinov2",
        "num_attention_heads": 12,
        "num_channels": 3,
        "num_hidden_layers": 12,
        "patch_size": 14,
        "qkv_bias": True,
        "torch_dtype": "float32",
        "use_swiglu_ffn": False,
    }
    _json(folder / "config.json", config)
    processor = {
        "crop_size": {"height": 518, "width": 518},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5307] * 3,
        "image_processor_type": "BitImageProcessor",
        "image_std": [0.2583] * 3,
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 518},
    }
    _json(folder / "preprocessor_config.json", processor)


def _save_lvm_med(folder: Path, seed: int) -> None:
    torch.save(part("lvm_med_resnet", seed), folder / "lvmmed_resnet.torch")
    torch.save(part("lvm_med_vit", seed), folder / "lvmmed_vit.pth")


def _save_kad(folder: Path, seed: int) -> None:
    text, network = part("kad_text_encoder", seed), part("kad_model", seed)
    optimizer = {
        "state": {},
        "param_groups": [
            {
                "lr": 5e-5,
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.02,
                "params": list(range(len(network))),
            }
        ],
    }
    best = {
        "model": network,
        "image_encoder": part("kad_image_encoder", seed),
        "text_encoder": text,
        "optimizer": optimizer,
        "lr_scheduler": {},
        "config": {"image_res": 512, "batch_size": 64},
        "epoch": 0,
    }
    (folder / "KAD_512").mkdir(exist_ok=True)
    torch.save(best, folder / "KAD_512" / "best_valid.pt")
    (folder / "Knowledge_Encoder").mkdir(exist_ok=True)
    knowledge = {"epoch": 0, "name": "stand-in", "state_dict": text, "optimizer": {}}
    torch.save(knowledge, folder / "Knowledge_Encoder" / "epoch_latest.pt")
    save_text("pubmed", folder / "Med-KEBERT")


def main(folder: Path, systems: list[str]) -> None:
    """Write systems laid out for RETR_WEIGHTS=FOLDER, each in a process of its own."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(save, systems, [folder / name.replace("_", "-") for name in systems]))


if __name__ == "__main__":  # python tests/parity/standin.py FOLDER [SYSTEM ...]: by default all systems
    main(Path(sys.argv[1]), sys.argv[2:] or list(PARTS))
